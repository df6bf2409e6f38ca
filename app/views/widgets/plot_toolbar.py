"""The tool bar over the charts: axis, smoothing, logarithmic axes, outliers, markers, and a filter box."""

from __future__ import annotations

from dataclasses import replace

from PySide6.QtCore import QSignalBlocker, Qt, QTimer, Signal
from PySide6.QtWidgets import QButtonGroup, QCheckBox, QHBoxLayout, QLabel, QLineEdit, QPushButton, QSlider, QWidget

from app.viewmodels.metric_series import Axis
from app.viewmodels.plot_options import PlotOptions
from app.views.icons import icon
from app.views.theme import SPACE, set_kind, set_role

_AXES = (
    (Axis.STEP, "Step", "Horizontal axis: training steps"),
    (Axis.RELATIVE, "Time", "Horizontal axis: time since the start of the run"),
    (Axis.WALL, "Clock", "Horizontal axis: date and time of day"),
)
_SLIDER_STEPS = 100
_MAX_WEIGHT = 0.999


def weight_of(position: int) -> float:
    """Return the smoothing weight of a slider position: fine near 1, where it matters most."""
    share = position / _SLIDER_STEPS
    return _MAX_WEIGHT * (1.0 - (1.0 - share) ** 2)


def position_of(weight: float) -> int:
    """Return the slider position of a smoothing weight."""
    return round((1.0 - max(1.0 - weight / _MAX_WEIGHT, 0.0) ** 0.5) * _SLIDER_STEPS)


class PlotToolbar(QWidget):
    """One row of choices.

    Signals:
        options_changed: The new ``PlotOptions``.
        filter_changed: The words to filter charts by.
    """

    options_changed = Signal(object)
    filter_changed = Signal(object)

    def __init__(self, options: PlotOptions, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._options = options
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(SPACE.s)
        self._build_filter(layout)
        layout.addStretch(1)
        self._build_smoothing(layout)
        layout.addSpacing(SPACE.s)
        self._build_axes(layout)
        layout.addSpacing(SPACE.s)
        self._log_x = self._toggle(layout, "Log X", "Logarithmic horizontal axis")
        self._log_y = self._toggle(layout, "Log Y", "Logarithmic vertical axis; values at or below 0 are left out")
        self._clip = self._toggle(
            layout, "Clip outliers", "Scale the vertical axis to the inner 98 % of the points in view"
        )
        self._marks = self._toggle(layout, "Markers", "Checkpoints, restarts and stability events")
        self.set_options(options)

    def set_options(self, options: PlotOptions) -> None:
        """Show these choices."""
        self._options = options
        for axis, button in self._axis_buttons.items():
            button.setChecked(axis is options.axis)
        with QSignalBlocker(self._slider):
            self._slider.setValue(position_of(options.smoothing))
        self._show_weight(options.smoothing)
        for box, on in (
            (self._log_x, options.log_x and options.axis is not Axis.WALL),
            (self._log_y, options.log_y),
            (self._clip, options.clips_outliers),
            (self._marks, options.shows_markers),
        ):
            with QSignalBlocker(box):
                box.setChecked(on)
        self._log_x.setEnabled(options.axis is not Axis.WALL)

    def _build_filter(self, layout: QHBoxLayout) -> None:
        self.filter = QLineEdit()
        self.filter.setObjectName("curve_filter")
        self.filter.setPlaceholderText("Filter curves")
        self.filter.setAccessibleName("Filter curves")
        self.filter.setClearButtonEnabled(True)
        self.filter.addAction(icon("search"), QLineEdit.ActionPosition.LeadingPosition)
        self.filter.setMaximumWidth(240)
        self._filter_delay = QTimer(self, interval=200, singleShot=True)
        self.filter.textChanged.connect(lambda _: self._filter_delay.start())
        self._filter_delay.timeout.connect(lambda: self.filter_changed.emit(self.filter.text()))
        layout.addWidget(self.filter, 1)

    def _build_smoothing(self, layout: QHBoxLayout) -> None:
        caption = QLabel("Smoothing")
        set_kind(caption, "caption")
        self._slider = QSlider(Qt.Orientation.Horizontal)
        self._slider.setObjectName("smoothing")
        self._slider.setRange(0, _SLIDER_STEPS)
        self._slider.setFixedWidth(110)
        self._slider.setAccessibleName("Smoothing")
        self._slider.setToolTip(
            "Debiased exponential moving average over all samples; the raw curve stays faintly visible."
        )
        self._weight = QLabel()
        set_kind(self._weight, "caption")
        self._weight.setFixedWidth(38)
        self._slide_delay = QTimer(self, interval=60, singleShot=True)
        self._slider.valueChanged.connect(self._on_slid)
        self._slide_delay.timeout.connect(self._emit_smoothing)
        for widget in (caption, self._slider, self._weight):
            layout.addWidget(widget)

    def _build_axes(self, layout: QHBoxLayout) -> None:
        row = QHBoxLayout()
        row.setSpacing(0)
        group = QButtonGroup(self)
        self._axis_buttons: dict[Axis, QPushButton] = {}
        for axis, label, tip in _AXES:
            button = QPushButton(label)
            button.setCheckable(True)
            button.setToolTip(tip)
            button.setAccessibleName(tip)
            button.setObjectName(f"axis_{axis.value}")
            set_role(button, "ghost")
            group.addButton(button)
            button.clicked.connect(lambda _=False, axis=axis: self._change(replace(self._options, axis=axis)))
            self._axis_buttons[axis] = button
            row.addWidget(button)
        layout.addLayout(row)

    def _toggle(self, layout: QHBoxLayout, label: str, tip: str) -> QCheckBox:
        box = QCheckBox(label)
        box.setToolTip(tip)
        box.toggled.connect(self._on_toggled)
        layout.addWidget(box)
        return box

    def _on_toggled(self) -> None:
        self._change(
            replace(
                self._options,
                log_x=self._log_x.isChecked() and self._options.axis is not Axis.WALL,
                log_y=self._log_y.isChecked(),
                clips_outliers=self._clip.isChecked(),
                shows_markers=self._marks.isChecked(),
            )
        )

    def _on_slid(self, position: int) -> None:
        self._show_weight(weight_of(position))
        self._slide_delay.start()

    def _emit_smoothing(self) -> None:
        self._change(replace(self._options, smoothing=weight_of(self._slider.value())))

    def _show_weight(self, weight: float) -> None:
        self._weight.setText("off" if weight <= 0 else f"{weight:.3f}".rstrip("0"))

    def _change(self, options: PlotOptions) -> None:
        if options.axis is Axis.WALL:
            options = replace(options, log_x=False)
        self._options = options
        self.options_changed.emit(options)
