"""A min/max pyramid over a growing curve: which samples must be drawn so that no spike in view is lost.

Buckets of 64, 256, 1024, ... samples keep the index of their smallest and largest finite value. Appending folds only
the new samples; a query touches about four times as many buckets as it returns, however long the curve is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from app.viewmodels.growing_array import GrowingArray

Index = NDArray[np.int64]
Values = NDArray[np.float64]

_FIRST_BUCKET = 64
_FACTOR = 4
_NUM_LEVELS = 7


def _row_extremes(values: Values) -> tuple[Index, Index]:
    """Return the column of the smallest and the largest finite value of each row of ``values``, shape (n, m)."""
    if np.isfinite(values).all():
        return values.argmin(axis=1), values.argmax(axis=1)
    finite = np.isfinite(values)
    return np.where(finite, values, np.inf).argmin(axis=1), np.where(finite, values, -np.inf).argmax(axis=1)


class _Level:
    """Extremes of all complete buckets of ``bucket`` samples."""

    def __init__(self, bucket: int) -> None:
        self.bucket = bucket
        self.low: GrowingArray[np.int64] = GrowingArray(np.int64)
        self.high: GrowingArray[np.int64] = GrowingArray(np.int64)

    def truncate(self, num_samples: int) -> None:
        self.low.truncate(num_samples // self.bucket)
        self.high.truncate(num_samples // self.bucket)

    def fold_samples(self, values: Values) -> None:
        """Fold the samples that complete new buckets; for the finest level."""
        first, last = len(self.low), len(values) // self.bucket
        if last == first:
            return
        rows = values[first * self.bucket : last * self.bucket].reshape(-1, self.bucket)
        low, high = _row_extremes(rows)
        starts = np.arange(first, last, dtype=np.int64) * self.bucket
        self.low.append(starts + low)
        self.high.append(starts + high)

    def fold_level(self, finer: _Level, values: Values) -> None:
        """Fold the buckets of the next finer level that complete new buckets of this one."""
        first, last = len(self.low), len(finer.low) // _FACTOR
        if last == first:
            return
        part = slice(first * _FACTOR, last * _FACTOR)
        self.low.append(_pick(finer.low.view[part].reshape(-1, _FACTOR), values, lowest=True))
        self.high.append(_pick(finer.high.view[part].reshape(-1, _FACTOR), values, lowest=False))


def _pick(candidates: Index, values: Values, *, lowest: bool) -> Index:
    """Return, for each row of sample indices, the one whose value is the extreme."""
    low, high = _row_extremes(values[candidates])
    return np.take_along_axis(candidates, (low if lowest else high)[:, None], axis=1)[:, 0]


class ExtremaPyramid:
    """Finds the extreme samples of any range of a curve. Thread: one at a time."""

    def __init__(self) -> None:
        self._levels = [_Level(_FIRST_BUCKET * _FACTOR**n) for n in range(_NUM_LEVELS)]

    def fold(self, values: Values) -> None:
        """Take in what was appended to ``values`` since the last call; shape (n,), all samples of the curve."""
        self._levels[0].fold_samples(values)
        for finer, coarser in zip(self._levels, self._levels[1:], strict=False):
            coarser.fold_level(finer, values)

    def truncate(self, num_samples: int) -> None:
        """Forget every bucket that reaches beyond the first ``num_samples`` samples."""
        for level in self._levels:
            level.truncate(num_samples)

    def select(self, values: Values, first: int, last: int, points: int) -> Index:
        """Return the sorted indices of about ``points`` samples of ``values[first:last]`` that keep all its extremes.

        Every sample is returned when there are no more than ``points``; both ends of the range are always included.
        """
        count = last - first
        if count <= max(points, 4):
            return np.arange(first, max(last, first), dtype=np.int64)
        buckets = max(points // 2, 2)
        level = self._level_for(count / buckets)
        if level is None:
            chosen = self._raw(values, first, last, buckets)
        else:
            chosen = self._folded(values, first, last, buckets, level)
        found = np.concatenate([*chosen, np.array([first, last - 1], dtype=np.int64)])
        found.sort()
        return found[np.concatenate([[True], found[1:] != found[:-1]])]

    def _level_for(self, samples_per_bucket: float) -> _Level | None:
        fitting = [level for level in self._levels if level.bucket * 2 <= samples_per_bucket and len(level.low)]
        return fitting[-1] if fitting else None

    @staticmethod
    def _raw(values: Values, first: int, last: int, buckets: int) -> list[Index]:
        width = -(-(last - first) // buckets)
        whole = (last - first) // width * width
        rows = values[first : first + whole].reshape(-1, width)
        low, high = _row_extremes(rows)
        starts = first + np.arange(len(rows), dtype=np.int64) * width
        chosen = [starts + low, starts + high]
        if first + whole < last:
            low, high = _row_extremes(values[None, first + whole : last])
            chosen += [first + whole + low, first + whole + high]
        return chosen

    def _folded(self, values: Values, first: int, last: int, buckets: int, level: _Level) -> list[Index]:
        begin = -(-first // level.bucket)
        end = min(last // level.bucket, len(level.low))
        if end - begin < 2:
            return self._raw(values, first, last, buckets)
        width = -(-(end - begin) // buckets)
        whole = begin + (end - begin) // width * width
        chosen = [
            _pick(level.low.view[begin:whole].reshape(-1, width), values, lowest=True),
            _pick(level.high.view[begin:whole].reshape(-1, width), values, lowest=False),
        ]
        for start, stop in ((first, begin * level.bucket), (whole * level.bucket, last)):
            if start < stop:
                chosen += self._raw(values, start, stop, max((stop - start) // (width * level.bucket), 1))
        return chosen
