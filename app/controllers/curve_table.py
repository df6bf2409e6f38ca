"""Writes the values that a chart shows as a CSV table: one row a point, in long form."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from app.viewmodels.metric_series import Axis, CurveWindow
from core.contracts.errors import EnvironmentProblem

_TITLES = {Axis.STEP: "step", Axis.RELATIVE: "seconds_since_start", Axis.WALL: "unix_seconds"}


def write_shown(path: Path, axis: Axis, windows: Sequence[tuple[str, CurveWindow]]) -> int:
    """Write ``curve, position, value, smoothed`` rows and return how many. Any thread.

    Raises:
        EnvironmentProblem: The file cannot be written.
    """
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            return _write(csv.writer(file), axis, windows)
    except OSError as error:
        raise EnvironmentProblem(
            f"{path.name} could not be written: {error.strerror}.", f"Check that {path.parent} may be written to."
        ) from error


def _write(writer: object, axis: Axis, windows: Sequence[tuple[str, CurveWindow]]) -> int:
    rows = [("curve", _TITLES[axis], "value", "is_smoothed")]
    for key, window in windows:
        rows += [(key, repr(x), repr(y), "no") for x, y in zip(window.x.tolist(), window.y.tolist(), strict=True)]
        smooth = zip(window.smooth_x.tolist(), window.smooth_y.tolist(), strict=True)
        rows += [(key, repr(x), repr(y), "yes") for x, y in smooth]
    writer.writerows(rows)  # pyright: ignore[reportAttributeAccessIssue]
    return len(rows) - 1
