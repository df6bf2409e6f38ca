"""Reads the report that a sweep keeps below its artifacts."""

from __future__ import annotations

from pathlib import Path

import msgspec

from core.contracts.errors import EnvironmentProblem, UserError
from core.contracts.sweeps import REPORT_NAME, SweepReport
from core.runlog.layout import RunLayout


def read_sweep(run_dir: Path) -> SweepReport:
    """Return the report of a sweep. It is replaced as a whole, so that it can be read at any time.

    Raises:
        UserError: The run is no sweep, or has not told anything yet.
        EnvironmentProblem: The report cannot be read.
    """
    path = RunLayout(run_dir).artifacts / REPORT_NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=SweepReport)
    except FileNotFoundError:
        raise UserError(
            f"The run {run_dir.name} has no sweep to show.", "Give the id of a sweep; a new one shows in a moment."
        ) from None
    except OSError as error:
        raise EnvironmentProblem(
            f"{str(path)!r} cannot be read: {error.strerror}.", "Check the home folder."
        ) from error
    except msgspec.DecodeError as error:
        raise EnvironmentProblem(
            f"{str(path)!r} is damaged: {error}.", "Resume the sweep: it writes its report anew."
        ) from error
