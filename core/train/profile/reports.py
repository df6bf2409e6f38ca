"""Where profiles lie below a run's artifacts, and how they are registered. Imports no torch."""

from __future__ import annotations

from pathlib import Path

import msgspec

from core.contracts.profiles import SUMMARY_FILE, SUMMARY_KIND, ProfileReport
from core.contracts.worker import RunContext

FOLDER = "profiles"
MOST_OPERATORS = 60
"""Operators and phases that a report lists at most."""


def write_report(context: RunContext, folder: Path, report: ProfileReport) -> None:
    """Write ``profile.json`` into a folder below the run's artifacts and register it.

    Raises:
        OSError: It cannot be written.
    """
    path = folder / SUMMARY_FILE
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1))
    meta = {"rank": float(report.rank), "first_step": float(report.first_step), "recorded_at": report.recorded_at}
    context.artifact(path, kind=SUMMARY_KIND, name=f"{folder.name} profile", meta=meta)
