"""What is drawn in a chart: a curve with its faint raw twin and its marks, the box that zooms, the marker lines.

Pens stay one pixel wide: wider lines cost a hundred times as much. Emphasis is colour, not width.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QColor

from app.viewmodels.metric_series import CurveWindow

Floats = NDArray[np.float64]

_FAINT_ALPHA = 90
_DIMMED_ALPHA = 55
_MAX_LINES = 40
_FOOT = 0.06
"""Share of the height that marker lines have where there are more than ``_MAX_LINES`` of a kind in view."""
_COLUMNS = 300


class ZoomBox(pg.ViewBox):
    """Drag to zoom into a rectangle, shift-drag or middle-drag to pan, Ctrl+wheel to zoom, double-click to reset.

    Signals:
        reset_wanted: The box was double-clicked.
    """

    reset_wanted = Signal()

    def __init__(self) -> None:
        super().__init__(enableMenu=False)
        self.setMouseMode(pg.ViewBox.RectMode)
        self.disableAutoRange()

    def mouseClickEvent(self, ev: Any) -> None:
        """Reset the view on a double click."""
        if ev.double() and ev.button() == Qt.MouseButton.LeftButton:
            ev.accept()
            self.reset_wanted.emit()

    def mouseDragEvent(self, ev: Any, axis: int | None = None) -> None:
        """Pan while shift is held, else zoom into the rectangle."""
        pans = bool(ev.modifiers() & Qt.KeyboardModifier.ShiftModifier)
        self.setMouseMode(pg.ViewBox.PanMode if pans else pg.ViewBox.RectMode)
        super().mouseDragEvent(ev, axis)

    def set_colours(self, accent: str) -> None:
        """Colour the rubber band."""
        edge, fill = QColor(accent), QColor(accent)
        fill.setAlpha(40)
        self.rbScaleBox.setPen(pg.mkPen(edge))
        self.rbScaleBox.setBrush(pg.mkBrush(fill))


class CurveItem:
    """One curve of a chart: the raw line, the smoothed line when there is one, and crosses for what is no number."""

    def __init__(self, box: ZoomBox, key: str) -> None:
        self.key = key
        self.colour = "#000000"
        self._box = box
        self._raw = pg.PlotCurveItem(skipFiniteCheck=True)
        self._smooth = pg.PlotCurveItem(skipFiniteCheck=True)
        self._marks = pg.ScatterPlotItem(size=9, pxMode=True)
        self._smooth.setZValue(2)
        self._marks.setZValue(3)
        for item in (self._raw, self._smooth, self._marks):
            box.addItem(item, ignoreBounds=True)
        # An item without data still costs its share of every frame while it is visible.
        self._smooth.setVisible(False)
        self._marks.setVisible(False)
        self._is_dimmed = False
        self._has_smooth = False
        self._window_marks: tuple[Floats, Floats] = (np.empty(0), np.empty(0))
        self.is_visible = True

    def remove(self) -> None:
        """Take the curve out of the chart."""
        for item in (self._raw, self._smooth, self._marks):
            self._box.removeItem(item)

    def set_visible(self, *, visible: bool) -> None:
        """Show or hide the curve."""
        self.is_visible = visible
        self._raw.setVisible(visible)
        self._smooth.setVisible(visible and self._has_smooth)
        self._marks.setVisible(visible and len(self._marks.data) > 0)

    def set_colour(self, colour: str) -> None:
        """Choose the curve's colour, ``#RRGGBB``."""
        self.colour = colour
        self._apply_pens()

    def set_dimmed(self, *, dimmed: bool) -> None:
        """Step back while another curve is pointed at."""
        if dimmed != self._is_dimmed:
            self._is_dimmed = dimmed
            self._apply_pens()

    def draw(self, window: CurveWindow, *, log_y: bool, antialias: bool) -> tuple[float, float] | None:
        """Draw what is in view; returns the smallest and largest drawn value (log10 on a log axis), None for nothing."""
        if (len(window.smooth_x) > 0) != self._has_smooth:
            self._has_smooth = not self._has_smooth
            self._smooth.setVisible(self.is_visible and self._has_smooth)
            self._apply_pens()
        y, smooth_y = window.y, window.smooth_y
        if log_y:
            y, smooth_y = _log10(y), _log10(smooth_y)
        self._set(self._raw, window.x, y, antialias=antialias)
        if self._has_smooth:
            self._set(self._smooth, window.smooth_x, smooth_y, antialias=antialias)
        self._window_marks = (window.mark_x, window.mark_y)
        return _extent(smooth_y if self._has_smooth else y)

    def inner_extent(self, window: CurveWindow, *, log_y: bool) -> tuple[float, float] | None:
        """Return the range of the inner 98 % of the points in view (log10 on a log axis); None for too few points."""
        y = window.smooth_y if self._has_smooth else window.y
        if log_y:
            y = _log10(y)
        finite = y[np.isfinite(y)]
        if len(finite) < 20:
            return None
        low, high = np.percentile(finite, [1.0, 99.0])
        return float(low), float(high)

    def place_marks(self, low: float, high: float, danger: str) -> None:
        """Put the crosses of non-finite values inside the visible height: infinities at their end, NaN at the foot."""
        x, value = self._window_marks
        if not len(x):
            if len(self._marks.data):
                self._marks.clear()
                self._marks.setVisible(False)
            return
        inset = (high - low) * 0.03
        y = np.where(value == np.inf, high - inset, low + inset)
        symbols = ["t1" if v == np.inf else "t" if v == -np.inf else "x" for v in value]
        self._marks.setVisible(self.is_visible)
        self._marks.setData(x=x, y=y, symbol=symbols, pen=pg.mkPen(danger), brush=pg.mkBrush(danger))

    def _apply_pens(self) -> None:
        raw, smooth = QColor(self.colour), QColor(self.colour)
        if self._has_smooth:
            raw.setAlpha(_FAINT_ALPHA)
        if self._is_dimmed:
            raw.setAlpha(_DIMMED_ALPHA // 2 if self._has_smooth else _DIMMED_ALPHA)
            smooth.setAlpha(_DIMMED_ALPHA)
        self._raw.setPen(pg.mkPen(raw, width=1))
        self._smooth.setPen(pg.mkPen(smooth, width=1))
        self._raw.setZValue(1 if self._is_dimmed else 2)

    @staticmethod
    def _set(item: Any, x: Floats, y: Floats, *, antialias: bool) -> None:
        connect = "finite" if len(y) and bool(np.isnan(y).any()) else "all"
        item.setData(x=x, y=y, connect=connect, antialias=antialias, skipFiniteCheck=connect == "all")


class MarkerLines:
    """Vertical lines over the whole height, one item for all lines of a kind."""

    def __init__(self, box: ZoomBox) -> None:
        self._box = box
        self._items: dict[str, Any] = {}
        self._positions: dict[str, Floats] = {}

    def set_positions(self, kind: str, x: Floats, colour: str) -> None:
        """Place the lines of one kind (``checkpoint``, ``restart``, ``stability``)."""
        if kind not in self._items:
            item = pg.PlotCurveItem(connect="pairs", skipFiniteCheck=True)
            item.setZValue(0)
            self._items[kind] = item
            self._box.addItem(item, ignoreBounds=True)
        self._positions[kind] = x
        style = Qt.PenStyle.DotLine if kind == "checkpoint" else Qt.PenStyle.DashLine
        self._items[kind].setPen(pg.mkPen(colour, width=1, style=style))

    def stretch(self, low: float, high: float, view: tuple[float, float]) -> None:
        """Let the lines reach over the visible height; where they would hide the curves, over its foot only."""
        for kind, item in self._items.items():
            x = self._positions[kind]
            x = x[(x >= view[0]) & (x <= view[1])]
            top = high
            if len(x) > _MAX_LINES:
                x = _thinned(x, view)
                top = low + (high - low) * _FOOT
            item.setData(x=np.repeat(x, 2), y=np.tile(np.array([low, top]), len(x)), connect="pairs")

    def clear(self) -> None:
        """Remove all lines."""
        for kind in self._positions:
            self._positions[kind] = np.empty(0)
        self.stretch(0.0, 1.0, (0.0, 1.0))


def _thinned(x: Floats, view: tuple[float, float]) -> Floats:
    """Return one position for each of the columns that can be told apart."""
    column = np.floor((x - view[0]) / max(view[1] - view[0], 1e-12) * _COLUMNS)
    return x[np.unique(column, return_index=True)[1]]


def _log10(values: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return cast("Floats", np.where(values > 0, np.log10(np.where(values > 0, values, 1.0)), np.nan))


def _extent(y: Floats) -> tuple[float, float] | None:
    finite = y[np.isfinite(y)]
    return (float(finite.min()), float(finite.max())) if len(finite) else None
