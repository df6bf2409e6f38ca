"""Paints the cells of the run table that are more than text: the state as a chip, progress as a bar, quiet columns."""

from __future__ import annotations

from PySide6.QtCore import QModelIndex, QPersistentModelIndex, QPointF, QRect, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QFont, QPainter
from PySide6.QtWidgets import QStyle, QStyledItemDelegate, QStyleOptionViewItem, QWidget

from app.viewmodels.run_table import SUMMARY_ROLE, RunColumn
from app.viewmodels.wording import main_metric, number_text, progress_text, state_text
from app.views.icons import icon_pixmap
from app.views.theme import state_colour, state_icon, theme
from core.contracts.runs import RunSummary

ROW_HEIGHT = 40
_PAD = 10
_CHIP_HEIGHT = 22
_ICON = 14
_QUIET = {RunColumn.KIND, RunColumn.STARTED, RunColumn.DURATION, RunColumn.HOST, RunColumn.TAGS, RunColumn.LAST_LINE}

AnyIndex = QModelIndex | QPersistentModelIndex


class RunDelegate(QStyledItemDelegate):
    """Paints one row of runs."""

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: AnyIndex) -> None:
        """Paint a cell."""
        styled = QStyleOptionViewItem(option)
        self.initStyleOption(styled, index)
        text, styled.text = styled.text, ""
        widget = styled.widget
        widget.style().drawControl(QStyle.ControlElement.CE_ItemViewItem, styled, painter, widget)
        summary = index.data(SUMMARY_ROLE)
        rect = QRect(styled.rect).adjusted(_PAD, 0, -_PAD, -1)
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        column = RunColumn(index.column())
        if summary is None:
            self._text(painter, rect, text, theme().text_faint)
        elif column is RunColumn.STATE:
            self._chip(painter, rect, summary, widget)
        elif column is RunColumn.PROGRESS:
            self._progress(painter, rect, summary)
        elif column is RunColumn.METRIC:
            self._metric(painter, rect, summary)
        else:
            self._text(painter, rect, text, theme().text_muted if column in _QUIET else theme().text, column)
        painter.restore()

    def sizeHint(self, option: QStyleOptionViewItem, index: AnyIndex) -> QSize:
        """Return a row's height."""
        return QSize(super().sizeHint(option, index).width(), ROW_HEIGHT)

    @staticmethod
    def _text(painter: QPainter, rect: QRect, text: str, colour: str, column: RunColumn | None = None) -> None:
        if column is RunColumn.NAME:
            font = QFont(painter.font())
            font.setWeight(QFont.Weight.Medium)
            painter.setFont(font)
        painter.setPen(QColor(colour))
        where = Qt.TextElideMode.ElideMiddle if column is RunColumn.NAME else Qt.TextElideMode.ElideRight
        shown = painter.fontMetrics().elidedText(" ".join(text.split()), where, rect.width())
        painter.drawText(rect, Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft, shown)

    @staticmethod
    def _chip(painter: QPainter, rect: QRect, summary: RunSummary, widget: QWidget) -> None:
        colour = QColor(state_colour(summary.state))
        soft = QColor(colour)
        soft.setAlphaF(0.2 if theme().is_dark else 0.11)
        font = QFont(painter.font())
        font.setPixelSize(12)
        font.setWeight(QFont.Weight.Medium)
        painter.setFont(font)
        text = state_text(summary)
        width = min(painter.fontMetrics().horizontalAdvance(text) + _ICON + 20, rect.width())
        box = QRectF(rect.left(), rect.center().y() - _CHIP_HEIGHT / 2 + 1, width, _CHIP_HEIGHT)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(soft)
        painter.drawRoundedRect(box, _CHIP_HEIGHT / 2, _CHIP_HEIGHT / 2)
        picture = icon_pixmap(state_icon(summary.state), _ICON, colour.name(), widget.devicePixelRatioF())
        painter.drawPixmap(QPointF(box.left() + 6, box.top() + (_CHIP_HEIGHT - _ICON) / 2), picture)
        painter.setPen(colour)
        painter.drawText(box.adjusted(_ICON + 9, 0, -6, 0), Qt.AlignmentFlag.AlignVCenter, text)

    def _progress(self, painter: QPainter, rect: QRect, summary: RunSummary) -> None:
        if summary.state.is_terminal or summary.progress is None:
            self._text(painter, rect, progress_text(summary), theme().text_muted)
            return
        upper = QRect(rect.left(), rect.top() + 3, rect.width(), rect.height() - 14)
        self._text(painter, upper, progress_text(summary), theme().text)
        track = QRectF(rect.left(), rect.bottom() - 10, rect.width(), 4)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(theme().border))
        painter.drawRoundedRect(track, 2, 2)
        track.setWidth(max(track.width() * min(max(summary.progress, 0.0), 1.0), 4.0))
        painter.setBrush(QColor(state_colour(summary.state)))
        painter.drawRoundedRect(track, 2, 2)

    def _metric(self, painter: QPainter, rect: QRect, summary: RunSummary) -> None:
        found = main_metric(summary)
        if found is None:
            return
        value = number_text(found[1])
        width = painter.fontMetrics().horizontalAdvance(value)
        painter.setPen(QColor(theme().text))
        painter.drawText(rect, Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft, value)
        self._text(painter, rect.adjusted(width + 8, 0, 0, 0), found[0], theme().text_faint)
