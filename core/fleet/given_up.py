"""A run whose hosts do not answer any more and that the user gave up: noted in its directory here, until a host answers.

Without it such a run would be open for ever: silent is not failed, and nobody can be asked.
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from core.jobs.records import read_record, write_record
from core.runlog.layout import RunLayout

_NAME = "given-up.json"


class GivenUp(msgspec.Struct, frozen=True, kw_only=True):
    """That a run was given up.

    Attributes:
        attempt: The attempt that it holds for.
        ts: When, in Unix seconds; a host that answers later is believed again.
        message: Which hosts did not answer, as a sentence.
    """

    attempt: int
    ts: float
    message: str


def note_given_up(run_dir: Path, attempt: int, hosts: list[str]) -> None:
    """Note that a run is given up because these hosts do not answer; OSError when that cannot be written."""
    layout = RunLayout(run_dir)
    layout.control.mkdir(exist_ok=True)
    verb = "does" if len(hosts) == 1 else "do"
    message = f"It was given up: {', '.join(hosts)} {verb} not answer. It may still go on there."
    write_record(layout.control / _NAME, GivenUp(attempt=attempt, ts=time.time(), message=message))


def given_up(run_dir: Path, attempt: int) -> GivenUp | None:
    """Return the note on an attempt; None when it was not given up."""
    found = read_record(RunLayout(run_dir).control / _NAME, GivenUp)
    return found if found is not None and found.attempt == attempt else None
