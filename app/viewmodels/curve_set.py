"""All curves of one run: takes in stored curves and live updates, and says which of them share a chart.

Training metrics that differ only before the first ``/`` (``train/loss``, ``val/loss``) share a chart; telemetry that
belongs to one group of the catalogue (``core.contracts.units``) does too. Live points that arrive before the stored
part of their curve are kept back until it is loaded. Nothing here knows Qt.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from app.viewmodels.curve_names import GROUP_ORDER, chart_name, curve_reading, is_spread, is_telemetry_key, metric_unit
from app.viewmodels.metric_series import Axis, MetricSeries, TimeScale, ViewRange
from app.viewmodels.wording import natural_key
from core.contracts.runs import Curve, RunUpdate

_MAX_SCALE_POINTS = 20_000
_MAX_WHOLE_POINTS = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartPlan:
    """One chart: its stable name, what stands above it, the curves in it, and the unit and natural top of its values."""

    name: str
    title: str
    unit: str
    keys: tuple[str, ...]
    is_telemetry: bool
    maximum: float | None = None


@dataclass(frozen=True, slots=True)
class _Detail:
    """A stretch of a long curve at full view resolution; positions of its ends in steps (telemetry: Unix seconds)."""

    first: float
    last: float
    series: MetricSeries


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveRequest:
    """A stretch of a stored curve that is wanted in more detail.

    Attributes:
        first: First step (telemetry: Unix second); None for the whole curve, exact.
        last: Last step (telemetry: Unix second).
        points: How many points at most.
    """

    key: str
    first: float | None
    last: float | None
    points: int


@dataclass(slots=True)
class _Pending:
    """Live points of a curve whose stored part is not here yet."""

    curves: list[Curve] = field(default_factory=list[Curve])


class CurveSet:
    """The curves of one run. Thread: one at a time (the UI thread).

    Attributes:
        series: Curves by key, in the order they appeared.
    """

    def __init__(self) -> None:
        self.series: dict[str, MetricSeries] = {}
        self._loaded: set[str] = set()
        self._pending: dict[str, _Pending] = {}
        self._details: dict[str, _Detail] = {}
        self._scale: TimeScale | None = None
        self._start = 0.0
        self._smoothing = 0.0

    def declare(self, keys: Iterable[str], start: float | None) -> list[str]:
        """Make room for these curves; returns the keys that are new. ``start``: Unix seconds of the run's start."""
        if start is not None and start != self._start:
            self._start, self._scale = start, None
        new = [key for key in keys if key not in self.series and curve_reading(key).is_plotted]
        for key in new:
            self._add(key)
        return new

    def is_loaded(self, key: str) -> bool:
        """True when the stored part of the curve is here."""
        return key in self._loaded

    def load(self, curve: Curve) -> None:
        """Take in the stored part of a curve, then the live points that were kept back for it."""
        series = self.series.get(curve.key) or self._add(curve.key)
        series.load(curve)
        self._loaded.add(curve.key)
        self._details.pop(curve.key, None)
        for later in self._pending.pop(curve.key, _Pending()).curves:
            series.extend(later)
        self._scale = None

    def apply(self, update: RunUpdate) -> set[str]:
        """Take in what a live run brought; returns the keys that changed."""
        changed: set[str] = set()
        if update.truncated_at is not None:
            changed |= self._truncate(update.truncated_at)
        for key, curve in update.points.items():
            if not curve_reading(key).is_plotted:
                continue
            series = self.series.get(key) or self._add(key)
            if key in self._loaded:
                series.extend(curve)
                changed.add(key)
            else:
                self._pending.setdefault(key, _Pending()).curves.append(curve)
        if changed:
            self._scale = None
        # One buffer a call: curves that grow together would else move hundreds of megabytes in one frame.
        any(series.make_room() for series in self.series.values())
        return changed

    def load_detail(self, request: CurveRequest, curve: Curve) -> None:
        """Take in an answered request: a stretch in more detail, or the whole curve."""
        if request.first is None or request.last is None:
            self.load(curve)
            return
        series = MetricSeries(curve.key, is_telemetry=is_telemetry_key(curve.key))
        series.load(curve)
        self._details[curve.key] = _Detail(request.first, request.last, series)

    def best(self, key: str, view: ViewRange) -> MetricSeries:
        """Return what shows the range best: the curve itself, or a detail of it that covers the range."""
        series, detail = self.series[key], self._details.get(key)
        if detail is None or series.is_exact:
            return series
        first, last = self._stored_range(series, view)
        return detail.series if detail.first <= first and last <= detail.last else series

    def request_for(self, key: str, view: ViewRange) -> CurveRequest | None:
        """Return what to fetch so that the range shows all it holds; None when nothing more is needed."""
        series = self.series[key]
        if series.is_exact or not self.is_loaded(key):
            return None
        if (self._smoothing > 0.0 and not series.is_telemetry) or series.total <= _MAX_WHOLE_POINTS:
            return CurveRequest(key=key, first=None, last=None, points=series.total)
        bounds = series.bounds(view.axis, self.scale)
        if bounds is None or (view.first <= bounds[0] and bounds[1] <= view.last):
            return None
        if self.best(key, view) is not series:
            return None
        first, last = self._stored_range(series, view)
        # A margin on both sides lets a short pan go on without another query.
        margin = (last - first) / 2
        return CurveRequest(key=key, first=first - margin, last=last + margin, points=2 * view.points)

    def _stored_range(self, series: MetricSeries, view: ViewRange) -> tuple[float, float]:
        if view.axis is Axis.STEP and not series.is_telemetry:
            return view.first, view.last
        ends = np.array([self.scale.time_at(view.first, view.axis), self.scale.time_at(view.last, view.axis)])
        if not series.is_telemetry:
            ends = self.scale.steps_at(ends)
        return float(ends[0]), float(ends[1])

    def set_smoothing(self, weight: float) -> None:
        """Choose the smoothing of all training metrics; telemetry stays as read."""
        self._smoothing = weight
        for series in self.series.values():
            if not series.is_telemetry:
                series.set_smoothing(weight)

    @property
    def scale(self) -> TimeScale:
        """How times and steps belong together: by the training metric with the most points."""
        if self._scale is None:
            self._scale = self._make_scale()
        return self._scale

    def bounds(self, axis: Axis) -> tuple[float, float]:
        """Return the first and last position of all curves on the axis; telemetry counts where there is nothing else."""
        scale = self.scale
        found = [(series.is_telemetry, series.bounds(axis, scale)) for series in self.series.values()]
        metrics = [ends for telemetry, ends in found if ends is not None and not telemetry]
        known = metrics or [ends for _, ends in found if ends is not None]
        if not known:
            return 0.0, 1.0
        first, last = min(ends[0] for ends in known), max(ends[1] for ends in known)
        return first, max(last, first + 1e-9)

    def charts(self, pattern: str = "") -> tuple[ChartPlan, ...]:
        """Return the charts whose name or curves contain every word of ``pattern``; training metrics come first."""
        words = pattern.lower().split()
        groups: dict[tuple[bool, str], list[str]] = {}
        for key in self.series:
            name = chart_name(key)
            if all(word in f"{name} {key}".lower() for word in words):
                groups.setdefault((is_telemetry_key(key), name), []).append(key)
        ordered = sorted(groups, key=lambda group: (group[0], GROUP_ORDER.get(group[1], -1), group[1]))
        return tuple(_plan(name, groups[telemetry, name], is_telemetry=telemetry) for telemetry, name in ordered)

    def _add(self, key: str) -> MetricSeries:
        series = MetricSeries(key, is_telemetry=is_telemetry_key(key))
        if not series.is_telemetry:
            series.set_smoothing(self._smoothing)
        self.series[key] = series
        return series

    def _truncate(self, step: int) -> set[str]:
        changed = {key for key, series in self.series.items() if not series.is_telemetry and len(series)}
        for key in changed:
            self.series[key].truncate_from(step)
            self._details.pop(key, None)
        for key, pending in self._pending.items():
            if not is_telemetry_key(key):
                pending.curves = [_before(curve, step) for curve in pending.curves]
        return changed

    def _make_scale(self) -> TimeScale:
        known = [series for series in self.series.values() if not series.is_telemetry and len(series)]
        if not known:
            starts = [float(series.times[0]) for series in self.series.values() if len(series)]
            return TimeScale(start=self._start or min(starts, default=0.0))
        longest = max(known, key=len)
        stride = -(-len(longest) // _MAX_SCALE_POINTS)
        ts = np.append(longest.times[::stride], longest.times[-1])
        step = np.append(longest.steps[::stride], longest.steps[-1]).astype(np.float64)
        # A clock that was set back would make the interpolation jump; time never runs backwards on the axis.
        return TimeScale(start=self._start or float(ts[0]), ts=np.maximum.accumulate(ts), step=step)


def _before(curve: Curve, step: int) -> Curve:
    keep = int(np.searchsorted(curve.step, step, side="left"))
    return Curve(key=curve.key, step=curve.step[:keep], ts=curve.ts[:keep], value=curve.value[:keep], total=keep)


def _plan(name: str, keys: list[str], *, is_telemetry: bool) -> ChartPlan:
    keys = sorted(keys, key=natural_key) if is_spread(keys) else keys
    reading = curve_reading(keys[0])
    return ChartPlan(
        name=name,
        title=name,
        unit=reading.unit or metric_unit(keys[0]),
        keys=tuple(keys),
        is_telemetry=is_telemetry,
        maximum=reading.maximum,
    )
