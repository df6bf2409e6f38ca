"""A heat map: one cell per processor core (or GPU), coloured by how busy it is, with the number in the tooltip."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QEvent, QPoint, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QHelpEvent, QPainter, QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QToolTip, QWidget

from app.views.theme import theme

_GAP = 3
_MIN_CELL = 10
_MAX_CELL = 22


class HeatMap(QWidget):
    """Cells for percentages from 0 to 100; None is drawn as an empty cell."""

    def __init__(self, name: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._name = name
        self._percents: list[float | None] = []
        policy = QSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        policy.setHeightForWidth(True)
        self.setSizePolicy(policy)
        self.setMouseTracking(True)
        self.setAccessibleName(f"{name} heat map")

    def set_percents(self, percents: Sequence[float | None]) -> None:
        """Show how busy each of them is."""
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
            share = min(max((percent or 0.0) / 100, 0.0), 1.0)
            painter.setBrush(colours[min(int(share * len(colours)), len(colours) - 1)])
            painter.drawRoundedRect(self._cell_box(index, cell, columns), 3, 3)
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
                QToolTip.showText(event.globalPos(), f"{self._name} {index}: {reading}", self)
                return True
        return super().event(event)
