"""The small panel beside the crosshair: position, and the values of all curves there, largest first."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import QPoint, QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QPainter, QPaintEvent
from PySide6.QtWidgets import QWidget

from app.views.theme import theme

_ROW = 19
_PAD = 10
_GAP = 14
_MAX_NAME = 210


@dataclass(frozen=True, slots=True, kw_only=True)
class TooltipRow:
    """One curve's value at the crosshair; ``smooth`` is empty without smoothing."""

    colour: str
    name: str
    value: str
    smooth: str = ""
    is_pointed: bool = False


class PlotTooltip(QWidget):
    """Painted by hand over the chart: laying out labels at every mouse move would cost more than the curves."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self._chart = parent
        self._heading = ""
        self._rows: list[TooltipRow] = []
        self._footer: list[str] = []
        self.hide()

    @property
    def rows(self) -> list[TooltipRow]:
        """Return the values shown."""
        return self._rows

    def show_at(self, at: QPoint, heading: str, rows: list[TooltipRow], num_hidden: int, note: str) -> None:
        """Show values beside a position of the chart, on the side with more room."""
        self._heading, self._rows = heading, rows
        self._footer = [f"and {num_hidden} more"] if num_hidden else []
        self._footer += note.splitlines()
        self.resize(self._wanted_size())
        area = self._chart.rect()
        right = at.x() + _GAP
        left = at.x() - _GAP - self.width()
        x = right if right + self.width() <= area.right() or left < 0 else left
        self.move(max(min(x, area.right() - self.width()), 0), 8)
        self.show()
        self.raise_()
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Paint the panel."""
        del event
        tokens = theme()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        background = QColor(tokens.raised)
        background.setAlpha(244)
        painter.setPen(QColor(tokens.border_strong))
        painter.setBrush(background)
        painter.drawRoundedRect(QRectF(self.rect()).adjusted(0.5, 0.5, -0.5, -0.5), 6, 6)
        painter.setPen(QColor(tokens.text_muted))
        painter.drawText(QRectF(_PAD, 4, self.width() - 2 * _PAD, _ROW), Qt.AlignmentFlag.AlignVCenter, self._heading)
        y = 4.0 + _ROW
        for row in self._rows:
            self._paint_row(painter, row, y)
            y += _ROW
        painter.setPen(QColor(tokens.text_muted))
        for line in self._footer:
            text = self.fontMetrics().elidedText(line, Qt.TextElideMode.ElideRight, self.width() - 2 * _PAD)
            painter.drawText(QRectF(_PAD, y, self.width() - 2 * _PAD, _ROW), Qt.AlignmentFlag.AlignVCenter, text)
            y += _ROW

    def _paint_row(self, painter: QPainter, row: TooltipRow, y: float) -> None:
        tokens = theme()
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(row.colour))
        painter.drawEllipse(QPointF(_PAD + 4.0, y + _ROW / 2), 4.0, 4.0)
        font = painter.font()
        font.setBold(row.is_pointed)
        painter.setFont(font)
        name = self.fontMetrics().elidedText(row.name, Qt.TextElideMode.ElideMiddle, _MAX_NAME)
        painter.setPen(QColor(tokens.text if row.is_pointed else tokens.text_muted))
        painter.drawText(QRectF(_PAD + 14, y, self.width(), _ROW), Qt.AlignmentFlag.AlignVCenter, name)
        painter.setPen(QColor(tokens.text))
        right = Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignRight
        painter.drawText(QRectF(0, y, self.width() - _PAD, _ROW), right, _value(row))
        font.setBold(False)
        painter.setFont(font)

    def _wanted_size(self) -> QSize:
        metrics = self.fontMetrics()
        widest = max((self._row_width(row) for row in self._rows), default=0)
        footer = max((min(metrics.horizontalAdvance(line), 280) for line in self._footer), default=0)
        width = max(widest, footer, metrics.horizontalAdvance(self._heading)) + 2 * _PAD + 4
        return QSize(width, 8 + _ROW * (1 + len(self._rows) + len(self._footer)))

    def _row_width(self, row: TooltipRow) -> int:
        metrics = self.fontMetrics()
        name = min(metrics.horizontalAdvance(row.name), _MAX_NAME)
        return 14 + round(name * 1.08) + _GAP + round(metrics.horizontalAdvance(_value(row)) * 1.08)


def _value(row: TooltipRow) -> str:
    return f"{row.smooth}  ({row.value})" if row.smooth else row.value
