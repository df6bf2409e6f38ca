"""Says before a launch whether the disk of the home folder has room for what the run will write."""

from __future__ import annotations

import shutil
from pathlib import Path

from core.contracts.errors import FieldProblem
from core.settings.home import default_home

_RESERVE_BYTES = 64 << 20
# Bytes of optimizer state per weight: two float32 moments, one, rows and columns only, or two of a byte.
_STATE_BYTES = {"adamw": 8.0, "muon": 8.0, "sgd": 4.0, "adafactor": 0.5, "adamw-8bit": 2.1}


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


def checkpoint_bytes(
    parameters: int, *, averaged: bool, keep_last: int, keep_best: bool = True, algorithm: str = "adamw"
) -> int:
    """Return the room that a run's checkpoints take while a new one is being written.

    Args:
        parameters: Trained weights; frozen ones are not part of a checkpoint.
        averaged: Their average is kept.
        keep_last: Checkpoints that stay.
        keep_best: The best one stays besides.
        algorithm: Decides how much state the optimizer has for each weight.
    """
    per_weight = 4.0 * (1 + averaged) + _STATE_BYTES.get(algorithm, 8.0)
    return int(per_weight * parameters) * (keep_last + keep_best + 1)
