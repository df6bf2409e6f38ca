"""A picture of a parallel layout: a row for each data rank, a column for each pipeline rank, in it the ranks that share it.

Colour tells the part of the layers, its shade the part of the matrices. What does not fit is left out and counted in words: a
layout of 4096 ranks draws no more than one of a hundred.
"""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import QEvent, QPoint, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QFont, QHelpEvent, QPainter, QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QToolTip, QWidget

from app.viewmodels.rank_layout import RankLayout, RankPlace
from app.views.theme import theme, theme_host

_GAP = 3
_GROUP_GAP = 12
_LABEL_WIDTH = 58
_TOP = 20
_CELL_HEIGHT = 26
_MIN_CELL = 12
_NUMBER_CELL = 24
_MAX_CELL = 46
_MAX_ROWS = 8
_MAX_STAGES = 16
_MAX_IN_STAGE = 16


@dataclass(frozen=True, slots=True)
class _Shown:
    """How much of the layout is drawn."""

    rows: int
    stages: int
    in_stage: int
    cell: float


class LayoutPicture(QWidget):
    """The picture. Tooltips say what a rank holds."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.layout_shown = RankLayout()
        self.setObjectName("layout_picture")
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        theme_host().changed.connect(self._on_theme)

    def show_layout(self, layout: RankLayout) -> None:
        """Draw another layout."""
        self.layout_shown = layout
        self.setVisible(layout.divides)
        self.setAccessibleName(layout.sentence())
        self.setFixedHeight(self.sizeHint().height())
        self.update()

    def sizeHint(self) -> QSize:
        """Return the height that the shown rows need."""
        shown = self._shown()
        more = 18 if self.left_out() else 0
        return QSize(360, _TOP + shown.rows * (_CELL_HEIGHT + _GAP) + more)

    def left_out(self) -> str:
        """Return what is not drawn, in words; empty when all is."""
        layout, shown = self.layout_shown, self._shown()
        named = (
            (layout.data - shown.rows, "data rank"),
            (layout.pipeline - shown.stages, "pipeline rank"),
            (layout.context * layout.tensor - shown.in_stage, "rank of each of these"),
        )
        words = [f"{count} more {_plural(name, count)}" for count, name in named if count > 0]
        return f"and {', '.join(words)}" if words else ""

    def rank_at(self, at: QPoint) -> RankPlace | None:
        """Return the rank drawn at a point."""
        return next((place for place, box in self._boxes() if box.contains(at)), None)

    def paintEvent(self, _event: QPaintEvent) -> None:
        """Paint the ranks, the stages above them and the data ranks beside them."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        font = QFont(self.font())
        font.setPixelSize(11)
        painter.setFont(font)
        shown = self._shown()
        self._paint_labels(painter, shown)
        for place, box in self._boxes():
            colour = self._colour(place)
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(colour)
            painter.drawRoundedRect(box, 4, 4)
            if shown.cell >= _NUMBER_CELL:
                painter.setPen(QColor("#FFFFFF" if colour.lightnessF() < 0.55 else "#10141C"))
                painter.drawText(box, Qt.AlignmentFlag.AlignCenter, str(place.rank))
        painter.end()

    def event(self, event: QEvent) -> bool:
        """Answer tooltips with what the rank holds."""
        if event.type() is QEvent.Type.ToolTip and isinstance(event, QHelpEvent):
            place = self.rank_at(event.pos())
            if place is not None:
                QToolTip.showText(event.globalPos(), self.layout_shown.tooltip(place), self)
                return True
        return super().event(event)

    def _paint_labels(self, painter: QPainter, shown: _Shown) -> None:
        layout = self.layout_shown
        painter.setPen(QColor(theme().text_muted))
        left = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
        if layout.pipeline > 1:
            for stage in range(shown.stages):
                box = self._box(shown, 0, stage, 0)
                width = shown.in_stage * (shown.cell + _GAP) + _GROUP_GAP
                text = painter.fontMetrics().elidedText(
                    f"pipeline {stage + 1}", Qt.TextElideMode.ElideNone, round(width)
                )
                wide = painter.fontMetrics().horizontalAdvance(text) <= width
                painter.drawText(QRectF(box.left(), 0, width, _TOP - 4), left, text if wide else str(stage + 1))
        if layout.data > 1:
            for row in range(shown.rows):
                box = self._box(shown, row, 0, 0)
                painter.drawText(QRectF(0, box.top(), _LABEL_WIDTH, _CELL_HEIGHT), left, f"data {row + 1}")
        if left_out := self.left_out():
            painter.drawText(QRectF(0, self.height() - 18, self.width(), 18), left, left_out)

    def _shown(self) -> _Shown:
        layout = self.layout_shown
        rows = min(max(layout.data, 1), _MAX_ROWS)
        stages = min(layout.pipeline, _MAX_STAGES)
        in_stage = min(layout.context * layout.tensor, _MAX_IN_STAGE)
        room = max(self.width() - self._left(), 120)
        while True:
            per_rank = (room - stages * _GROUP_GAP) / (stages * in_stage) - _GAP
            if per_rank >= _MIN_CELL or (stages == 1 and in_stage == 1):
                break
            if in_stage > stages:
                in_stage = max(in_stage // 2, 1)
            else:
                stages = max(stages // 2, 1)
        return _Shown(rows=rows, stages=stages, in_stage=in_stage, cell=min(max(per_rank, _MIN_CELL), _MAX_CELL))

    def _left(self) -> int:
        return _LABEL_WIDTH if self.layout_shown.data > 1 else 0

    def _box(self, shown: _Shown, row: int, stage: int, inner: int) -> QRectF:
        group = shown.in_stage * (shown.cell + _GAP) - _GAP + _GROUP_GAP
        left = self._left() + stage * group + inner * (shown.cell + _GAP)
        return QRectF(left, _TOP + row * (_CELL_HEIGHT + _GAP), shown.cell, _CELL_HEIGHT)

    def _boxes(self) -> list[tuple[RankPlace, QRectF]]:
        layout, shown = self.layout_shown, self._shown()
        return [
            (layout.place(row, stage, *divmod(inner, layout.tensor)), self._box(shown, row, stage, inner))
            for row in range(shown.rows)
            for stage in range(shown.stages)
            for inner in range(shown.in_stage)
        ]

    def _colour(self, place: RankPlace) -> QColor:
        colour = QColor(theme().curve(place.stage))
        parts = self.layout_shown.tensor * self.layout_shown.context
        if parts > 1:
            part = place.context * self.layout_shown.tensor + place.tensor
            colour = _mixed(colour, QColor(theme().surface), 0.6 * part / (parts - 1))
        return colour

    def _on_theme(self) -> None:
        self.update()


def _mixed(colour: QColor, other: QColor, share: float) -> QColor:
    """Return a colour mixed with a share of another one: it pales on light and darkens on dark, and never turns white."""
    ends = ((colour.redF(), other.redF()), (colour.greenF(), other.greenF()), (colour.blueF(), other.blueF()))
    return QColor.fromRgbF(*(one + (two - one) * share for one, two in ends))


def _plural(name: str, count: int) -> str:
    if count == 1:
        return name
    return name.replace("rank", "ranks", 1) if "rank" in name else f"{name}s"
