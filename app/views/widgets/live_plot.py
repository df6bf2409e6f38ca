"""A small live chart of host readings over the last ten minutes: title, newest value, one or more curves.

Ranges are set by hand once a second and pens are one pixel wide: both matter for the cost of a redraw.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyqtgraph as pg
from PySide6.QtGui import QFont
from PySide6.QtWidgets import QApplication, QHBoxLayout, QLabel, QWidget

from app.viewmodels.reading_history import ReadingHistory
from app.viewmodels.wording import number_text, size_text
from app.views.theme import set_kind, theme, theme_host
from app.views.widgets.card import Card
from app.views.widgets.elided_label import ElidedLabel
from app.views.widgets.plot_axes import ValueAxis
from core.contracts.units import reading_of

_SECONDS = 600
_HEIGHT = 132
_MAX_CURVES = 64
_MAX_NAMED = 3
_CORE = re.compile(r"cpu\.\d+\.percent")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartPlan:
    """What one chart shows.

    Attributes:
        title: Its heading.
        keys: Telemetry keys of its curves; the first ones are named beside the title.
        top: Natural upper end of the axis, or the key of the reading that is it (such as the memory there is).
    """

    title: str
    keys: tuple[str, ...]
    top: float | str | None = None


def _small_font() -> QFont:
    font = QApplication.font()
    font.setPixelSize(11)
    return font


class AgeAxis(pg.AxisItem):
    """Seconds before now, as minutes."""

    def __init__(self) -> None:
        super().__init__(orientation="bottom")
        self.setTicks([[(-minutes * 60.0, f"-{minutes} min") for minutes in (8, 6, 4, 2)]])


class LivePlot(Card):
    """A chart on a card."""

    def __init__(self, plan: ChartPlan, parent: QWidget | None = None) -> None:
        super().__init__(parent=parent)
        self.plan = plan
        self.setAccessibleName(f"Chart: {plan.title}")
        self._unit = reading_of(plan.keys[0]).unit
        self._top = 0.0
        title = QLabel(plan.title)
        set_kind(title, "h3")
        self._values = ElidedLabel(kind="caption")
        self.title_row.addWidget(title)
        self.title_row.addWidget(self._values, 1)
        self._plot = pg.PlotWidget(axisItems={"bottom": AgeAxis(), "left": ValueAxis(self._unit)})
        self._plot.setFixedHeight(_HEIGHT)
        self._plot.setMenuEnabled(False)
        self._plot.setMouseEnabled(x=False, y=False)
        self._plot.hideButtons()
        self._plot.setXRange(-_SECONDS, 0, padding=0)
        self._plot.setFocusPolicy(pg.QtCore.Qt.FocusPolicy.NoFocus)
        self._curves = [self._plot.plot(connect="finite") for _ in plan.keys[:_MAX_CURVES]]
        row = QHBoxLayout()
        row.addWidget(self._plot)
        self.body.addLayout(row)
        theme_host().changed.connect(self._recolour)
        self._recolour()

    def show_history(self, history: ReadingHistory) -> None:
        """Draw the readings kept."""
        ages = history.ages_s()
        top = self._given_top(history)
        highest = 0.0
        for curve, key in zip(self._curves, self.plan.keys, strict=False):
            series = history.series(key)
            curve.setData(ages, series)
            known = series[np.isfinite(series)]
            highest = max(highest, float(known.max()) if len(known) else 0.0)
        self._set_top(top or _nice_top(highest, self._unit))
        self._values.set_whole(self._newest(history))

    def _set_top(self, top: float) -> None:
        if top == self._top:
            return
        self._top = top
        self._plot.setYRange(0, top * 1.1, padding=0.03)
        step = _nice_step(top, self._unit)
        left = self._plot.getAxis("left")
        marks = [step * number for number in range(int(top / step + 1e-9) + 1)]
        left.setTicks([[(mark, value_text(mark, self._unit).replace(".0 ", " ")) for mark in marks]])

    def _given_top(self, history: ReadingHistory) -> float | None:
        if isinstance(self.plan.top, str):
            return None if history.last is None else history.last.get(self.plan.top)
        return self.plan.top

    def _newest(self, history: ReadingHistory) -> str:
        if history.last is None:
            return ""
        parts: list[str] = []
        for key in self.plan.keys[:_MAX_NAMED]:
            value = history.last.get(key)
            if value is not None:
                name = f"{reading_of(key).title} " if len(self.plan.keys) > 1 else ""
                parts.append(f"{name}{value_text(value, self._unit)}")
        return " · ".join(parts) if len(self.plan.keys) <= _MAX_NAMED else ""

    def _recolour(self) -> None:
        tokens = theme()
        self._plot.setBackground(tokens.plot_background)
        for index, curve in enumerate(self._curves):
            curve.setPen(pg.mkPen(tokens.curve(index), width=1))
        for side in ("left", "bottom"):
            axis = self._plot.getAxis(side)
            axis.setStyle(tickFont=_small_font(), tickLength=0)
            axis.setPen(pg.mkPen(tokens.plot_grid))
            axis.setTextPen(pg.mkPen(tokens.plot_axis))
        self._plot.showGrid(x=False, y=True, alpha=0.25)


def plans_of(keys: Sequence[str]) -> tuple[ChartPlan, ...]:
    """Return the charts that the keys of a sample allow, in the order in which they are shown."""
    present = set(keys)
    cores = tuple(sorted((key for key in keys if _CORE.fullmatch(key)), key=_number))
    plans = [
        ChartPlan(title="Processor", keys=("cpu.percent",), top=100.0),
        ChartPlan(title="Each core", keys=cores, top=100.0),
        ChartPlan(title="Memory", keys=("memory.used_bytes",), top="memory.total_bytes"),
        ChartPlan(title="Disk", keys=("disk.read_bytes_per_s", "disk.write_bytes_per_s")),
        ChartPlan(title="Network", keys=("net.rx_bytes_per_s", "net.tx_bytes_per_s")),
    ]
    for title, end, top in _GPU_CHARTS:
        found = tuple(sorted((key for key in keys if key.startswith("gpu.") and key.endswith(f".{end}")), key=_number))
        plans.append(ChartPlan(title=title, keys=found, top=top))
    return tuple(plan for plan in plans if plan.keys and present.issuperset(plan.keys))


_GPU_CHARTS: tuple[tuple[str, str, float | str | None], ...] = (
    ("GPU utilization", "utilization_percent", 100.0),
    ("GPU memory", "memory_used_bytes", "gpu.0.memory_total_bytes"),
    ("GPU power", "power_w", None),
    ("GPU temperature", "temperature_c", 100.0),
)


def value_text(value: float, unit: str) -> str:
    """Return a reading with its unit."""
    if unit in {"B", "B/s"}:
        return size_text(value) + unit[1:]
    if unit == "%":
        return f"{value:.0f} %"
    return f"{number_text(round(value, 1))} {unit}".rstrip()


def _number(key: str) -> int:
    return next((int(part) for part in key.split(".") if part.isdigit()), -1)


def _nice_step(top: float, unit: str) -> float:
    """Return a round distance between three to five marks: halves of powers of two for bytes, 1, 2 or 5 tens else."""
    if unit.startswith("B"):
        return 2.0 ** math.floor(math.log2(top / 2))
    power = 10 ** math.floor(math.log10(top))
    return next(power * part for part in (0.25, 0.5, 1.0, 2.0) if top / (power * part) <= 4.01)


def _nice_top(highest: float, unit: str) -> float:
    if highest <= 0:
        return 1024.0 if unit.startswith("B") else 1.0
    base = 2.0 if unit.startswith("B") else 10.0
    power = base ** math.floor(math.log(highest, base))
    return next(power * step for step in (1, 1.25, 1.5, 2, 2.5, 5, 10) if power * step >= highest * 1.05)
