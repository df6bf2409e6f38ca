"""Asks ranks of a run on this machine for a profile: files in its ``control`` folder, which ``core.train.profile`` takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from core.runlog.layout import RunLayout


def request_profile(run_dir: Path, steps: int, ranks: Sequence[int]) -> None:
    """Write the requests; a rank that has not taken an earlier one yet takes both as one.

    Args:
        run_dir: The run directory on this machine.
        steps: How many steps to record.
        ranks: Which ranks record.

    Raises:
        OSError: They cannot be written.
    """
    layout = RunLayout(run_dir)
    layout.control.mkdir(exist_ok=True)
    # The number first: a rank reads it once it has seen its request. Replaced as a whole, so that none reads half of it.
    fresh = layout.profile_steps.with_suffix(".new")
    fresh.write_text(f"{steps}\n", encoding="ascii")
    fresh.replace(layout.profile_steps)
    for rank in ranks:
        layout.profile_request(rank).touch()


def withdraw_profile(run_dir: Path) -> None:
    """Take back requests that no rank has taken; OSError when they cannot be removed."""
    layout = RunLayout(run_dir)
    for request in layout.control.glob(f"{layout.profile_request(0).name}*"):
        request.unlink(missing_ok=True)
