"""How trials and axes of parallel coordinates are painted: colours by rank, titles, ticks, and the range that is kept."""

from __future__ import annotations

import math
from dataclasses import dataclass

from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QColor, QFontMetrics, QPainter, QPen

from app.viewmodels.sweep_axes import SweepAxis
from app.views.theme import theme

_TICK_APART = 15.0
_TICK = 3.0
_GAP = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisFrame:
    """Where and how one axis stands, in pixels.

    Attributes:
        x: Its place.
        top: Its upper end.
        bottom: Its lower end.
        title_width: Room of its title.
        tick_width: Room of the words at its ticks.
        is_last: Its words stand to the right.
        is_active: The keyboard is at it.
        brush: The range that is kept, as positions from 0 to 1.
    """

    x: float
    top: float
    bottom: float
    title_width: float
    tick_width: float
    is_last: bool
    is_active: bool
    brush: tuple[float, float] | None

    def y(self, position: float) -> float:
        """Return where a position from 0 to 1 is."""
        return self.bottom - position * (self.bottom - self.top)


def _mixed(low: QColor, high: QColor, share: float) -> QColor:
    def between(a: float, b: float) -> float:
        return a + (b - a) * share

    return QColor.fromRgbF(
        between(low.redF(), high.redF()), between(low.greenF(), high.greenF()), between(low.blueF(), high.blueF())
    )


def scale_colour(goodness: float) -> QColor:
    """Return the colour of a trial by its rank: from faint (0) to strong (1) in the theme's scale."""
    steps = [QColor(colour) for colour in theme().heat[1:]]
    place = min(max(goodness, 0.0), 1.0) * (len(steps) - 1)
    lower = min(int(place), len(steps) - 2)
    return _mixed(steps[lower], steps[lower + 1], place - lower)


def line_pen(goodness: float, *, is_thin: bool) -> QPen:
    """Return how the line of a trial is drawn; dotted where there is no value to rank it by."""
    if math.isnan(goodness):
        return QPen(QColor(theme().text_faint), 1.0, Qt.PenStyle.DotLine)
    return QPen(scale_colour(goodness), 0.0 if is_thin else 1.0 + 0.8 * goodness)


def paint_axis(painter: QPainter, axis: SweepAxis, frame: AxisFrame) -> None:
    """Paint an axis with its title, its range and its ticks."""
    tokens = theme()
    colour, width = (tokens.accent, 2.0) if frame.is_active else (tokens.border_strong, 1.2)
    painter.setPen(QPen(QColor(colour), width))
    painter.drawLine(QPointF(frame.x, frame.top), QPointF(frame.x, frame.bottom))
    _paint_brush(painter, frame)
    painter.setPen(QColor(tokens.text if not axis.path or frame.is_active else tokens.text_muted))
    title = painter.fontMetrics().elidedText(axis.title, Qt.TextElideMode.ElideRight, int(frame.title_width))
    box = QRectF(frame.x - frame.title_width / 2, 4, frame.title_width, 22)
    painter.drawText(box, Qt.AlignmentFlag.AlignCenter, title)
    _paint_ticks(painter, axis, frame)


def _paint_brush(painter: QPainter, frame: AxisFrame) -> None:
    if frame.brush is None:
        return
    low, high = frame.brush
    box = QRectF(frame.x - 5, frame.y(high), 10, max(frame.y(low) - frame.y(high), 2))
    colour = QColor(theme().accent)
    painter.setPen(QPen(colour, 1.2))
    colour.setAlpha(70)
    painter.fillRect(box, colour)
    painter.drawRect(box)


def _paint_ticks(painter: QPainter, axis: SweepAxis, frame: AxisFrame) -> None:
    """Write the values beside an axis, each on a patch of the background so that lines do not cross them out."""
    tokens, metrics = theme(), QFontMetrics(painter.font())
    patch = QColor(tokens.plot_background)
    patch.setAlpha(215)
    side = Qt.AlignmentFlag.AlignLeft if frame.is_last else Qt.AlignmentFlag.AlignRight
    drawn: list[float] = []
    for position, text in axis.ticks:
        y = frame.y(position)
        if any(abs(y - other) < _TICK_APART for other in drawn):
            continue
        drawn.append(y)
        width = min(float(metrics.horizontalAdvance(text)) + 4, frame.tick_width)
        box = QRectF(frame.x + _GAP if frame.is_last else frame.x - _GAP - width, y - 8, width, 16)
        painter.fillRect(box, patch)
        painter.setPen(QColor(tokens.plot_axis))
        shown = metrics.elidedText(text, Qt.TextElideMode.ElideRight, int(width))
        painter.drawText(box, side | Qt.AlignmentFlag.AlignVCenter, shown)
        painter.setPen(QPen(QColor(tokens.border_strong), 1.2))
        painter.drawLine(QPointF(frame.x - _TICK, y), QPointF(frame.x + _TICK, y))
