"""All charts of a run in a grid that fits its width, linked in their horizontal axis, drawn within a time budget.

Only charts that can be seen are made and drawn, at most 20 times a second and never longer than a fraction of a frame
at a time: what does not fit waits for the next turn of the event loop. All of them share one budget of points. Charts
of a run that is left are kept and given to the next one.
"""

from __future__ import annotations

import time
from pathlib import Path

from PySide6.QtCore import QTimer, Signal
from PySide6.QtGui import QHideEvent, QResizeEvent, QShowEvent
from PySide6.QtWidgets import QFileDialog, QFrame, QGridLayout, QScrollArea, QSizePolicy, QVBoxLayout, QWidget

from app.viewmodels.curve_set import ChartPlan, CurveSet
from app.viewmodels.metric_series import Axis
from app.viewmodels.plot_options import PlotOptions
from app.views.theme import SPACE, theme_host
from app.views.widgets.empty_state import EmptyState
from app.views.widgets.metric_plot import MetricPlot
from app.views.widgets.plot_export import save_picture
from app.views.widgets.plot_toolbar import PlotToolbar
from core.contracts.runs import MarkerRecord

FRAME_MS = 50
_SLICE_S = 0.012
_POINT_BUDGET = 24_000
_SMOOTH_SAMPLES = 60_000
_DETAIL_DELAY_MS = 180
_COLUMN_WIDTH = 430
_MAX_CHARTS = 200
_HEIGHT = 300
_EXPANDED_HEIGHT = 560
_AROUND = 0.04
"""How much of the whole range is shown on each side of a marker."""


class _Slot(QFrame):
    """The place of a chart in the grid; empty until it is looked at."""

    def __init__(self, plan: ChartPlan) -> None:
        super().__init__()
        self.plan = plan
        self.plot: MetricPlot | None = None
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)

    def put(self, plot: MetricPlot) -> None:
        """Show a chart."""
        self.plot = plot
        self._layout.addWidget(plot)
        plot.show()

    def take(self) -> MetricPlot | None:
        """Give the chart back."""
        plot, self.plot = self.plot, None
        if plot is not None:
            self._layout.removeWidget(plot)
            plot.hide()
        return plot


