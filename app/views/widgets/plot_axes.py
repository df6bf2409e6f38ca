"""Axes of a chart: durations, clock times, plain steps, and values with their unit; all of one width, so charts align."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

import pyqtgraph as pg

from app.viewmodels.metric_series import Axis
from app.viewmodels.wording import number_text, size_text, span_text

LEFT_AXIS_WIDTH = 64


class DurationAxis(pg.AxisItem):
    """Seconds since the start of the run, as durations."""

    def tickSpacing(self, minVal: float, maxVal: float, size: float) -> list[tuple[float, float]]:  # noqa: N803 - pyqtgraph's
        """Return spacings that people count time in."""
        wanted = (maxVal - minVal) / max(size / 90.0, 2.0)
        steps = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)
        if wanted <= 1:
            return super().tickSpacing(minVal, maxVal, size)[:2]
        major = next((step for step in steps if step >= wanted), 86_400 * math.ceil(wanted / 86_400))
        return [(float(major), 0.0)]

    def tickStrings(self, values: list[float], scale: float, spacing: float) -> list[str]:
        """Return durations such as ``3 min 20 s``."""
        if self.logMode:
            return [span_text(10**value) for value in values]
        return ["0" if value == 0 else ("-" if value < 0 else "") + span_text(abs(value)) for value in values]


class StepAxis(pg.AxisItem):
    """Training steps: whole numbers with thousands set apart, k and M where they are long."""

    def tickStrings(self, values: list[float], scale: float, spacing: float) -> list[str]:
        """Return short whole numbers."""
        return [_short(10**value if self.logMode else value) for value in values]


class ValueAxis(pg.AxisItem):
    """Values with their unit: bytes in binary units, the rest as plain numbers."""

    def __init__(self, unit: str = "") -> None:
        super().__init__(orientation="left")
        self._unit = unit
        self.setWidth(LEFT_AXIS_WIDTH)
        self.enableAutoSIPrefix(False)

    def tickStrings(self, values: list[float], scale: float, spacing: float) -> list[str]:
        """Return values with their unit."""
        plain = [10**value if self.logMode else value for value in values]
        if self._unit in {"B", "B/s"}:
            suffix = "/s" if self._unit == "B/s" else ""
            return [f"{size_text(value)}{suffix}" for value in plain]
        if self._unit == "Hz":
            return [f"{value / 1e9:.2f} GHz" for value in plain]
        digits = 0 if spacing >= 1 or spacing <= 0 else min(8, math.ceil(-math.log10(spacing)))
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


def bottom_axis(axis: Axis) -> Any:
    """Return a new horizontal axis of the asked sort."""
    if axis is Axis.WALL:
        return pg.DateAxisItem(orientation="bottom")
    made = DurationAxis(orientation="bottom") if axis is Axis.RELATIVE else StepAxis(orientation="bottom")
    made.enableAutoSIPrefix(False)
    return made


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
