"""Reads stored curves: exact where few points are asked for, else the extremes that a plot of that width can show.

How: a curve is a row of chunks of 4096 points, compressed, with a pyramid of extremes over the finished ones. A range
is covered by the coarsest level that is fine enough, its ends by finer levels, the very ends by the points themselves;
so opening a curve reads about as much as is drawn, whatever its length.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from sqlalchemy import Connection, Row, Select, bindparam, case, func, select

from core.contracts.runs import Curve
from core.history import pyramid, schema
from core.history.blocks import unpack_floats, unpack_steps, unpack_times
from core.history.columns import METRIC
from core.history.extremes import NO_POINTS, Points, decimate, join

CHUNK = 4096
"""Points in a finished chunk: a multiple of the pyramid's finest bucket."""
_FINE_ENOUGH = 0.75
Axis = Literal["step", "ts"]

_c = schema.chunks.c
_select_curve = (
    select(schema.curves.c.id, schema.curves.c.source, schema.curves.c.total, schema.curves.c.ordered)
    .where(schema.curves.c.run == bindparam("the_run"), schema.curves.c.key == bindparam("the_key"))
    .order_by(case((schema.curves.c.source == METRIC, 0), else_=1))
    .limit(1)
)
_select_chunks = (
    select(_c.number, _c.count, schema.axes.c.step, schema.axes.c.ts, _c.value)
    .join_from(schema.chunks, schema.axes, _c.axis == schema.axes.c.digest)
    .where(_c.curve == bindparam("the_curve"), _c.number.between(bindparam("first_chunk"), bindparam("last_chunk")))
    .order_by(_c.number)
)
_first_reaching = {
    by: select(func.min(_c.number)).where(_c.curve == bindparam("the_curve"), highest >= bindparam("x"))
    for by, highest in (("step", _c.max_step), ("ts", _c.max_ts))
}
_last_starting = {
    by: select(func.max(_c.number)).where(_c.curve == bindparam("the_curve"), lowest <= bindparam("x"))
    for by, lowest in (("step", _c.min_step), ("ts", _c.min_ts))
}


def pack_value(value: float) -> bytes:
    """Return a float as 8 bytes; SQLite's own numbers cannot hold NaN."""
    return struct.pack("<d", value)


def unpack_value(data: bytes) -> float:
    """Return the float of ``pack_value``."""
    return float(struct.unpack("<d", data)[0])


def read_chunks(connection: Connection, curve: int, first: int, last: int) -> Generator[tuple[int, Points]]:
    """Yield the chunks ``first`` to ``last`` (both included) with their numbers."""
    wanted = {"the_curve": curve, "first_chunk": first, "last_chunk": last}
    for number, count, step, ts, value in connection.execute(_select_chunks, wanted):
        yield number, Points(unpack_steps(step, count), unpack_times(ts, count), unpack_floats(value, count))


def _is_same(one: Points, other: Points) -> bool:
    """Tell whether two single points are one."""
    return bool(one.step[0] == other.step[0] and one.ts[0] == other.ts[0])


@dataclass(frozen=True, slots=True)
class Window:
    """A part of an axis, both ends included; None leaves an end open. ``by`` is ``step`` or ``ts`` (Unix seconds)."""

    first: float | None = None
    last: float | None = None
    by: Axis = "step"

    @property
    def is_open(self) -> bool:
        """True when it holds the whole curve."""
        return self.first is None and self.last is None


class CurveReader:
    """Reads one stored curve inside a read transaction."""

    def __init__(self, connection: Connection, row: Row[*tuple[Any, ...]]) -> None:
        self._connection = connection
        self._curve: int = row.id
        self._is_ordered: int = row.ordered
        self.source: str = row.source
        self.total: int = row.total
        self._cache: dict[int, Points] = {}

    @classmethod
    def find(cls, connection: Connection, run: int, key: str) -> CurveReader | None:
        """Return the reader of a curve by its name, metrics before telemetry; None when there is none."""
        row = connection.execute(_select_curve, {"the_run": run, "the_key": key}).one_or_none()
        return cls(connection, row) if row is not None else None

    def read(self, key: str, window: Window, limit: int) -> Curve:
        """Return the points within the window: all, or about ``limit`` extremes of them."""
        if self._is_ordered or window.is_open:
            start, end = self._indexes(window)
            total = end - start
            points = self._raw(start, end) if total <= limit else decimate(self._cover(start, end, limit), limit)
        else:
            points = self._matching(window)
            total = len(points)
            points = decimate(points, limit) if total > limit else points
        return Curve(key=key, step=points.step, ts=points.ts, value=points.value, total=total)

    def _indexes(self, window: Window) -> tuple[int, int]:
        """Return where the window starts and ends in the curve, as positions."""
        start = 0 if window.first is None else self._position(_first_reaching, window.by, window.first, "left")
        end = self.total if window.last is None else self._position(_last_starting, window.by, window.last, "right")
        return start, max(start, end)

    def _position(
        self, statements: Mapping[str, Select[Any]], by: Axis, x: float, side: Literal["left", "right"]
    ) -> int:
        number = self._connection.execute(statements[by], {"the_curve": self._curve, "x": x}).scalar()
        if number is None:
            return self.total if side == "left" else 0
        return int(number) * CHUNK + int(np.searchsorted(getattr(self._chunk(number), by), x, side))

    def _cover(self, start: int, end: int, limit: int) -> Points:
        """Return extremes of the range, from the coarsest level that still fills the plot."""
        level = -1
        while (end - start) / pyramid.bucket_size(level + 1) >= limit / 2 * _FINE_ENOUGH:
            level += 1
        if level < 0:
            return self._raw(start, end)
        inner = join([part for part in self._pieces(start, end, level) if len(part)])
        first, last = self._raw(start, start + 1), self._raw(end - 1, end)
        head = [] if _is_same(first, inner[:1]) else [first]
        tail = [] if _is_same(last, inner[-1:]) else [last]
        return join([*head, inner, *tail])

    def _pieces(self, start: int, end: int, level: int) -> Generator[Points]:
        if start >= end:
            return
        if level < 0:
            yield self._raw(start, end)
            return
        size = pyramid.bucket_size(level)
        finished = self.total // CHUNK * CHUNK
        first, last = -(-start // size), min(end, finished) // size
        if first >= last:
            yield from self._pieces(start, end, level - 1)
            return
        yield from self._pieces(start, first * size, level - 1)
        yield pyramid.read_buckets(self._connection, self._curve, level, first, last).points()
        yield from self._pieces(last * size, end, level - 1)

    def _chunk(self, number: int) -> Points:
        if number not in self._cache:
            self._cache.update(read_chunks(self._connection, self._curve, number, number))
        return self._cache[number]

    def _raw(self, start: int, end: int) -> Points:
        """Return the points from one position up to, not with, another."""
        if start >= end:
            return NO_POINTS
        first, last = start // CHUNK, (end - 1) // CHUNK
        if first == last:
            return self._chunk(first)[start - first * CHUNK : end - first * CHUNK]
        parts = [points for _, points in read_chunks(self._connection, self._curve, first, last)]
        return join(parts)[start - first * CHUNK : end - first * CHUNK]

    def _matching(self, window: Window) -> Points:
        """Return the points within the window of a curve whose axis falls somewhere."""
        kept: list[Points] = []
        for _, points in read_chunks(self._connection, self._curve, 0, self.total // CHUNK):
            axis = getattr(points, window.by)
            low = -np.inf if window.first is None else window.first
            high = np.inf if window.last is None else window.last
            kept.append(points[(axis >= low) & (axis <= high)])
        return join(kept)
