"""A small curve without axes, painted by hand: cheap enough for one per card and status field."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PySide6.QtCore import QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QLinearGradient, QPainter, QPainterPath, QPaintEvent, QPen
from PySide6.QtWidgets import QSizePolicy, QWidget

from app.views.theme import theme


class Sparkline(QWidget):
    """Shows the run of a value; gaps where a value is unknown or not finite."""

    def __init__(
        self,
        *,
        colour: str = "accent",
        bounds: tuple[float, float] | None = None,
        size: QSize | None = None,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._values: list[float | None] = []
        self._colour = colour
        self._bounds = bounds
        self._size = size or QSize(120, 40)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setMinimumSize(24, self._size.height())
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)

    def set_values(self, values: Sequence[float | None]) -> None:
        """Show other values, oldest first."""
        self._values = [value if value is not None and math.isfinite(value) else None for value in values]
        self.update()

    def values(self) -> list[float | None]:
        """Return what is shown."""
        return self._values

    def sizeHint(self) -> QSize:
        """Return the wanted size."""
        return self._size

    def paintEvent(self, _event: QPaintEvent) -> None:
        """Paint the curve over a soft fill."""
        known = [value for value in self._values if value is not None]
        if len(known) < 2:
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        colour = QColor(self._colour if self._colour.startswith("#") else getattr(theme(), self._colour))
        box = QRectF(self.rect()).adjusted(1, 3, -4, -3)
        for piece in self._pieces(box, known):
            _paint_piece(painter, piece, colour, box.bottom() + 3)
        painter.end()

    def _pieces(self, box: QRectF, known: list[float]) -> list[list[QPointF]]:
        low, high = self._bounds or (min(known), max(known))
        span = (high - low) or 1.0
        step = box.width() / max(len(self._values) - 1, 1)
        pieces: list[list[QPointF]] = [[]]
        for index, value in enumerate(self._values):
            if value is None:
                pieces.append([])
                continue
            share = min(max((value - low) / span, 0.0), 1.0)
            pieces[-1].append(QPointF(box.left() + index * step, box.bottom() - share * box.height()))
        return [piece for piece in pieces if len(piece) > 1]


def _paint_piece(painter: QPainter, points: list[QPointF], colour: QColor, floor: float) -> None:
    line = QPainterPath(points[0])
    for point in points[1:]:
        line.lineTo(point)
    area = QPainterPath(line)
    area.lineTo(points[-1].x(), floor)
    area.lineTo(points[0].x(), floor)
    area.closeSubpath()
    fill = QLinearGradient(0, 0, 0, floor)
    top, bottom = QColor(colour), QColor(colour)
    top.setAlphaF(0.22)
    bottom.setAlphaF(0.0)
    fill.setColorAt(0, top)
    fill.setColorAt(1, bottom)
    painter.fillPath(area, fill)
    pen = QPen(colour, 1.4)
    pen.setJoinStyle(Qt.PenJoinStyle.RoundJoin)
    painter.setPen(pen)
    painter.drawPath(line)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(colour)
    painter.drawEllipse(points[-1], 2.2, 2.2)
    painter.setBrush(Qt.BrushStyle.NoBrush)
