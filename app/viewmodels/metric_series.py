"""One curve of a run as the plots see it: growing buffers, ranges by axis, extremes, smoothing, truncation.

Live points and stored curves go through the same object: ``load`` takes what the history returned (exact, or the
extremes of a long curve), ``extend`` what a live run adds. What is drawn comes from ``window``: about as many points
as the chart has pixel columns, never fewer extremes than the eye could see. Nothing here knows Qt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from app.viewmodels.extrema import ExtremaPyramid
from app.viewmodels.growing_array import GrowingArray
from app.viewmodels.smoothing import EmaCurve
from core.contracts.runs import Curve

Floats = NDArray[np.float64]

_MAX_MARKS = 400
_FAR = 2**62


class Axis(StrEnum):
    """What the horizontal axis counts."""

    STEP = "step"
    RELATIVE = "relative"
    WALL = "wall"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TimeScale:
    """How times and steps of one run belong together.

    Attributes:
        start: Unix seconds that count as 0 on the relative axis.
        ts: Unix seconds of known steps, ascending; empty when the run counts no steps.
        step: The steps at those times.
    """

    start: float = 0.0
    ts: Floats = field(default_factory=lambda: np.empty(0))
    step: Floats = field(default_factory=lambda: np.empty(0))

    def steps_at(self, ts: Floats) -> Floats:
        """Return the (interpolated) training step at each time."""
        return np.interp(ts, self.ts, self.step) if len(self.ts) else np.zeros(len(ts))

    def time_at(self, x: float, axis: Axis) -> float:
        """Return the Unix time at position ``x`` of the axis."""
        if axis is Axis.WALL:
            return x
        if axis is Axis.RELATIVE:
            return self.start + x
        return self._time_of_step(x)

    def _time_of_step(self, step: float) -> float:
        if not len(self.ts):
            return self.start
        # Outside the known steps the last slope goes on, so that a padded view still covers all samples.
        first, last = float(self.step[0]), float(self.step[-1])
        slope = float(self.ts[-1] - self.ts[0]) / max(last - first, 1.0)
        if step < first:
            return float(self.ts[0]) - (first - step) * slope - 1.0
        if step > last:
            return float(self.ts[-1]) + (step - last) * slope + 1.0
        return float(np.interp(step, self.step, self.ts))


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewRange:
    """What part of an axis is in view and how many points may be drawn for one curve."""

    axis: Axis
    first: float
    last: float
    points: int
    log_x: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CurveWindow:
    """What to draw of one curve.

    Attributes:
        x: Positions on the axis, float64, shape (n,).
        y: Raw values; NaN where the value was not finite.
        smooth_x: Positions of the smoothed values; empty when smoothing is off.
        smooth_y: Smoothed values.
        mark_x: Positions of non-finite values in view, shape (k,), k bounded.
        mark_y: Those values: NaN, inf or -inf.
    """

    x: Floats
    y: Floats
    smooth_x: Floats
    smooth_y: Floats
    mark_x: Floats
    mark_y: Floats

    def with_log_x(self) -> CurveWindow:
        """Return the window for a logarithmic axis: positions as log10, those at or below 0 left out."""
        raw, smooth, marks = self.x > 0, self.smooth_x > 0, self.mark_x > 0
        return CurveWindow(
            x=np.log10(self.x[raw]),
            y=self.y[raw],
            smooth_x=np.log10(self.smooth_x[smooth]),
            smooth_y=self.smooth_y[smooth],
            mark_x=np.log10(self.mark_x[marks]),
            mark_y=self.mark_y[marks],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One sample, for a crosshair: its position on the axis, its step and time, raw and smoothed value."""

    x: float
    step: int
    ts: float
    value: float
    smooth: float | None


