"""Metrics from a CSV file that a script appends to; the first row names the columns, one of them counts the steps."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path

from core.train.script.follow import FollowedLines
from core.train.script.points import Point

STEP_COLUMNS = ("step", "global_step", "steps", "iteration", "iter", "batch", "epoch")
_DELIMITERS = (",", "\t", ";")
_ROWS_PER_POLL = 20_000


def _delimiter(header: str) -> str:
    return max(_DELIMITERS, key=header.count)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


class CsvSource:
    """One CSV file.

    Args:
        path: The file.
        skip_bytes: Rows before this place were there before the script started; only the header is taken from them.
        needs_step_column: Files that were not named by the user count as metrics only with a step column.
    """

    def __init__(self, path: Path, *, skip_bytes: int = 0, needs_step_column: bool = True) -> None:
        self.label = path.stem
        self._lines = FollowedLines(path)
        self._skip_bytes = skip_bytes
        self._needs_step_column = needs_step_column
        self._columns: list[str] | None = None
        self._delimiter = ","
        self._step_column = -1
        self._rows = 0
        self._backlog: list[str] = []

    @property
    def is_metrics(self) -> bool | None:
        """Whether the file holds metrics; None until its header is there."""
        if self._columns is None:
            return None
        return self._step_column >= 0 or not self._needs_step_column

    def poll(self) -> Iterator[Point]:
        """Yield a point for each new complete row; text cells are left out."""
        lines, restarted = self._lines.read()
        if restarted:
            self._columns, self._rows, self._skip_bytes = None, 0, 0
        for line in lines:
            point = self._take(line)
            if point is not None:
                yield point

    def _take(self, line: str) -> Point | None:
        size = len(line.encode()) + 1
        is_old = self._skip_bytes >= size
        self._skip_bytes = max(0, self._skip_bytes - size)
        if not line.strip():
            return None
        if self._columns is None:
            self._read_header(line)
            return None
        self._rows += 1
        return None if is_old or not self.is_metrics else self._point(line)

    def _read_header(self, line: str) -> None:
        self._delimiter = _delimiter(line)
        self._columns = [name.strip() for name in next(csv.reader([line], delimiter=self._delimiter))]
        lowered = [name.lower() for name in self._columns]
        self._step_column = next((lowered.index(name) for name in STEP_COLUMNS if name in lowered), -1)

    def _point(self, line: str) -> Point | None:
        cells = next(csv.reader([line], delimiter=self._delimiter), [])
        assert self._columns is not None
        step = float(self._rows)
        values: dict[str, float] = {}
        for index, (name, cell) in enumerate(zip(self._columns, cells, strict=False)):
            number = _number(cell)
            if number is None:
                continue
            if index == self._step_column:
                step = number
            else:
                values[name] = number
        return Point(int(step), values) if values and math.isfinite(step) else None
