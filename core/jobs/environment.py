"""Records in what environment an attempt ran: versions, machine, and the state of the user's code in git."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from core.contracts.specs import RunSpec
from core.plugins.fields import spec_fields
from core.runlog.layout import RunLayout

PACKAGES = (
    "pilothouse",
    "torch",
    "torchvision",
    "accelerate",
    "numpy",
    "scikit-learn",
    "onnx",
    "onnxruntime",
    "openvino",
    "nncf",
    "torchao",
    "transformers",
)
_GIT_LIMIT_S = 10.0
_DIFF_LIMIT_BYTES = 1 << 20


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(command, capture_output=True, timeout=_GIT_LIMIT_S, check=False, env=environment)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout[:_DIFF_LIMIT_BYTES].decode(errors="replace").strip() if done.returncode == 0 else None


def _code_state(spec: RunSpec) -> list[dict[str, str]]:
    """Return commit and uncommitted diff of each git work tree that a path in the spec lies in."""
    tree = msgspec.to_builtins(spec)
    states: dict[str, dict[str, str]] = {}
    for field in spec_fields(type(spec)):
        value: Any = tree
        for name in field.path:
            value = value[name]
        if not field.path_kind or not isinstance(value, str) or not Path(value).is_absolute():
            continue
        folder = Path(value) if Path(value).is_dir() else Path(value).parent
        root = _git(folder, "rev-parse", "--show-toplevel")
        if root and root not in states:
            commit = _git(folder, "rev-parse", "HEAD") or ""
            states[root] = {
                "root": root,
                "commit": commit,
                "diff": _git(folder, "diff", "--no-ext-diff", "--no-textconv", "HEAD") or "",
            }
    return list(states.values())


def write_environment(run_dir: Path, spec: RunSpec, attempt: int, hardware: Mapping[str, object]) -> None:
    """Write ``environment.json`` (of a later attempt: ``environment.attempt<n>.json``).

    Args:
        run_dir: The run directory.
        spec: What runs; its paths tell whose git state matters.
        attempt: Number of the attempt.
        hardware: The host's hardware report, as plain values.

    Raises:
        OSError: It cannot be written.
    """
    record = {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": _versions(),
        "hardware": dict(hardware),
        "code": _code_state(spec),
    }
    layout = RunLayout(run_dir)
    target = layout.environment if attempt == 1 else run_dir / f"environment.attempt{attempt}.json"
    target.write_bytes(msgspec.json.format(msgspec.json.encode(record)))