class MetricSeries:
    """A growing curve. Thread: one at a time (the UI thread).

    Attributes:
        key: Name of the metric or of the telemetry reading.
        is_telemetry: True when ``step`` counts samples and the training step is known by time only.
        total: Points that the store holds for it; more than ``len(self)`` when only extremes were loaded.
    """

    def __init__(self, key: str, *, is_telemetry: bool = False) -> None:
        self.key = key
        self.is_telemetry = is_telemetry
        self.total = 0
        self._step: GrowingArray[np.int64] = GrowingArray(np.int64)
        self._ts: GrowingArray[np.float64] = GrowingArray(np.float64)
        self._value: GrowingArray[np.float64] = GrowingArray(np.float64)
        self._odd: GrowingArray[np.int64] = GrowingArray(np.int64)
        self._extrema = ExtremaPyramid()
        self._ema = EmaCurve(0.0)
        self._ema_extrema = ExtremaPyramid()

    def __len__(self) -> int:
        return len(self._value)

    @property
    def is_exact(self) -> bool:
        """True when every stored point is here."""
        return len(self) >= self.total

    @property
    def values(self) -> Floats:
        """Raw values, shape (len(self),); valid until the next change."""
        return self._value.view

    @property
    def steps(self) -> NDArray[np.int64]:
        """Steps (for telemetry: sample numbers), shape (len(self),)."""
        return self._step.view

    @property
    def times(self) -> Floats:
        """Unix seconds, shape (len(self),)."""
        return self._ts.view

    def load(self, curve: Curve) -> None:
        """Replace what is here up to the curve's last step by the stored curve, keeping live points beyond it."""
        tail = self._after(int(curve.step[-1]) if len(curve.step) else -1)
        self._cut(0)
        self._append(curve.step, curve.ts, curve.value)
        self._append(*tail)
        self.total = curve.total + len(tail[0])

    def extend(self, curve: Curve) -> None:
        """Append live points; those at or before the last step are already here and are left out."""
        first = int(np.searchsorted(curve.step, self._step.view[-1], side="right")) if len(self) else 0
        self._append(curve.step[first:], curve.ts[first:], curve.value[first:])
        self.total += len(curve.step) - first

    def truncate_from(self, step: int) -> None:
        """Drop all points at and after ``step``: the run was restarted before it."""
        keep = int(np.searchsorted(self._step.view, step, side="left"))
        self.total = max(self.total - (len(self) - keep), keep)
        self._cut(keep)

    def set_smoothing(self, weight: float) -> None:
        """Choose the weight of the past (0 switches smoothing off); ``advance_smoothing`` then does the work."""
        if weight != self._ema.weight:
            self._ema, self._ema_extrema = EmaCurve(weight), ExtremaPyramid()

    def advance_smoothing(self, max_samples: int) -> bool:
        """Smooth up to ``max_samples`` more samples; True when smoothing is off or complete."""
        if self._ema.weight <= 0.0:
            return True
        done = self._ema.advance(self._value.view, max_samples)
        self._ema_extrema.fold(self._ema.values)
        return done

    def bounds(self, axis: Axis, scale: TimeScale) -> tuple[float, float] | None:
        """Return the first and last position on the axis; None when empty."""
        if not len(self):
            return None
        ends = self._positions(np.array([0, len(self) - 1]), axis, scale)
        return float(ends[0]), float(ends[1])

    def window(self, view: ViewRange, scale: TimeScale) -> CurveWindow:
        """Return what to draw of the range, with one sample beyond each side so that lines reach the border."""
        first, last = self._range(view, scale)
        smoothed = self._ema.values if self._ema.weight > 0.0 else self._value.view[:0]
        raw_points = view.points // 2 if len(smoothed) else view.points
        chosen = self._select(self._extrema, self._value.view, (first, last), view, raw_points)
        y = self._value.view[chosen]
        smooth = self._select(self._ema_extrema, smoothed, (first, min(last, len(smoothed))), view, view.points)
        marks = self._marks(first, last)
        return CurveWindow(
            x=self._positions(chosen, view.axis, scale),
            y=np.where(np.isfinite(y), y, np.nan),
            smooth_x=self._positions(smooth, view.axis, scale),
            smooth_y=np.where(np.isfinite(smoothed[smooth]), smoothed[smooth], np.nan),
            mark_x=self._positions(marks, view.axis, scale),
            mark_y=self._value.view[marks],
        )

    def sample_at(self, x: float, axis: Axis, scale: TimeScale) -> Sample | None:
        """Return the sample nearest to position ``x``; None when empty."""
        if not len(self):
            return None
        at = self._search(x, axis, scale, "left")
        near = [n for n in (at - 1, at) if 0 <= n < len(self)]
        positions = self._positions(np.array(near), axis, scale)
        best = int(np.abs(positions - x).argmin())
        n = near[best]
        smooth = float(self._ema.values[n]) if self._ema.weight > 0.0 and n < len(self._ema) else None
        return Sample(
            x=float(positions[best]),
            step=int(self._step.view[n]),
            ts=float(self._ts.view[n]),
            value=float(self._value.view[n]),
            smooth=smooth,
        )

    def make_room(self) -> bool:
        """Make room ahead of need, for one of the buffers; False when none is nearly full."""
        for array in (self._value, self._ts, self._step):
            if array.is_nearly_full:
                array.make_room()
                return True
        return False

    def _append(self, step: NDArray[np.int64], ts: Floats, value: Floats) -> None:
        if not len(value):
            return
        odd = np.flatnonzero(~np.isfinite(value)) + len(self)
        self._step.append(step)
        self._ts.append(ts)
        self._value.append(value)
        self._odd.append(odd)
        self._extrema.fold(self._value.view)

    def _after(self, step: int) -> tuple[NDArray[np.int64], Floats, Floats]:
        first = int(np.searchsorted(self._step.view, step, side="right"))
        return self._step.view[first:].copy(), self._ts.view[first:].copy(), self._value.view[first:].copy()

    def _cut(self, size: int) -> None:
        for array in (self._step, self._ts, self._value):
            array.truncate(size)
        self._odd.truncate(int(np.searchsorted(self._odd.view, size)))
        self._ema.truncate(size)
        for pyramid in (self._extrema, self._ema_extrema):
            pyramid.truncate(size)

    def _positions(self, index: NDArray[np.int64], axis: Axis, scale: TimeScale) -> Floats:
        if axis is Axis.STEP:
            if self.is_telemetry:
                return scale.steps_at(self._ts.view[index])
            return self._step.view[index].astype(np.float64)
        ts = self._ts.view[index]
        return ts - scale.start if axis is Axis.RELATIVE else ts

    def _search(self, x: float, axis: Axis, scale: TimeScale, side: str) -> int:
        right = side == "right"
        if axis is Axis.STEP and not self.is_telemetry:
            # An int: a float would make numpy convert all steps to floats first.
            whole = math.floor(x) + 1 if right else math.ceil(x)
            return int(np.searchsorted(self._step.view, min(max(whole, -_FAR), _FAR)))
        return int(np.searchsorted(self._ts.view, scale.time_at(x, axis), side="right" if right else "left"))

    def _range(self, view: ViewRange, scale: TimeScale) -> tuple[int, int]:
        first = self._search(view.first, view.axis, scale, "left")
        last = self._search(view.last, view.axis, scale, "right")
        return max(first - 1, 0), min(last + 1, len(self))

    def _select(
        self, extrema: ExtremaPyramid, values: Floats, part: tuple[int, int], view: ViewRange, points: int
    ) -> NDArray[np.int64]:
        first, last = part
        if not view.log_x or last - first <= points:
            return extrema.select(values, first, last, points)
        # On a logarithmic axis each tenfold gets its own share of points, or the left half would be one bucket.
        edges = [first]
        while edges[-1] < last:
            edges.append(min(last, max(first + 10, first + (edges[-1] - first) * 10)))
        share = max(points // (len(edges) - 1), 8)
        pieces = [extrema.select(values, a, b, share) for a, b in pairwise(edges)]
        return np.unique(np.concatenate(pieces))

    def _marks(self, first: int, last: int) -> NDArray[np.int64]:
        odd = self._odd.view
        part = odd[int(np.searchsorted(odd, first)) : int(np.searchsorted(odd, last))]
        return part if len(part) <= _MAX_MARKS else part[:: -(-len(part) // _MAX_MARKS)]
