"""How much of the machine this process may use: scheduler affinity and control-group limits (Linux v1 and v2).

A limit may stand on any ancestor of the process's own group, so every level up to the root is read and the tightest
wins. Systems without control groups have no limits here.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import psutil

_NO_LIMIT_BYTES = 1 << 60
_V1_NAMES = {
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    "cpu": ("cpu.cfs_quota_us", "cpu.cfs_period_us"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlGroup:
    """The tightest limits in force.

    Attributes:
        memory_limit_bytes: None without a limit.
        memory_usage_file: File with the bytes in use at the level of that limit; None without one.
        quota_cores: Cores' worth of time allowed; None without a limit.
    """

    memory_limit_bytes: int | None = None
    memory_usage_file: Path | None = None
    quota_cores: float | None = None


def affinity_cores() -> int:
    """Return the number of hardware threads this process may be scheduled on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return psutil.cpu_count() or 1


def control_group(proc: Path = Path("/proc/self"), root: Path = Path("/sys/fs/cgroup")) -> ControlGroup:
    """Read the limits of the calling process's control group; all None where there is none. Never raises."""
    memory: tuple[int, Path] | None = None
    quota: float | None = None
    for controllers, path in _memberships(proc):
        is_v2 = not controllers
        if is_v2 or "memory" in controllers:
            found = _tightest_memory(_levels(root if is_v2 else root / "memory", path), is_v2=is_v2)
            memory = min((m for m in (memory, found) if m is not None), default=None)
        if is_v2 or "cpu" in controllers:
            base = root if is_v2 else root / ",".join(controllers)
            found_quota = _tightest_quota(_levels(base if base.is_dir() else root / "cpu", path), is_v2=is_v2)
            quota = min((q for q in (quota, found_quota) if q is not None), default=None)
    return ControlGroup(
        memory_limit_bytes=memory[0] if memory else None,
        memory_usage_file=memory[1] if memory else None,
        quota_cores=quota,
    )


def _memberships(proc: Path) -> list[tuple[tuple[str, ...], str]]:
    """Return (controllers, path) of each hierarchy; version 2 has no controllers in its line."""
    found: list[tuple[tuple[str, ...], str]] = []
    for line in read_text(proc / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        found.append((tuple(filter(None, controllers.split(","))), path))
    return found


def _levels(base: Path, path: str) -> list[Path]:
    """Return the group's folder and all above it up to ``base``; inside a container the path may not be visible."""
    parts = [part for part in path.split("/") if part and part != ".."]
    folders = [base.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1)]
    return [folder for folder in folders if folder.is_dir()]


def _tightest_memory(levels: list[Path], *, is_v2: bool) -> tuple[int, Path] | None:
    limit_name, usage_name = ("memory.max", "memory.current") if is_v2 else _V1_NAMES["memory"]
    found: list[tuple[int, Path]] = []
    for level in levels:
        text = read_text(level / limit_name).strip()
        if text.isdigit() and int(text) < _NO_LIMIT_BYTES:
            found.append((int(text), level / usage_name))
    return min(found, default=None)


def _tightest_quota(levels: list[Path], *, is_v2: bool) -> float | None:
    found: list[float] = []
    for level in levels:
        if is_v2:
            words = read_text(level / "cpu.max").split()
        else:
            words = [read_text(level / name).strip() for name in _V1_NAMES["cpu"]]
        if len(words) == 2 and words[0].isdigit() and words[1].isdigit() and int(words[1]) > 0:
            found.append(int(words[0]) / int(words[1]))
    return min(found, default=None)


def read_text(path: Path) -> str:
    """Return a small system file's text; empty when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
