"""The trials of a sweep on parallel axes: one axis a parameter, the metric last; positions from 0 to 1, ticks, filters.

Numbers lie on the scale their range was asked with; a metric that spans more than two powers of ten above zero gets a
logarithmic axis, so that one trial that diverged does not flatten the others. Goodness is the rank of a trial among those
with a value, for the same reason. No Qt.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.contracts.sweeps import ParameterValue, SweepParameter, SweepReport

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_LOG_SPAN = 100.0
_TICKS = 5
_MAX_CHOICE_TEXT = 18


@dataclass(frozen=True, slots=True, eq=False)
class SweepAxis:
    """One axis.

    Attributes:
        title: What it shows.
        path: The parameter; empty for the metric.
        positions: Of every trial, 0 to 1 upwards; NaN where a trial has no value.
        ticks: Position and text.
        low: Value at 0; NaN on an axis of choices.
        high: Value at 1.
        log: Its scale is logarithmic.
    """

    title: str
    path: str
    positions: Floats
    ticks: tuple[tuple[float, str], ...]
    low: float = math.nan
    high: float = math.nan
    log: bool = False

    def text_at(self, position: float) -> str:
        """Return the value at a position in words."""
        if math.isnan(self.low):
            return min(self.ticks, key=lambda tick: abs(tick[0] - position))[1]
        if self.log:
            return plain_text(10 ** (math.log10(self.low) + position * (math.log10(self.high) - math.log10(self.low))))
        return plain_text(self.low + position * (self.high - self.low))


@dataclass(frozen=True, slots=True, eq=False)
class SweepPicture:
    """A sweep as it is drawn.

    Attributes:
        axes: In order; the metric is the last.
        numbers: Number of every trial, in the order of the positions.
        goodness: 0 (worst) to 1 (best); NaN without a value.
    """

    axes: tuple[SweepAxis, ...]
    numbers: tuple[int, ...]
    goodness: Floats

    def kept(self, brushes: Mapping[int, tuple[float, float]]) -> Bools:
        """Return which trials lie within the chosen ranges, given by number of the axis."""
        kept = np.ones(len(self.numbers), dtype=np.bool_)
        for axis, (low, high) in brushes.items():
            positions = self.axes[axis].positions
            kept &= (positions >= low - 1e-9) & (positions <= high + 1e-9)
        return kept


def picture_of(report: SweepReport) -> SweepPicture:
    """Return how a sweep is drawn."""
    trials = report.trials
    axes = [_parameter_axis(p, [trial.values.get(p.path) for trial in trials]) for p in report.parameters]
    values = np.array([math.nan if t.value is None else t.value for t in trials], dtype=np.float64)
    axes.append(_metric_axis(report.metric, values))
    goodness = _ranks(values if report.goal == "maximize" else -values)
    return SweepPicture(tuple(axes), tuple(trial.number for trial in trials), goodness)


def _ranks(values: Floats) -> Floats:
    """Return the share of the other values that each beats or equals, NaN for NaN."""
    finite = np.sort(values[np.isfinite(values)])
    if len(finite) < 2:
        return np.where(np.isfinite(values), 1.0, np.nan)
    return np.where(
        np.isfinite(values), (np.searchsorted(finite, values, side="right") - 1) / (len(finite) - 1), np.nan
    )


def plain_text(value: float) -> str:
    """Return a number with four significant digits and no idle zeros: as it would be written in a spec."""
    return f"{value:.4g}"


def choice_text(value: ParameterValue | None) -> str:
    """Return a value of a parameter in words."""
    if value is None:
        return "—"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else plain_text(value)


def _parameter_axis(parameter: SweepParameter, values: Sequence[ParameterValue | None]) -> SweepAxis:
    title = parameter.label
    if parameter.kind == "choice" or parameter.low is None or parameter.high is None:
        return _choice_axis(parameter, values)
    numbers = np.array([_plain(value) for value in values], dtype=np.float64)
    return _number_axis(title, parameter.path, numbers, parameter.low, parameter.high, log=parameter.log)


def _plain(value: ParameterValue | None) -> float:
    return math.nan if value is None or isinstance(value, str) else float(value)


def _choice_axis(parameter: SweepParameter, values: Sequence[ParameterValue | None]) -> SweepAxis:
    choices = parameter.choices
    places = {choice: (n + 0.5) / len(choices) for n, choice in enumerate(choices)}
    positions = [math.nan if value is None else places.get(value, math.nan) for value in values]
    ticks = tuple((places[choice], choice_text(choice)[:_MAX_CHOICE_TEXT]) for choice in choices)
    return SweepAxis(parameter.label, parameter.path, np.array(positions, dtype=np.float64), ticks)


def _metric_axis(metric: str, values: Floats) -> SweepAxis:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return SweepAxis(metric, "", np.full(len(values), np.nan), (), 0.0, 1.0)
    low, high = float(finite.min()), float(finite.max())
    if low == high:
        pad = abs(low) * 0.05 or 1.0
        low, high = low - pad, high + pad
    return _number_axis(metric, "", values, low, high, log=low > 0 and high / low > _LOG_SPAN)


def _number_axis(title: str, path: str, values: Floats, low: float, high: float, *, log: bool) -> SweepAxis:
    if log:
        bottom, top = math.log10(low), math.log10(high)
        with np.errstate(invalid="ignore", divide="ignore"):
            positions = (np.log10(values) - bottom) / (top - bottom)
        ticks = tuple(((math.log10(t) - bottom) / (top - bottom), plain_text(t)) for t in _log_ticks(low, high))
    else:
        positions = (values - low) / (high - low)
        ticks = tuple(((t - low) / (high - low), plain_text(t)) for t in _ticks(low, high))
    return SweepAxis(title, path, np.clip(positions, 0.0, 1.0), ticks, low, high, log)


def _ticks(low: float, high: float) -> list[float]:
    """Return round values within a range, its ends first."""
    raw = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw)
    inner = [step * n for n in range(math.ceil(low / step), math.floor(high / step) + 1)]
    apart = [tick for tick in inner if min(tick - low, high - tick) > 0.4 * step]
    return [low, *(float(f"{tick:.12g}") for tick in apart), high]


def _log_ticks(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = max((last - first) // _TICKS, 1)
    inner = [10.0**n for n in range(first, last + 1, every)]
    share = math.log10(high / low) / (2 * _TICKS)
    apart = [t for t in inner if low < t < high and min(math.log10(t / low), math.log10(high / t)) > share]
    return [low, *apart, high]
