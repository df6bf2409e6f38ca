"""Says before a launch whether the disk of the home folder has room for what the run will write."""

from __future__ import annotations

import shutil
from pathlib import Path

from core.contracts.errors import FieldProblem
from core.settings.home import default_home

_RESERVE_BYTES = 64 << 20


def _existing(path: Path) -> Path:
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def check_space(needed_bytes: int, what: str) -> tuple[FieldProblem, ...]:
    """Return a problem when fewer than ``needed_bytes`` (and a small reserve) are free; never raises."""
    home = _existing(default_home())
    try:
        free = shutil.disk_usage(home).free
    except OSError as error:
        message = f"the disk of {home} cannot be looked at: {error.strerror}."
        return (FieldProblem(field="", message=message, hint="Check that it is mounted."),)
    if free >= needed_bytes + _RESERVE_BYTES:
        return ()
    message = f"{what} need about {needed_bytes / 2**20:,.0f} MiB, but {home} has {free / 2**20:,.0f} MiB free."
    return (FieldProblem(field="", message=message, hint="Free some space or keep fewer checkpoints."),)


def checkpoint_bytes(parameters: int, *, averaged: bool, keep_last: int) -> int:
    """Return the room that checkpoints of a float32 model under AdamW take while a new one is being written.

    One holds the weights, two moments, the best weights and, where used, their average: 4 bytes each.
    """
    copies = 5 if averaged else 4
    return 4 * copies * parameters * (keep_last + 1)
