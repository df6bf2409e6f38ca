"""Finds a usable uv on a host, or brings ours there: the program of the ``uv`` package in our own environment."""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from core.contracts.errors import Cancelled, EnvironmentProblem
from core.contracts.hosts import Progress, Watcher
from core.contracts.links import Link
from core.fleet.host_facts import HostFacts
from core.fleet.package_fetch import Platform, fetch_unpacked, uv_here

_OLDEST_UV = (0, 7)


def uv_on_host(link: Link, facts: HostFacts, cache: Path, watcher: Watcher) -> str:
    """Return the path of a usable uv on a host: its own, ours from before, or one that is copied there now.

    Args:
        link: The connection.
        facts: What the host said of itself.
        cache: Folder here for a uv of another processor.
        watcher: Sees the progress; may cancel.

    Raises:
        EnvironmentProblem: There is none for the host's processor, or the copy does not start there.
        Cancelled: The user cancelled.
    """
    own = facts.tools.get("uv", "")
    if own and _uv_version(link, own) >= _OLDEST_UV:
        return own
    target = f"{facts.work_dir}/bin/uv-{metadata.version('uv')}"
    if link.stat(target) is None:
        program = _program_for(facts, cache, watcher)
        size = program.stat().st_size
        link.makedirs(f"{facts.work_dir}/bin")
        watcher.report(Progress(stage="Copying uv to the host", line=f"uv {metadata.version('uv')}, {size >> 20} MiB"))
        link.put(str(program), target, copy_watch(watcher, "Copying uv to the host", size))
        link.run(["chmod", "755", target])
    if _uv_version(link, target) < _OLDEST_UV:
        link.remove(target)
        raise EnvironmentProblem(
            f"uv does not start on {link.name} ({facts.os_name}, {facts.arch}).",
            f"Look whether programs may be run from {facts.work_dir} (mount option noexec), or install uv there yourself.",
        )
    return target


def copy_watch(watcher: Watcher, stage: str, total_bytes: int) -> Callable[[int], None]:
    """Return an ``on_bytes`` for ``Link.put`` that shows progress and ends the copy when the user cancels."""
    shown = [0.0]

    def on_bytes(done: int) -> None:
        if watcher.is_cancelled():
            raise Cancelled
        now = time.monotonic()
        if now - shown[0] > 0.2:
            shown[0] = now
            watcher.report(Progress(stage=stage, done=min(done / max(total_bytes, 1), 1.0)))

    return on_bytes


def _uv_version(link: Link, program: str) -> tuple[int, ...]:
    done = link.run([program, "--version"], timeout_s=30.0)
    found = re.match(rb"uv (\d+)\.(\d+)", done.stdout)
    return (int(found[1]), int(found[2])) if done.code == 0 and found else (0, 0)


def _program_for(facts: HostFacts, cache: Path, watcher: Watcher) -> Path:
    ours = platform.machine() == facts.arch and facts.glibc is not None and platform.libc_ver()[0] == "glibc"
    if ours:
        return Path(uv_here())
    wanted = Platform(arch=facts.arch, glibc=facts.glibc, python=(3, 12))
    folder = cache / f"uv-{metadata.version('uv')}-{wanted.uv_name}"
    if not (folder / "bin" / "uv").is_file():
        fetch_unpacked([f"uv=={metadata.version('uv')}"], wanted, folder, watcher)
    return folder / "bin" / "uv"
