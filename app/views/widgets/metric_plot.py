"""One chart of a run's curves: draws what is in view at screen resolution, follows live data, zooms, shows values.

The board above it decides when it draws (``refresh``) and with how many points; the chart only says that it is dirty.
While nobody zoomed, the horizontal range follows the data and the vertical range what is drawn.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QPoint, QPointF, QSize, Qt, Signal
from PySide6.QtGui import QResizeEvent, QWheelEvent
from PySide6.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QLabel,
    QMenu,
    QScrollArea,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from app.viewmodels.curve_names import curve_label
from app.viewmodels.curve_set import ChartPlan, CurveRequest, CurveSet
from app.viewmodels.metric_series import Axis, Sample, ViewRange
from app.viewmodels.plot_options import PlotOptions
from app.viewmodels.stability_events import event_text
from app.views.icons import icon
from app.views.theme import SPACE, set_kind, set_surface, theme
from app.views.widgets.plot_axes import RunAxis, ValueAxis, position_text, value_text
from app.views.widgets.plot_items import CurveItem, MarkerLines, ZoomBox
from app.views.widgets.plot_legend import LegendArea, PlotLegend
from app.views.widgets.plot_tooltip import PlotTooltip, TooltipRow
from core.contracts.runs import MarkerRecord

_MAX_ANTIALIASED = 12
_MAX_TOOLTIP_ROWS = 12
_HIGHLIGHT_PIXELS = 20.0
_MIN_POINTS = 160
_CANVAS_HEIGHT = 120


class _Canvas(pg.PlotWidget):
    """The drawing area; the wheel belongs to the page unless Ctrl is held or the chart has the focus."""

    def wheelEvent(self, ev: QWheelEvent) -> None:
        """Zoom, or let the page scroll."""
        if self.hasFocus() or ev.modifiers() & Qt.KeyboardModifier.ControlModifier:
            super().wheelEvent(ev)
        else:
            ev.ignore()


class MetricPlot(QFrame):
    """A chart with title, legend and values under the mouse.

    Signals:
        dirty: It needs ``refresh``.
        zoomed: ``(first, last)`` on the horizontal axis after the user zoomed or panned; None after a reset.
        pointed: Horizontal position under the mouse, or None when it left.
        export_wanted: ``png``, ``svg`` or ``csv``.
        expand_wanted: Show this chart over the whole width, or back.
    """

    dirty = Signal()
    zoomed = Signal(object)
    pointed = Signal(object)
    export_wanted = Signal(object)
    expand_wanted = Signal()

    def __init__(self, curves: CurveSet, plan: ChartPlan, options: PlotOptions, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.plan = plan
        self.is_dirty = True
        self._curves = curves
        self._options = options
        self._items: dict[str, CurveItem] = {}
        self._x_range: tuple[float, float] | None = None
        self._y_range: tuple[float, float] | None = None
        self._markers: tuple[MarkerRecord, ...] = ()
        self._is_setting_range = False
        self._pointed_key: str | None = None
        self._num_clipped = 0
        set_surface(self, "card")
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Expanding)
        self._build()
        self.set_plan(plan)
        self.recolour()

    def adopt(self, curves: CurveSet, plan: ChartPlan, options: PlotOptions) -> None:
        """Become the chart of other curves: making a chart costs a hundred times as much as drawing one."""
        for item in self._items.values():
            item.remove()
        self._items.clear()
        self.legend.set_keys({})
        self._curves, self._options = curves, options
        self._x_range = self._y_range = None
        self._pointed_key = None
        self._left.set_unit(plan.unit)
        self.set_markers(())
        self.point_at(None)
        self.set_plan(plan)

    def set_plan(self, plan: ChartPlan) -> None:
        """Show these curves; those that stay keep their visibility."""
        self.plan = plan
        self.setAccessibleName(f"Chart of {plan.title}")
        self._title.setText(plan.title)
        for key in [key for key in self._items if key not in plan.keys]:
            self._items.pop(key).remove()
        for key in plan.keys:
            self._items.setdefault(key, CurveItem(self._box, key))
        self.legend.set_keys({key: curve_label(key) for key in plan.keys})
        self.recolour()
        self.mark_dirty()

    def set_options(self, options: PlotOptions) -> None:
        """Obey other choices; a change of the horizontal axis shows the whole run again."""
        before, self._options = self._options, options
        if (before.axis, before.log_x) != (options.axis, options.log_x):
            self._x_range = None
        self._y_range = None
        self._place_markers()
        self.mark_dirty()

    def set_markers(self, markers: tuple[MarkerRecord, ...]) -> None:
        """Mark checkpoints, restarts and stability events."""
        self._markers = markers
        self._place_markers()
        self.mark_dirty()

    def mark_dirty(self) -> None:
        """Say that what is drawn is stale."""
        if not self.is_dirty:
            self.is_dirty = True
        self.dirty.emit()

    def view_range(self, points: int) -> ViewRange:
        """Return the range in view, in the axis's own unit (never logarithms)."""
        first, last = self._x_range or self._full_range()
        return ViewRange(axis=self._options.axis, first=first, last=last, points=points, log_x=self._options.log_x)

    def set_x_range(self, x_range: tuple[float, float] | None) -> None:
        """Show another range, as another chart of the board does; None follows the data."""
        self._x_range = x_range
        if x_range is None:
            self._y_range = None
        self.mark_dirty()

    def reset_view(self) -> None:
        """Show everything again and follow the data."""
        self.set_x_range(None)
        self.zoomed.emit(None)

    def refresh(self, points_per_curve: int) -> None:
        """Draw what is in view. UI thread; a fraction of a millisecond a curve."""
        self.is_dirty = False
        width = max(int(self._box.width()), 80)
        points = max(min(points_per_curve, 2 * width), _MIN_POINTS)
        view = self.view_range(points)
        extents = [self._draw(item, view) for item in self._items.values()]
        self._set_ranges(view, [extent for extent in extents if extent is not None])
        self._update_values()

    def requests(self) -> list[CurveRequest]:
        """Return what to fetch so that the range in view shows all it holds."""
        view = self.view_range(2 * max(int(self._box.width()), 80))
        found = [self._curves.request_for(item.key, view) for item in self._items.values() if item.is_visible]
        return [request for request in found if request is not None]

    def point_at(self, x: float | None, *, shows_values: bool = False) -> None:
        """Move the crosshair to a horizontal position; None hides it."""
        self._line.setVisible(x is not None)
        if x is None:
            self._tooltip.hide()
            return
        self._line.setPos(math.log10(x) if self._options.log_x and x > 0 else x)
        if shows_values:
            self._show_tooltip(x)

    def shown_keys(self) -> tuple[str, ...]:
        """Return the curves that are shown."""
        return tuple(key for key, item in self._items.items() if item.is_visible)

    @property
    def options(self) -> PlotOptions:
        """Return the choices in force."""
        return self._options

    @property
    def canvas(self) -> QWidget:
        """Return the drawing area, for pictures of it."""
        return self._canvas

    def recolour(self) -> None:
        """Take on the theme in force."""
        tokens = theme()
        self._canvas.setBackground(tokens.plot_background)
        self._line.setPen(pg.mkPen(tokens.text_faint, width=1))
        self._box.set_colours(tokens.accent)
        for n, item in enumerate(self._items.values()):
            item.set_colour(tokens.curve(n))
            self.legend.chip(item.key).set_colour(tokens.curve(n))
        self._colour_axes()
        self._place_markers()
        self.mark_dirty()

    def _build(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(SPACE.s, SPACE.s, SPACE.s, SPACE.s)
        layout.setSpacing(2)
        layout.addLayout(self._build_header())
        self.legend = PlotLegend()
        self.legend.toggled.connect(self._on_legend_toggled)
        self.legend.pointed.connect(self._on_curve_pointed)
        layout.addWidget(self._build_legend_area())
        self._box = ZoomBox()
        self._box.reset_wanted.connect(self.reset_view)
        self._box.sigRangeChangedManually.connect(self._on_range_dragged)
        self._bottom = RunAxis(self._options.axis)
        self._left = ValueAxis(self.plan.unit)
        axes = {"bottom": self._bottom, "left": self._left}
        self._canvas = _Canvas(viewBox=self._box, axisItems=axes)
        self._canvas.setMinimumHeight(_CANVAS_HEIGHT)
        self._canvas.setFocusPolicy(Qt.FocusPolicy.ClickFocus)
        self._canvas.hideButtons()
        self._canvas.setMenuEnabled(False)
        self._canvas.scene().sigMouseMoved.connect(self._on_mouse_moved)
        self._line = pg.InfiniteLine(angle=90, movable=False)
        self._line.setVisible(False)
        self._box.addItem(self._line, ignoreBounds=True)
        self._marker_lines = MarkerLines(self._box)
        layout.addWidget(self._canvas, 1)
        self._tooltip = PlotTooltip(self._canvas)

    def _build_legend_area(self) -> QScrollArea:
        """Return the legend in an area that scrolls when there are more curves than fit three rows."""
        area = LegendArea()
        area.setWidgetResizable(True)
        area.setFrameShape(QFrame.Shape.NoFrame)
        area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setWidget(self.legend)
        # A scroll area fills its background; on the card it must not.
        area.setStyleSheet("QScrollArea { background: transparent; }")
        area.viewport().setAutoFillBackground(False)
        self.legend.setAutoFillBackground(False)
        return area

    def _build_header(self) -> QHBoxLayout:
        header = QHBoxLayout()
        header.setContentsMargins(SPACE.xs, 0, 0, 0)
        self._title = QLabel()
        self._title.setTextFormat(Qt.TextFormat.PlainText)
        set_kind(self._title, "h3")
        self._clip_note = QLabel("outliers cut off")
        set_kind(self._clip_note, "caption")
        self._clip_note.setToolTip("The vertical axis shows the inner 98 % of the points in view.")
        self._clip_note.hide()
        header.addWidget(self._title, 1)
        header.addWidget(self._clip_note)
        for name, tip, slot in (
            ("refresh", "Show all (double-click)", self.reset_view),
            ("open", "Larger or smaller", self.expand_wanted.emit),
        ):
            button = self._tool(name, tip)
            button.clicked.connect(slot)
            header.addWidget(button)
        export = self._tool("export", "Export this chart")
        menu = QMenu(export)
        for form, label in (("png", "Picture (PNG)"), ("svg", "Drawing (SVG)"), ("csv", "Values shown (CSV)")):
            menu.addAction(label, lambda form=form: self.export_wanted.emit(form))
        export.setMenu(menu)
        export.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        header.addWidget(export)
        return header

    def _tool(self, icon_name: str, tip: str) -> QToolButton:
        button = QToolButton(self)
        button.setIcon(icon(icon_name))
        button.setIconSize(QSize(14, 14))
        button.setToolTip(tip)
        button.setAccessibleName(f"{tip}: {self.plan.title}")
        return button

    def _draw(self, item: CurveItem, view: ViewRange) -> tuple[float, float] | None:
        if not item.is_visible or item.key not in self._curves.series:
            return None
        window = self._curves.best(item.key, view).window(view, self._curves.scale)
        if self._options.log_x:
            window = window.with_log_x()
        antialias = len(self._items) <= _MAX_ANTIALIASED
        extent = item.draw(window, log_y=self._options.log_y, antialias=antialias)
        if not self._options.clips_outliers:
            return extent
        return item.inner_extent(window, log_y=self._options.log_y) or extent

    def _full_range(self) -> tuple[float, float]:
        """Return the common range of the board's curves, so that all charts show the same stretch."""
        first, last = self._curves.bounds(self._options.axis)
        if self._options.log_x:
            return max(first, 1.0), max(last, 10.0)
        margin = (last - first) * 0.01
        return first - margin, last + margin

    def _set_ranges(self, view: ViewRange, extents: list[tuple[float, float]]) -> None:
        first, last = view.first, view.last
        if self._options.log_x:
            first, last = math.log10(max(first, 1e-9)), math.log10(max(last, 1e-9))
        low = min((extent[0] for extent in extents), default=0.0)
        high = max((extent[1] for extent in extents), default=1.0)
        low, high = self._y_range or self._padded(low, high)
        self._set_axes()
        self._is_setting_range = True
        self._box.setRange(xRange=(first, max(last, first + 1e-9)), yRange=(low, high), padding=0)
        self._is_setting_range = False
        for item in self._items.values():
            if item.is_visible:
                item.place_marks(low, high, theme().danger)
        self._marker_lines.stretch(low, high, (first, last))
        self._clip_note.setVisible(self._options.clips_outliers and self._y_range is None)

    def _set_axes(self) -> None:
        """Let the axes count what the ranges count: together, or one frame would read steps as powers of ten."""
        self._bottom.set_axis(self._options.axis)
        if self._bottom.logMode != self._options.log_x:
            self._bottom.setLogMode(self._options.log_x)
        if self._left.logMode != self._options.log_y:
            self._left.setLogMode(self._options.log_y)

    def _padded(self, low: float, high: float) -> tuple[float, float]:
        if self.plan.maximum is not None and not self._options.log_y:
            return 0.0, max(self.plan.maximum, high) * 1.02
        if self.plan.unit in {"B", "B/s", "W"} and not self._options.log_y:
            low = min(low, 0.0)
        pad = (high - low) * 0.06 or max(abs(high) * 0.05, 1e-12)
        # A range that keeps most of itself is left alone: new tick labels cost more than the curves.
        shown = self._box.viewRange()[1]
        fits = shown[0] <= low - pad / 4 and high + pad / 4 <= shown[1]
        if fits and (high - low) > 0.75 * (shown[1] - shown[0]):
            return float(shown[0]), float(shown[1])
        return low - pad, high + pad

    def _place_markers(self) -> None:
        self._marker_lines.clear()
        if not self._options.shows_markers:
            return
        tokens = theme()
        colours = {"checkpoint": tokens.border_strong, "restart": tokens.warning, "stability": tokens.danger}
        for kind, colour in colours.items():
            xs = [self._marker_x(marker) for marker in self._markers if marker.kind == kind]
            known = np.array([x for x in xs if x is not None and (x > 0 or not self._options.log_x)], dtype=np.float64)
            self._marker_lines.set_positions(kind, np.log10(known) if self._options.log_x else known, colour)

    def _marker_x(self, marker: MarkerRecord) -> float | None:
        if self._options.axis is Axis.STEP:
            return None if marker.step is None else float(marker.step)
        return marker.ts if self._options.axis is Axis.WALL else marker.ts - self._curves.scale.start

    def _colour_axes(self) -> None:
        tokens = theme()
        for axis in (self._left, self._bottom):
            axis.setPen(pg.mkPen(tokens.plot_grid))
            axis.setTextPen(pg.mkPen(tokens.plot_axis))
            axis.setStyle(tickLength=0, tickFont=self.font(), maxTickLevel=0)
            axis.setGrid(90)
            axis.setZValue(-1000)

    def _update_values(self) -> None:
        for key in self.plan.keys:
            series = self._curves.series.get(key)
            if series is not None and len(series):
                self.legend.chip(key).set_value(value_text(float(series.values[-1]), self.plan.unit))

    def _on_legend_toggled(self, shown: frozenset[str]) -> None:
        for key, item in self._items.items():
            item.set_visible(visible=key in shown)
        self._y_range = None
        self.mark_dirty()

    def _on_curve_pointed(self, key: str | None) -> None:
        if key == self._pointed_key:
            return
        self._pointed_key = key
        for other, item in self._items.items():
            item.set_dimmed(dimmed=key is not None and other != key)

    def _on_range_dragged(self, *_: object) -> None:
        if self._is_setting_range:
            return
        (first, last), (low, high) = self._box.viewRange()
        if self._options.log_x:
            first, last = 10.0**first, 10.0**last
        self._x_range, self._y_range = (first, last), (low, high)
        self.mark_dirty()
        self.zoomed.emit((first, last))

    def _on_mouse_moved(self, position: QPointF) -> None:
        if not self._box.sceneBoundingRect().contains(position):
            self._on_curve_pointed(None)
            self.pointed.emit(None)
            return
        x = float(self._box.mapSceneToView(position).x())
        self._on_curve_pointed(self._nearest_curve(position))
        self.pointed.emit(10.0**x if self._options.log_x else x)

    def leaveEvent(self, event: Any) -> None:
        """Take the crosshair away when the mouse leaves."""
        super().leaveEvent(event)
        self._on_curve_pointed(None)
        self.pointed.emit(None)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Draw anew for another number of pixel columns."""
        super().resizeEvent(event)
        self.mark_dirty()

    def _samples_at(self, x: float) -> list[tuple[CurveItem, Sample]]:
        view = self.view_range(_MIN_POINTS)
        found: list[tuple[CurveItem, Sample]] = []
        for item in self._items.values():
            if item.is_visible and item.key in self._curves.series:
                series = self._curves.best(item.key, view)
                sample = series.sample_at(x, self._options.axis, self._curves.scale)
                if sample is not None:
                    found.append((item, sample))
        return found

    def _nearest_curve(self, position: QPointF) -> str | None:
        if len(self._items) < 2:
            return None
        at = self._box.mapSceneToView(position)
        x = 10.0 ** at.x() if self._options.log_x else at.x()
        height = self._box.viewPixelSize()[1] or 1.0
        best: tuple[float, str | None] = (_HIGHLIGHT_PIXELS, None)
        for item, sample in self._samples_at(float(x)):
            value = sample.value if sample.smooth is None else sample.smooth
            y = math.log10(value) if self._options.log_y and value > 0 else value
            distance = abs(y - at.y()) / height
            if distance < best[0]:
                best = (distance, item.key)
        return best[1]

    def _show_tooltip(self, x: float) -> None:
        samples = self._samples_at(x)
        if not samples:
            self._tooltip.hide()
            return
        nearest = min(samples, key=lambda pair: abs(pair[1].x - x))[1]
        samples.sort(key=lambda pair: _order(pair[1].value))
        rows = [self._tooltip_row(item, sample) for item, sample in samples[:_MAX_TOOLTIP_ROWS]]
        hidden = len(samples) - len(rows)
        heading = position_text(nearest.x, self._options.axis)
        at = self._canvas.mapFromScene(self._box.mapViewToScene(QPointF(self._line.value(), 0.0)))
        self._tooltip.show_at(QPoint(int(at.x()), 0), heading, rows, hidden, self._marker_text(x))

    def _tooltip_row(self, item: CurveItem, sample: Sample) -> TooltipRow:
        smooth = "" if sample.smooth is None else value_text(sample.smooth, self.plan.unit)
        return TooltipRow(
            colour=item.colour,
            name=curve_label(item.key),
            value=value_text(sample.value, self.plan.unit),
            smooth=smooth,
            is_pointed=item.key == self._pointed_key,
        )

    def _marker_text(self, x: float) -> str:
        if not self._options.shows_markers:
            return ""
        first, last = self._x_range or self._full_range()
        reach = (last - first) / max(self._box.width(), 80.0) * 5
        near = [m for m in self._markers if (at := self._marker_x(m)) is not None and abs(at - x) <= reach]
        return "\n".join(event_text(marker)[:160] for marker in near[:3])


def _order(value: float) -> float:
    return math.inf if math.isnan(value) else -value
