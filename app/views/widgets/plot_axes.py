"""Axes of a chart: durations, clock times, plain steps, and values with their unit; all of one width, so charts align."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

import pyqtgraph as pg

from app.viewmodels.metric_series import Axis
from app.viewmodels.wording import number_text, size_text, span_text

LEFT_AXIS_WIDTH = 64


_TIME_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)


class RunAxis(pg.DateAxisItem):
    """The horizontal axis: training steps, time since the start, or the clock.

    One item that changes its words: taking an axis out of a living chart and putting another in crashes Qt now and then.
    """

    def __init__(self, axis: Axis) -> None:
        super().__init__(orientation="bottom")
        self._axis = axis
        self.enableAutoSIPrefix(False)

    def set_axis(self, axis: Axis) -> None:
        """Count something else."""
        if axis is not self._axis:
            self._axis = axis
            self.picture = None
            self.update()

    def linkToView(self, view: Any) -> None:
        """Follow a view; unlike a date axis this one sets it no limits, for it may count steps."""
        self._linkToView_internal(view)

    def tickValues(self, low: float, high: float, size: float) -> list[tuple[float, list[float]]]:
        """Return where ticks stand."""
        if self._axis is Axis.WALL:
            return super().tickValues(low, high, size)
        return pg.AxisItem.tickValues(self, low, high, size)

    def tickSpacing(self, low: float, high: float, size: float) -> list[tuple[float, float]]:
        """Return spacings that people count in."""
        if self._axis is Axis.RELATIVE:
            wanted = (high - low) / max(size / 90.0, 2.0)
            if wanted > 1:
                major = next((step for step in _TIME_STEPS_S if step >= wanted), 86_400 * math.ceil(wanted / 86_400))
                return [(float(major), 0.0)]
        return pg.AxisItem.tickSpacing(self, low, high, size)[:2]

    def tickStrings(self, values: list[float], scale: float, spacing: float | None) -> list[str]:
        """Return the words at the ticks."""
        if self._axis is Axis.WALL:
            return super().tickStrings(values, scale, spacing)
        plain = [_power_of_ten(value) if self.logMode else value for value in values]
        return [_short(value) if self._axis is Axis.STEP else _duration(value) for value in plain]


def _power_of_ten(exponent: float) -> float:
    """Return 10**exponent, infinite where it is no number any more: an error while painting takes the program down."""
    return 10.0**exponent if exponent < 300 else math.inf


def _duration(seconds: float) -> str:
    if seconds == 0:
        return "0"
    return ("-" if seconds < 0 else "") + span_text(abs(seconds))


class ValueAxis(pg.AxisItem):
    """Values with their unit: bytes in binary units, the rest as plain numbers."""

    def __init__(self, unit: str = "") -> None:
        super().__init__(orientation="left")
        self._unit = unit
        self.setWidth(LEFT_AXIS_WIDTH)
        self.enableAutoSIPrefix(False)

    def set_unit(self, unit: str) -> None:
        """Show another unit."""
        if unit != self._unit:
            self._unit = unit
            self.picture = None
            self.update()

    def tickStrings(self, values: list[float], scale: float, spacing: float | None) -> list[str]:
        """Return values with their unit."""
        plain = [_power_of_ten(value) if self.logMode else value for value in values]
        if self._unit in {"B", "B/s"}:
            suffix = "/s" if self._unit == "B/s" else ""
            return [f"{size_text(value)}{suffix}" for value in plain]
        if self._unit == "Hz":
            return [f"{value / 1e9:.2f} GHz" for value in plain]
        # On a logarithmic axis there is no spacing: pyqtgraph passes None.
        digits = min(8, math.ceil(-math.log10(spacing))) if spacing and 0 < spacing < 1 else 0
        small = [_tick(value, digits, is_log=self.logMode) for value in plain]
        return [f"{text} {self._unit}" for text in small] if self._unit else small


def _tick(value: float, digits: int, *, is_log: bool) -> str:
    if is_log or abs(value) >= 1e6 or (value and abs(value) < 1e-5):
        return f"{value:.3g}"
    return f"{value:,.{digits}f}".replace(",", "\u202f")


def _short(value: float) -> str:
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / (1e3 if suffix == 'k' else limit):g}{suffix}"
    return f"{value:g}"


def value_text(value: float, unit: str) -> str:
    """Return a value with its unit for a legend or a tooltip."""
    if unit in {"B", "B/s"} and math.isfinite(value):
        return size_text(value) + ("/s" if unit == "B/s" else "")
    if unit == "Hz" and math.isfinite(value):
        return f"{value / 1e9:.2f} GHz"
    return f"{number_text(value)} {unit}".strip()


def position_text(x: float, axis: Axis) -> str:
    """Return a position on the horizontal axis in words."""
    if axis is Axis.STEP:
        return f"step {x:,.0f}".replace(",", "\u202f")
    if axis is Axis.RELATIVE:
        return f"after {span_text(x)}"
    return f"{datetime.fromtimestamp(x):%Y-%m-%d %H:%M:%S}"
