"""The arithmetic of a min/max pyramid: what of a long curve must be drawn so that no spike is lost.

A bucket of consecutive points is kept as three of them: the smallest and the largest finite value and the first that
is not finite, each with its index, step and time. Buckets combine into larger ones without looking at the points
again. Nothing here knows of a database.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.history.blocks import Floats, Ints, pack_ints, unpack_ints

_SLOTS = 3
_FIELDS = 4
ABSENT = -1
MINIMUM_POINTS = 16


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Points of a curve in the order written.

    Attributes:
        step: Training steps, int64, shape (n,).
        ts: Unix seconds, float64, shape (n,).
        value: float64, shape (n,); may hold NaN and infinities.
    """

    step: Ints
    ts: Floats
    value: Floats

    def __len__(self) -> int:
        return len(self.step)

    def __getitem__(self, where: slice | NDArray[np.int64] | NDArray[np.bool_]) -> Points:
        return Points(self.step[where], self.ts[where], self.value[where])


NO_POINTS = Points(np.empty(0, np.int64), np.empty(0, np.float64), np.empty(0, np.float64))


def join(parts: list[Points]) -> Points:
    """Return parts as one, in order."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return NO_POINTS
    return Points(
        np.concatenate([part.step for part in parts]),
        np.concatenate([part.ts for part in parts]),
        np.concatenate([part.value for part in parts]),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Extremes:
    """Buckets of a curve; each array has shape (buckets, 3): lowest, highest, first non-finite.

    Attributes:
        index: Position in the curve, ``ABSENT`` where the bucket has no such point.
    """

    index: Ints
    step: Ints
    ts: Floats
    value: Floats

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, where: slice) -> Extremes:
        return Extremes(self.index[where], self.step[where], self.ts[where], self.value[where])

    def points(self) -> Points:
        """Return the points kept, each once, in order."""
        order = self.index.argsort(axis=1) + (np.arange(len(self), dtype=np.int64) * _SLOTS)[:, None]
        order = order.ravel()
        index = self.index.ravel()[order]
        kept = order[(index != ABSENT) & np.append(True, index[1:] != index[:-1])]
        return Points(self.step.ravel()[kept], self.ts.ravel()[kept], self.value.ravel()[kept])


def join_extremes(parts: list[Extremes]) -> Extremes:
    """Return buckets one after the other."""
    if len(parts) == 1:
        return parts[0]
    return Extremes(
        np.concatenate([part.index for part in parts]),
        np.concatenate([part.step for part in parts]),
        np.concatenate([part.ts for part in parts]),
        np.concatenate([part.value for part in parts]),
    )


def _pick(lowest: Floats, highest: Floats, odd: NDArray[np.bool_]) -> tuple[Ints, NDArray[np.bool_]]:
    """Choose per row the column of each slot and tell where there is none; shapes (m, f) to (m, 3)."""
    where = np.stack([lowest.argmin(axis=1), highest.argmax(axis=1), odd.argmax(axis=1)], axis=1)
    rows = np.arange(len(where))
    is_there = np.stack(
        [
            np.isfinite(lowest[rows, where[:, 0]]),
            np.isfinite(highest[rows, where[:, 1]]),
            odd[rows, where[:, 2]],
        ],
        axis=1,
    )
    return where.astype(np.int64), is_there


def extremes_of(points: Points, first_index: int, size: int) -> Extremes:
    """Return the buckets of ``size`` points each; the number of points is a multiple of it.

    Args:
        points: Consecutive points of a curve.
        first_index: Position of the first of them in the curve.
        size: Points per bucket.
    """
    value = points.value.reshape(-1, size)
    finite = np.isfinite(value)
    where, is_there = _pick(np.where(finite, value, np.inf), np.where(finite, value, -np.inf), ~finite)
    flat = where + (np.arange(len(value), dtype=np.int64) * size)[:, None]
    return _masked(flat + first_index, points.step[flat], points.ts[flat], points.value[flat], is_there)


def _masked(index: Ints, step: Ints, ts: Floats, value: Floats, is_there: NDArray[np.bool_]) -> Extremes:
    """Blank the slots that hold nothing, so that equal curves have equal bytes."""
    return Extremes(
        np.where(is_there, index, ABSENT),
        np.where(is_there, step, 0),
        np.where(is_there, ts, 0.0),
        np.where(is_there, value, 0.0),
    )


def combine(fine: Extremes, factor: int) -> Extremes:
    """Return buckets ``factor`` times as large; the number of fine ones is a multiple of it."""
    is_there = (fine.index != ABSENT).reshape(-1, factor, _SLOTS)
    value = fine.value.reshape(-1, factor, _SLOTS)
    lowest = np.where(is_there[:, :, 0], value[:, :, 0], np.inf)
    highest = np.where(is_there[:, :, 1], value[:, :, 1], -np.inf)
    where, found = _pick(lowest, highest, is_there[:, :, 2])
    rows = where + (np.arange(len(where), dtype=np.int64) * factor)[:, None]
    slot = np.arange(_SLOTS)
    return _masked(fine.index[rows, slot], fine.step[rows, slot], fine.ts[rows, slot], fine.value[rows, slot], found)


def pack_extremes(extremes: Extremes, first_index: int) -> bytes:
    """Return buckets as bytes; indexes are kept relative to ``first_index``."""
    relative = np.where(extremes.index == ABSENT, ABSENT, extremes.index - first_index)
    rows = [relative.T, extremes.step.T, extremes.ts.view(np.int64).T]
    steady = np.diff(np.concatenate(rows), axis=1, prepend=np.int64(0))
    return pack_ints(np.concatenate([steady.ravel(), extremes.value.T.copy().view(np.int64).ravel()]))


def unpack_extremes(data: bytes, count: int, first_index: int) -> Extremes:
    """Return the ``count`` buckets of ``pack_extremes``.

    Raises:
        DamagedBlock: The bytes are damaged.
    """
    rows = unpack_ints(data, count * _SLOTS * _FIELDS).reshape(_FIELDS, _SLOTS, count)
    axes = np.cumsum(rows[:3], axis=2, dtype=np.int64)
    index = axes[0].T
    return Extremes(
        np.where(index == ABSENT, ABSENT, index + first_index),
        axes[1].T,
        axes[2].T.copy().view(np.float64),
        rows[3].T.copy().view(np.float64),
    )


def decimate(points: Points, limit: int) -> Points:
    """Return at most ``limit`` points (16 at least): extremes, both ends, and non-finite ones at equal distances.

    Uses the MinMax method of tsdownsample on the finite values, which would drop NaN silently.
    """
    limit = max(limit, MINIMUM_POINTS)
    if len(points) <= limit:
        return points
    finite = np.isfinite(points.value)
    odd = np.flatnonzero(~finite)
    most_odd = limit // 4
    if len(odd) > most_odd:
        odd = odd[np.linspace(0, len(odd) - 1, most_odd).astype(np.int64)]
    plain = np.flatnonzero(finite)
    room = (limit - 2 - len(odd)) // 2 * 2
    if len(plain) > room:
        plain = plain[_minmax(np.ascontiguousarray(points.value[plain]), room)]
    kept = np.zeros(len(points), np.bool_)
    kept[[0, -1]] = kept[odd] = kept[plain] = True
    return points[kept]


def _minmax(values: Floats, count: int) -> Ints:
    from tsdownsample import MinMaxDownsampler

    return MinMaxDownsampler().downsample(values, n_out=count).astype(np.int64)
