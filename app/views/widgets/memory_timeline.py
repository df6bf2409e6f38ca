"""Bytes held over the time of a profile, a curve for each device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QLabel, QVBoxLayout, QWidget

from app.viewmodels.wording import size_text
from app.views.theme import SPACE, set_kind, theme, theme_host
from app.views.widgets.plot_axes import ValueAxis
from core.contracts.profiles import MemoryCurve

_HEIGHT = 200


class MemoryTimeline(QWidget):
    """The plot and a line that names each curve and its peak."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName("Memory over the time of the profile")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(SPACE.xs)
        self._words = QLabel()
        self._words.setTextFormat(Qt.TextFormat.PlainText)
        set_kind(self._words, "caption")
        bottom = pg.AxisItem(orientation="bottom")
        bottom.setLabel("seconds since the beginning of the profile")
        self._plot = pg.PlotWidget(axisItems={"bottom": bottom, "left": ValueAxis("B")})
        self._plot.setFixedHeight(_HEIGHT)
        self._plot.setMenuEnabled(False)
        self._plot.setMouseEnabled(x=False, y=False)
        self._plot.hideButtons()
        self._plot.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._lines: list[pg.PlotDataItem] = []
        column.addWidget(self._words)
        column.addWidget(self._plot)
        theme_host().changed.connect(self._recolour)

    def show_curves(self, curves: Sequence[MemoryCurve]) -> None:
        """Draw the curves; the vertical axis begins at zero unless a curve falls below it."""
        for line in self._lines:
            self._plot.removeItem(line)
        self._lines = [
            self._plot.plot(
                np.array(curve.times_s, dtype=np.float64), np.array(curve.allocated_bytes, dtype=np.float64)
            )
            for curve in curves
        ]
        peaks = [max(curve.allocated_bytes, default=0) for curve in curves]
        floor = min((min(curve.allocated_bytes, default=0) for curve in curves), default=0)
        named = zip(curves, peaks, strict=True)
        self._words.setText(" · ".join(f"{curve.device}: peak {size_text(peak)}" for curve, peak in named))
        end = max((curve.times_s[-1] for curve in curves if curve.times_s), default=1.0)
        self._plot.setXRange(0.0, end or 1.0, padding=0.01)
        self._plot.setYRange(min(floor, 0), max(peaks, default=1) * 1.08 or 1.0, padding=0)
        self._recolour()

    def _recolour(self) -> None:
        tokens = theme()
        self._plot.setBackground(tokens.plot_background)
        for name in ("left", "bottom"):
            axis = self._plot.getAxis(name)
            axis.setPen(pg.mkPen(tokens.plot_grid))
            axis.setTextPen(pg.mkPen(tokens.plot_axis))
            axis.setGrid(90)
        for n, line in enumerate(self._lines):
            line.setPen(pg.mkPen(tokens.curve(n), width=1))
