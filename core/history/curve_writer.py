"""Appends points to stored curves and cuts them at a restart; see ``core.history.curves`` for their form.

Names that were written together share their axis: it is stored once, by the digest of its content. An append rewrites
the last, unfinished chunk of a curve only; chunks that become full are folded into the pyramid.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sqlalchemy import Connection, Row, bindparam, delete, exists, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from core.history import pyramid, schema
from core.history.blocks import Floats, pack_axis, pack_floats, unpack_floats, unpack_steps, unpack_times
from core.history.columns import METRIC, Column
from core.history.curves import CHUNK, pack_value, read_chunks
from core.history.extremes import NO_POINTS, Points, join
from core.runlog.fold import Restart

_curves, _chunks, _axes = schema.curves.c, schema.chunks.c, schema.axes.c
_select_curves = select(schema.curves).where(_curves.run == bindparam("the_run"))
_make_curves = insert(schema.curves).returning(*_curves)
_select_tails = (
    select(_chunks.curve, _chunks.count, _chunks.axis, _axes.step, _axes.ts, _chunks.value)
    .join_from(schema.chunks, schema.axes, _chunks.axis == _axes.digest)
    .join(schema.curves, _chunks.curve == _curves.id)
    .where(_curves.run == bindparam("the_run"), _chunks.number == _curves.total // CHUNK, _chunks.count < CHUNK)
)
_put_axis = upsert(schema.axes).on_conflict_do_nothing()
_put_chunk = upsert(schema.chunks)
_put_chunk = _put_chunk.on_conflict_do_update(
    index_elements=["curve", "number"],
    set_={
        name: _put_chunk.excluded[name]
        for name in ("count", "min_step", "max_step", "min_ts", "max_ts", "axis", "value")
    },
)
_set_curve = (
    update(schema.curves)
    .where(_curves.id == bindparam("the_curve"))
    .values(
        {name: bindparam(name) for name in ("total", "ordered", "last_step", "last_ts", "last_value")},
    )
)
_drop_axis = delete(schema.axes).where(
    _axes.digest == bindparam("the_digest"), ~exists().where(_chunks.axis == bindparam("the_digest"))
)


@dataclass(slots=True)
class _Tail:
    """The unfinished last chunk of a curve."""

    axis: bytes = b""
    points: Points = NO_POINTS


@dataclass(slots=True)
class _Rows:
    """What is to be written at the end of an append, gathered to be written at once."""

    axes: dict[bytes, dict[str, Any]] = field(default_factory=dict[bytes, dict[str, Any]])
    chunks: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    curves: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    replaced_axes: set[bytes] = field(default_factory=set[bytes])


class CurveWriter:
    """Changes the curves of one run inside a write transaction."""

    def __init__(self, connection: Connection, run: int) -> None:
        self._connection = connection
        self._run = run

    def append(self, columns: Sequence[Column]) -> None:
        """Append the columns' points to their curves, making curves that do not exist yet."""
        if not columns:
            return
        stored = self._curve_rows()
        tails = self._tails() if stored else {}
        missing = [column for column in columns if (column.source, column.key) not in stored]
        if missing:
            stored.update(self._make_curves(missing))
        bundles: dict[tuple[int, int, int, bytes], list[Column]] = {}
        for column in columns:
            row = stored[column.source, column.key]
            axis = tails[row.id].axis if row.id in tails else b""
            bundle = (id(column.points.step), id(column.points.ts), row.total, axis)
            bundles.setdefault(bundle, []).append(column)
        rows = _Rows()
        for bundle in bundles.values():
            members = [(stored[column.source, column.key], column.points) for column in bundle]
            self._append_bundle(members, tails, rows)
        self._write(rows)

    def _make_curves(self, columns: Iterable[Column]) -> dict[tuple[str, str], Row[Any]]:
        blank = {"run": self._run, "total": 0, "ordered": 1, "last_step": 0, "last_ts": 0.0, "last_value": b""}
        new = [{**blank, "key": column.key, "source": column.source} for column in columns]
        made = self._connection.execute(_make_curves, new)
        return {(row.source, row.key): row for row in made}

    def _curve_rows(self) -> dict[tuple[str, str], Row[Any]]:
        rows = self._connection.execute(_select_curves, {"the_run": self._run})
        return {(row.source, row.key): row for row in rows}

    def _tails(self) -> dict[int, _Tail]:
        axes: dict[bytes, tuple[Any, Any]] = {}
        tails: dict[int, _Tail] = {}
        for curve, count, axis, step, ts, value in self._connection.execute(_select_tails, {"the_run": self._run}):
            if axis not in axes:
                axes[axis] = (unpack_steps(step, count), unpack_times(ts, count))
            tails[curve] = _Tail(axis, Points(*axes[axis], unpack_floats(value, count)))
        return tails

    def _append_bundle(self, members: list[tuple[Row[Any], Points]], tails: dict[int, _Tail], rows: _Rows) -> None:
        """Append points that share their axis to curves that share their tail's axis."""
        first, new = members[0]
        tail = tails.get(first.id, _Tail())
        old = tail.points
        step = np.concatenate([old.step, new.step])
        ts = np.concatenate([old.ts, new.ts])
        base = first.total - len(old)
        if tail.axis:
            rows.replaced_axes.add(tail.axis)
        axes = [self._axis(step[at : at + CHUNK], ts[at : at + CHUNK], rows) for at in range(0, len(step), CHUNK)]
        is_rising = bool((np.diff(step) >= 0).all() and (np.diff(ts) >= 0).all())
        for row, points in members:
            before = tails[row.id].points.value if row.id in tails else NO_POINTS.value
            value = np.concatenate([before, points.value])
            self._add_chunks(row.id, base, value, axes, rows)
            finished = len(step) // CHUNK * CHUNK
            if finished:
                pyramid.extend(self._connection, row.id, base, Points(step, ts, value)[:finished])
            goes_on = not row.total or (row.last_step <= new.step[0] and row.last_ts <= new.ts[0])
            rows.curves.append(
                {
                    "the_curve": row.id,
                    "total": row.total + len(points),
                    "ordered": int(bool(row.ordered) and is_rising and bool(goes_on)),
                    "last_step": int(step[-1]),
                    "last_ts": float(ts[-1]),
                    "last_value": pack_value(float(value[-1])),
                }
            )

    def _axis(self, step: np.ndarray[Any, np.dtype[np.int64]], ts: Floats, rows: _Rows) -> dict[str, Any]:
        """Note the axis of one chunk to be written and return the chunk's fields that follow from it."""
        hashed = hashlib.blake2b(self._run.to_bytes(8, "little"), digest_size=16)
        hashed.update(np.ascontiguousarray(step).data)
        hashed.update(np.ascontiguousarray(ts).data)
        digest = hashed.digest()
        if digest not in rows.axes:
            rows.axes[digest] = {"digest": digest, "run": self._run, "step": pack_axis(step), "ts": pack_axis(ts)}
        return {
            "count": len(step),
            "min_step": int(step.min()),
            "max_step": int(step.max()),
            "min_ts": float(ts.min()),
            "max_ts": float(ts.max()),
            "axis": digest,
        }

    @staticmethod
    def _add_chunks(curve: int, base: int, value: Floats, axes: list[dict[str, Any]], rows: _Rows) -> None:
        for number, axis in enumerate(axes):
            part = value[number * CHUNK : (number + 1) * CHUNK]
            rows.chunks.append({**axis, "curve": curve, "number": base // CHUNK + number, "value": pack_floats(part)})

    def _write(self, rows: _Rows) -> None:
        self._connection.execute(_put_axis, list(rows.axes.values()))
        self._connection.execute(_put_chunk, rows.chunks)
        self._connection.execute(_set_curve, rows.curves)
        self._drop_axes(rows.replaced_axes - set(rows.axes))

    def _drop_axes(self, digests: Iterable[bytes]) -> None:
        unused = [{"the_digest": digest} for digest in digests]
        if unused:
            self._connection.execute(_drop_axis, unused)

    def void(self, restart: Restart) -> bool:
        """Remove the points of training metrics that a restart made void; tell whether there were any."""
        step_limit = -(1 << 63) if restart.from_step is None else restart.from_step
        is_touched = exists().where(
            _chunks.curve == _curves.id, _chunks.max_step > step_limit, _chunks.min_ts <= restart.ts
        )
        wanted = select(schema.curves).where(_curves.run == self._run, _curves.source == METRIC, is_touched)
        changed = [self._void_curve(row, step_limit, restart.ts) for row in self._connection.execute(wanted).all()]
        return any(changed)

    def _void_curve(self, row: Row[Any], step_limit: int, ts_limit: float) -> bool:
        first = 0
        if row.ordered:
            touched = select(_chunks.number).where(_chunks.curve == row.id, _chunks.max_step > step_limit)
            first = self._connection.execute(touched.order_by(_chunks.number).limit(1)).scalar_one()
        points = join([part for _, part in read_chunks(self._connection, row.id, first, row.total // CHUNK)])
        kept = points[(points.step <= step_limit) | (points.ts > ts_limit)]
        if len(kept) == len(points):
            return False
        self._cut(row.id, first)
        if len(kept):
            self.append([Column(row.key, row.source, kept)])
        return True

    def _cut(self, curve: int, first_chunk: int) -> None:
        """Leave the chunks before ``first_chunk``, which are full ones; a curve without any goes."""
        gone = (_chunks.curve == curve, _chunks.number >= first_chunk)
        digests = self._connection.execute(select(_chunks.axis).where(*gone)).scalars().all()
        pyramid.cut(self._connection, curve, first_chunk * CHUNK)
        self._connection.execute(delete(schema.chunks).where(*gone))
        self._drop_axes(digests)
        left = list(read_chunks(self._connection, curve, first_chunk - 1, first_chunk - 1))
        if not left:
            self._connection.execute(delete(schema.curves).where(_curves.id == curve))
            return
        last = left[0][1][-1:]
        values = {
            "the_curve": curve,
            "total": first_chunk * CHUNK,
            "ordered": 1,
            "last_step": int(last.step[0]),
            "last_ts": float(last.ts[0]),
            "last_value": pack_value(float(last.value[0])),
        }
        self._connection.execute(_set_curve, values)