class CurveBoard(QWidget):
    """Tool bar and charts.

    Signals:
        details_wanted: ``list[CurveRequest]``: stretches to fetch for what is in view.
        options_changed: The new ``PlotOptions``.
        csv_wanted: ``(ChartPlan, ViewRange, keys, path)``: write the values shown.
    """

    details_wanted = Signal(object)
    options_changed = Signal(object)
    csv_wanted = Signal(object)

    def __init__(self, options: PlotOptions | None = None, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._options = options or PlotOptions()
        self._curves = CurveSet()
        self._curves.set_smoothing(self._options.smoothing)
        self._slots: dict[str, _Slot] = {}
        self._spare: list[MetricPlot] = []
        self._markers: tuple[MarkerRecord, ...] = ()
        self._expanded: str | None = None
        self._smoothing_left: set[str] = set()
        self._pattern = ""
        self._x_range: tuple[float, float] | None = None
        self._columns = 0
        self._build()
        self._frame = QTimer(self, interval=FRAME_MS, singleShot=True)
        self._frame.timeout.connect(self._on_frame)
        self._detail = QTimer(self, interval=_DETAIL_DELAY_MS, singleShot=True)
        self._detail.timeout.connect(self._ask_for_details)
        theme_host().changed.connect(self._on_theme_changed)

    @property
    def curves(self) -> CurveSet:
        """Return the curves on the board."""
        return self._curves

    @property
    def plots(self) -> tuple[MetricPlot, ...]:
        """Return the charts that were made so far, in order."""
        return tuple(slot.plot for slot in self._slots.values() if slot.plot is not None)

    @property
    def chart_names(self) -> tuple[str, ...]:
        """Return the names of all charts in order, those not looked at yet included."""
        return tuple(self._slots)

    def set_curves(self, curves: CurveSet) -> None:
        """Show another run's curves."""
        self._curves = curves
        curves.set_smoothing(self._options.smoothing)
        for slot in self._slots.values():
            self._discard(slot)
        self._slots.clear()
        self._markers = ()
        self._expanded = None
        self._x_range = None
        self.sync_charts()

    def sync_charts(self) -> None:
        """Make a chart for every group of curves that has none yet; call after curves were declared or appeared."""
        plans = self._curves.charts(self._pattern)[:_MAX_CHARTS]
        wanted = {plan.name for plan in plans}
        for name in [name for name in self._slots if name not in wanted]:
            self._discard(self._slots.pop(name))
        slots: dict[str, _Slot] = {}
        for plan in plans:
            slot = self._slots.get(plan.name) or _Slot(plan)
            if slot.plan.keys != plan.keys:
                slot.plan = plan
                if slot.plot is not None:
                    slot.plot.set_plan(plan)
            slots[plan.name] = slot
        self._slots = slots
        self._place()
        self._empty.setVisible(not plans)
        self._empty.set_content(*self._empty_words())

    def curves_changed(self, keys: set[str]) -> None:
        """Draw anew the charts that hold one of these curves."""
        if self._options.smoothing > 0.0:
            self._smoothing_left |= keys
        for plot in self.plots:
            if not keys.isdisjoint(plot.plan.keys):
                plot.mark_dirty()

    def set_markers(self, markers: tuple[MarkerRecord, ...]) -> None:
        """Mark checkpoints, restarts and stability events in every chart of training metrics."""
        self._markers = markers
        for plot in self.plots:
            plot.set_markers(markers)

    def show_marker(self, marker: MarkerRecord) -> None:
        """Show the stretch around a marker in every chart."""
        axis = self._options.axis
        x = marker.ts if axis is Axis.WALL else marker.ts - self._curves.scale.start
        if axis is Axis.STEP:
            x = float(marker.step or 0)
        first, last = self._curves.bounds(axis)
        reach = max((last - first) * _AROUND, 20.0)
        # A logarithmic axis has no zero.
        self._x_range = (max(x - reach, 1.0 if self._options.log_x else first - 1.0), x + reach)
        for plot in self.plots:
            plot.set_x_range(self._x_range)
        self._detail.start()

    def set_options(self, options: PlotOptions) -> None:
        """Obey other choices."""
        smooths = options.smoothing != self._options.smoothing
        if (options.axis, options.log_x) != (self._options.axis, self._options.log_x):
            self._x_range = None
        self._options = options
        self._toolbar.set_options(options)
        if smooths:
            self._curves.set_smoothing(options.smoothing)
            self._smoothing_left = set(self._curves.series) if options.smoothing > 0.0 else set()
        for plot in self.plots:
            plot.set_options(options)
        self._detail.start()
        self.options_changed.emit(options)

    def set_filter(self, pattern: str) -> None:
        """Show only charts whose name or curves contain every word."""
        self._pattern = pattern
        self.sync_charts()

    def _build(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, SPACE.s, 0, 0)
        layout.setSpacing(SPACE.s)
        self._toolbar = PlotToolbar(self._options)
        self._toolbar.options_changed.connect(self.set_options)
        self._toolbar.filter_changed.connect(self.set_filter)
        layout.addWidget(self._toolbar)
        self._attic = QWidget(self)
        self._attic.hide()
        self._area = QScrollArea()
        self._area.setWidgetResizable(True)
        self._area.setFrameShape(QFrame.Shape.NoFrame)
        inner = QWidget()
        inner.setObjectName("scroll_body")
        outer = QVBoxLayout(inner)
        outer.setContentsMargins(0, 0, SPACE.s, SPACE.s)
        self._grid = QGridLayout()
        self._grid.setSpacing(SPACE.s)
        outer.addLayout(self._grid)
        self._empty = EmptyState("chart", *self._empty_words()[1:])
        outer.addWidget(self._empty)
        outer.addStretch(1)
        self._area.setWidget(inner)
        self._area.verticalScrollBar().valueChanged.connect(self._schedule)
        layout.addWidget(self._area, 1)

    def _empty_words(self) -> tuple[str, str, str]:
        if self._pattern:
            return "search", "No such curve", f"No curve's name contains “{self._pattern}”."
        return "chart", "No curves yet", "They appear here as soon as the run reports its first metric."

    def _fill(self, slot: _Slot) -> None:
        """Put a chart into a slot: a spare one, else a new one."""
        if self._spare:
            plot = self._spare.pop()
            plot.adopt(self._curves, slot.plan, self._options)
        else:
            plot = self._make_plot(slot.plan)
        plot.set_markers(self._markers)
        if self._x_range is not None:
            plot.set_x_range(self._x_range)
        slot.put(plot)

    def _make_plot(self, plan: ChartPlan) -> MetricPlot:
        plot = MetricPlot(self._curves, plan, self._options)
        plot.dirty.connect(self._schedule)
        plot.zoomed.connect(lambda x_range: self._on_zoomed(plot, x_range))
        plot.pointed.connect(lambda x: self._on_pointed(plot, x))
        plot.expand_wanted.connect(lambda: self._on_expand_wanted(plot.plan.name))
        plot.export_wanted.connect(lambda form: self._export(plot, form))
        return plot

    def _discard(self, slot: _Slot) -> None:
        plot = slot.take()
        if plot is not None:
            self._spare.append(plot)
            plot.setParent(self._attic)
        self._grid.removeWidget(slot)
        slot.hide()
        slot.deleteLater()

    def _place(self) -> None:
        for slot in self._slots.values():
            self._grid.removeWidget(slot)
        columns = self._fitting_columns()
        for column in range(max(self._grid.columnCount(), columns)):
            self._grid.setColumnStretch(column, 1 if column < columns else 0)
        self._columns = columns
        row, column = 0, 0
        for name, slot in self._slots.items():
            is_wide = name == self._expanded
            slot.setFixedHeight(_EXPANDED_HEIGHT if is_wide else _HEIGHT)
            if is_wide and column:
                row, column = row + 1, 0
            self._grid.addWidget(slot, row, column, 1, columns if is_wide else 1)
            slot.show()
            column += columns if is_wide else 1
            if column >= columns:
                row, column = row + 1, 0
        self._schedule()

    def _fitting_columns(self) -> int:
        return max(1, min(4, self.width() // _COLUMN_WIDTH, max(len(self._slots), 1)))

    def _schedule(self, *_: object) -> None:
        if not self._frame.isActive() and self.isVisible():
            self._frame.start(FRAME_MS)

    def _visible_plots(self) -> list[MetricPlot]:
        return [plot for plot in self.plots if not plot.visibleRegion().isEmpty()]

    def _on_frame(self) -> None:
        began = time.perf_counter()
        lacking = [slot for slot in self._slots.values() if slot.plot is None and not slot.visibleRegion().isEmpty()]
        for slot in lacking[:1]:
            self._fill(slot)
        visible = self._visible_plots()
        self._smooth(visible, began)
        num_curves = max(sum(len(plot.shown_keys()) for plot in visible), 1)
        for plot in visible:
            if plot.is_dirty:
                plot.refresh(_POINT_BUDGET // num_curves)
                if time.perf_counter() - began > _SLICE_S:
                    break
        if any(plot.is_dirty for plot in visible) or self._smoothing_left or len(lacking) > 1:
            self._frame.start(1)

    def _smooth(self, visible: list[MetricPlot], began: float) -> None:
        """Smooth what is in view, a slice at a time; a chart shows what is smoothed so far."""
        wanted = {key for plot in visible for key in plot.plan.keys} & self._smoothing_left
        for plot in visible:
            for key in wanted.intersection(plot.plan.keys):
                if self._curves.series[key].advance_smoothing(_SMOOTH_SAMPLES):
                    self._smoothing_left.discard(key)
                plot.is_dirty = True
                if time.perf_counter() - began > _SLICE_S:
                    return
        # What is out of view is smoothed when it comes into view: scrolling schedules a frame.
        if not wanted:
            self._smoothing_left -= {key for key in self._smoothing_left if key not in self._curves.series}

    def _ask_for_details(self) -> None:
        requests = [request for plot in self._visible_plots() for request in plot.requests()]
        if requests:
            self.details_wanted.emit(requests)

    def _on_zoomed(self, source: MetricPlot, x_range: tuple[float, float] | None) -> None:
        self._x_range = x_range
        for plot in self.plots:
            if plot is not source:
                plot.set_x_range(x_range)
        self._detail.start()

    def _on_pointed(self, source: MetricPlot, x: float | None) -> None:
        for plot in self._visible_plots():
            plot.point_at(x, shows_values=plot is source)

    def _on_expand_wanted(self, name: str) -> None:
        self._expanded = None if self._expanded == name else name
        self._place()

    def _export(self, plot: MetricPlot, form: str) -> None:
        words = {"png": "PNG picture (*.png)", "svg": "SVG drawing (*.svg)", "csv": "CSV table (*.csv)"}
        name = "".join(c if c.isalnum() else "_" for c in plot.plan.name)
        chosen, _ = QFileDialog.getSaveFileName(self, "Export chart", f"{name}.{form}", words[form])
        if not chosen:
            return
        path = Path(chosen)
        if form == "csv":
            self.csv_wanted.emit((plot.plan, plot.view_range(4000), plot.shown_keys(), path))
        else:
            save_picture(plot, path, form)

    def _on_theme_changed(self, _: object) -> None:
        for plot in self.plots:
            plot.recolour()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Choose the number of columns anew."""
        super().resizeEvent(event)
        if self._fitting_columns() != self._columns:
            self._place()
        self._schedule()

    def showEvent(self, event: QShowEvent) -> None:
        """Draw what became stale while hidden."""
        super().showEvent(event)
        self._schedule()

    def hideEvent(self, event: QHideEvent) -> None:
        """Draw nothing while hidden."""
        super().hideEvent(event)
        self._frame.stop()
