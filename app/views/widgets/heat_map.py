"""A heat map: one cell per processor core (or GPU), coloured by how busy it is, with the number in the tooltip."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QEvent, QPoint, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QHelpEvent, QMouseEvent, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QSizePolicy, QToolTip, QWidget

from app.views.theme import theme

_GAP = 3
_MIN_CELL = 10
_MAX_CELL = 22


class HeatMap(QWidget):
    """Cells for percentages from 0 to 100; None is drawn as an empty cell.

    Signals:
        pressed: Number of the cell (int).
    """

    pressed = Signal(int)

    def __init__(self, name: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._name = name
        self._percents: list[float | None] = []
        self._words: list[str] = []
        policy = QSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        policy.setHeightForWidth(True)
        self.setSizePolicy(policy)
        self.setMouseTracking(True)
        self.setAccessibleName(f"{name} heat map")

    def set_percents(self, percents: Sequence[float | None], words: Sequence[str] = ()) -> None:
        """Show how busy each of them is; ``words`` say more than the number in the tooltips."""
        self._words = list(words)
        grew = len(percents) != len(self._percents)
        self._percents = list(percents)
        if grew:
            self.updateGeometry()
        self.update()

    def sizeHint(self) -> QSize:
        """Return the wanted size."""
        return QSize(200, self.heightForWidth(max(self.width(), 200)))

    def heightForWidth(self, width: int) -> int:
        """Return the height of all rows at a width."""
        cell, columns = self._grid(width)
        rows = -(-max(len(self._percents), 1) // columns)
        return rows * (cell + _GAP) - _GAP

    def _grid(self, width: int) -> tuple[int, int]:
        count = max(len(self._percents), 1)
        cell = min(max(width // min(count, 32) - _GAP, _MIN_CELL), _MAX_CELL)
        return cell, max((width + _GAP) // (cell + _GAP), 1)

    def _cell_box(self, index: int, cell: int, columns: int) -> QRectF:
        pitch = cell + _GAP
        return QRectF(index % columns * pitch, index // columns * pitch, cell, cell)

    def paintEvent(self, _event: QPaintEvent) -> None:
        """Paint the cells."""
        colours = [QColor(colour) for colour in theme().heat]
        cell, columns = self._grid(self.width())
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        for index, percent in enumerate(self._percents):
            box = self._cell_box(index, cell, columns)
            if percent is None:
                painter.setPen(QPen(QColor(theme().border_strong)))
                painter.setBrush(Qt.BrushStyle.NoBrush)
                painter.drawRoundedRect(box.adjusted(0.5, 0.5, -0.5, -0.5), 3, 3)
                painter.setPen(Qt.PenStyle.NoPen)
                continue
            share = min(max(percent / 100, 0.0), 1.0)
            painter.setBrush(colours[min(int(share * len(colours)), len(colours) - 1)])
            painter.drawRoundedRect(box, 3, 3)
        painter.end()

    def index_at(self, at: QPoint) -> int | None:
        """Return the number of the cell at a point."""
        cell, columns = self._grid(self.width())
        boxes = (self._cell_box(index, cell, columns) for index in range(len(self._percents)))
        return next((index for index, box in enumerate(boxes) if box.contains(at)), None)

    def event(self, event: QEvent) -> bool:
        """Answer tooltips with the cell's number and reading."""
        if event.type() is QEvent.Type.ToolTip and isinstance(event, QHelpEvent):
            index = self.index_at(event.pos())
            if index is not None:
                percent = self._percents[index]
                reading = "not told" if percent is None else f"{percent:.0f} %"
                text = self._words[index] if index < len(self._words) else f"{self._name} {index}: {reading}"
                QToolTip.showText(event.globalPos(), text, self)
                return True
        return super().event(event)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """Tell which cell was pressed."""
        index = self.index_at(event.position().toPoint())
        if index is not None and event.button() is Qt.MouseButton.LeftButton:
            self.pressed.emit(index)
        super().mouseReleaseEvent(event)
