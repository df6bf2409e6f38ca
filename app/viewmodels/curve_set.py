"""All curves of one run: takes in stored curves and live updates, and says which of them share a chart.

Training metrics that differ only before the first ``/`` (``train/loss``, ``val/loss``) share a chart; telemetry that
belongs to one group of the catalogue (``core.contracts.units``) does too. Live points that arrive before the stored
part of their curve are kept back until it is loaded. Nothing here knows Qt.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from app.viewmodels.metric_series import MetricSeries, TimeScale
from core.contracts.runs import Curve, RunUpdate
from core.contracts.units import READINGS, reading_of

_GROUP_ORDER = {reading.group: n for n, reading in reversed(list(enumerate(READINGS)))}
_MAX_SCALE_POINTS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartPlan:
    """One chart: its stable name, what stands above it, the curves in it, and the unit and natural top of its values."""

    name: str
    title: str
    unit: str
    keys: tuple[str, ...]
    is_telemetry: bool
    maximum: float | None = None


@dataclass(slots=True)
class _Pending:
    """Live points of a curve whose stored part is not here yet."""

    curves: list[Curve] = field(default_factory=list[Curve])


def is_telemetry_key(key: str) -> bool:
    """Tell whether a key is a reading of the host rather than a metric of the run."""
    return reading_of(key).group in _GROUP_ORDER


def chart_name(key: str) -> str:
    """Return the name of the chart a curve belongs to."""
    return reading_of(key).group if is_telemetry_key(key) else key.partition("/")[2] or key


def curve_label(key: str) -> str:
    """Return what the curve is called in a legend."""
    return reading_of(key).title


class CurveSet:
    """The curves of one run. Thread: one at a time (the UI thread).

    Attributes:
        series: Curves by key, in the order they appeared.
    """

    def __init__(self) -> None:
        self.series: dict[str, MetricSeries] = {}
        self._loaded: set[str] = set()
        self._pending: dict[str, _Pending] = {}
        self._scale: TimeScale | None = None
        self._start = 0.0
        self._smoothing = 0.0

    def declare(self, keys: Iterable[str], start: float | None) -> list[str]:
        """Make room for these curves; returns the keys that are new. ``start``: Unix seconds of the run's start."""
        if start is not None and start != self._start:
            self._start, self._scale = start, None
        new = [key for key in keys if key not in self.series and reading_of(key).is_plotted]
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
        for later in self._pending.pop(curve.key, _Pending()).curves:
            series.extend(later)
        self._scale = None

    def apply(self, update: RunUpdate) -> set[str]:
        """Take in what a live run brought; returns the keys that changed."""
        changed: set[str] = set()
        if update.truncated_at is not None:
            changed |= self._truncate(update.truncated_at)
        for key, curve in update.points.items():
            if not reading_of(key).is_plotted:
                continue
            series = self.series.get(key) or self._add(key)
            if key in self._loaded:
                series.extend(curve)
                changed.add(key)
            else:
                self._pending.setdefault(key, _Pending()).curves.append(curve)
        if changed:
            self._scale = None
        return changed

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

    def charts(self, pattern: str = "") -> tuple[ChartPlan, ...]:
        """Return the charts whose name or curves contain every word of ``pattern``; training metrics come first."""
        words = pattern.lower().split()
        groups: dict[tuple[bool, str], list[str]] = {}
        for key in self.series:
            name = chart_name(key)
            if all(word in f"{name} {key}".lower() for word in words):
                groups.setdefault((is_telemetry_key(key), name), []).append(key)
        ordered = sorted(groups, key=lambda group: (group[0], _GROUP_ORDER.get(group[1], -1), group[1]))
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
    reading = reading_of(keys[0])
    return ChartPlan(
        name=name, title=name, unit=reading.unit, keys=tuple(keys), is_telemetry=is_telemetry, maximum=reading.maximum
    )
