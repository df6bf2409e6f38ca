"""The legend of a chart: one chip a curve with its colour, name and latest value; click hides, double click isolates."""

from __future__ import annotations

from PySide6.QtCore import QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QMouseEvent, QPainter, QPaintEvent, QResizeEvent, QWheelEvent
from PySide6.QtWidgets import QAbstractButton, QScrollArea, QSizePolicy, QWidget

from app.views.theme import theme
from app.views.widgets.flow_layout import FlowLayout

_HEIGHT = 22
_DOT = 8
_MAX_NAME_WIDTH = 220
_MAX_ROWS = 3
_SPACING = 2


class LegendChip(QAbstractButton):
    """A curve's entry. Checked means shown.

    Signals:
        isolated: Double-clicked: show this curve only, or all again.
        pointed: The mouse entered (True) or left (False).
    """

    isolated = Signal()
    pointed = Signal(bool)

    def __init__(self, name: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setCheckable(True)
        self.setChecked(True)
        self.setText(name)
        self.setAccessibleName(f"Curve {name}")
        self.setToolTip(f"{name}\nClick to hide or show, double-click to show it alone.")
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self._colour = "#000000"
        self._value = ""

    def set_colour(self, colour: str) -> None:
        """Choose the colour of the dot."""
        self._colour = colour
        self.update()

    def set_value(self, text: str) -> None:
        """Show the latest value."""
        if text != self._value:
            grew = len(text) != len(self._value)
            self._value = text
            if grew:
                self.updateGeometry()
            self.update()

    def sizeHint(self) -> QSize:
        """Return room for dot, name and value."""
        metrics = self.fontMetrics()
        name = min(metrics.horizontalAdvance(self.text()), _MAX_NAME_WIDTH)
        value = metrics.horizontalAdvance(self._value) + 6 if self._value else 0
        return QSize(_DOT + 18 + name + value, _HEIGHT)

    def paintEvent(self, e: QPaintEvent) -> None:
        """Paint dot, name and value."""
        del e
        tokens = theme()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        if self.underMouse() or self.hasFocus():
            painter.setPen(QColor(tokens.accent) if self.hasFocus() else Qt.PenStyle.NoPen)
            painter.setBrush(QColor(tokens.hover))
            painter.drawRoundedRect(QRectF(self.rect()).adjusted(0.5, 0.5, -0.5, -0.5), 5, 5)
        dot = QRectF(6, (self.height() - _DOT) / 2, _DOT, _DOT)
        painter.setPen(QColor(self._colour))
        painter.setBrush(QColor(self._colour) if self.isChecked() else Qt.BrushStyle.NoBrush)
        painter.drawEllipse(dot)
        metrics = self.fontMetrics()
        name = metrics.elidedText(self.text(), Qt.TextElideMode.ElideMiddle, _MAX_NAME_WIDTH)
        painter.setPen(QColor(tokens.text_muted if self.isChecked() else tokens.text_faint))
        left = _DOT + 12
        painter.drawText(QRectF(left, 0, self.width() - left, self.height()), Qt.AlignmentFlag.AlignVCenter, name)
        if self._value:
            painter.setPen(QColor(tokens.text if self.isChecked() else tokens.text_faint))
            left += metrics.horizontalAdvance(name) + 6
            painter.drawText(
                QRectF(left, 0, self.width() - left, self.height()), Qt.AlignmentFlag.AlignVCenter, self._value
            )

    def mouseDoubleClickEvent(self, e: QMouseEvent) -> None:
        """Ask to be shown alone."""
        self.isolated.emit()
        e.accept()

    def enterEvent(self, event: object) -> None:
        """Tell that the mouse is over the chip."""
        del event
        self.pointed.emit(True)
        self.update()

    def leaveEvent(self, event: object) -> None:
        """Tell that the mouse has left."""
        del event
        self.pointed.emit(False)
        self.update()


class LegendArea(QScrollArea):
    """Holds a legend: as high as its rows, three rows at most."""

    def resizeEvent(self, arg__1: QResizeEvent) -> None:
        """Fit the height to the width."""
        super().resizeEvent(arg__1)
        self.fit()

    def fit(self) -> None:
        """Take the height that the chips need at this width."""
        legend = self.widget()
        if legend is not None:
            rows = legend.heightForWidth(self.width())
            self.setFixedHeight(max(_HEIGHT, min(rows, _MAX_ROWS * (_HEIGHT + _SPACING))))

    def wheelEvent(self, arg__1: QWheelEvent) -> None:
        """Scroll the page where the legend itself has nothing to scroll."""
        if self.verticalScrollBar().maximum() == 0:
            arg__1.ignore()
        else:
            super().wheelEvent(arg__1)


class PlotLegend(QWidget):
    """Chips in rows.

    Signals:
        toggled: Keys (frozenset) that are shown now.
        pointed: Key pointed at, or None.
    """

    toggled = Signal(object)
    pointed = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._chips: dict[str, LegendChip] = {}
        self._flow = FlowLayout(self, spacing=_SPACING)

    def set_keys(self, labels: dict[str, str]) -> None:
        """Show a chip for each key; chips that stay keep their state."""
        for key in [key for key in self._chips if key not in labels]:
            chip = self._chips.pop(key)
            self._flow.removeWidget(chip)
            chip.deleteLater()
        for key, label in labels.items():
            if key not in self._chips:
                self._add(key, label)
        self._refit()

    def chip(self, key: str) -> LegendChip:
        """Return a curve's chip."""
        return self._chips[key]

    def shown(self) -> frozenset[str]:
        """Return the keys that are shown."""
        return frozenset(key for key, chip in self._chips.items() if chip.isChecked())

    def _add(self, key: str, label: str) -> None:
        chip = LegendChip(label, self)
        chip.clicked.connect(lambda: self.toggled.emit(self.shown()))
        chip.isolated.connect(lambda: self._isolate(key))
        chip.pointed.connect(lambda inside: self.pointed.emit(key if inside else None))
        self._chips[key] = chip
        self._flow.addWidget(chip)

    def _refit(self) -> None:
        viewport = self.parentWidget()
        area = viewport.parentWidget() if viewport is not None else None
        if isinstance(area, LegendArea):
            area.fit()

    def _isolate(self, key: str) -> None:
        is_alone = self.shown() <= {key}
        for other, chip in self._chips.items():
            chip.setChecked(is_alone or other == key)
        self.toggled.emit(self.shown())
