"""Paints a host in a list: name and address, a dot with the state in words, and small bars of how busy it is."""

from __future__ import annotations

from PySide6.QtCore import QModelIndex, QPersistentModelIndex, QRect, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QFont, QPainter
from PySide6.QtWidgets import QStyle, QStyledItemDelegate, QStyleOptionViewItem

from app.viewmodels.host_list import HOST_ROLE, HostRow
from app.viewmodels.host_wording import link_look
from app.views.theme import SPACE, theme
from core.contracts.hosts import LOCAL_HOST

ROW_HEIGHT = 58
_BAR_WIDTH = 44
_BAR_HEIGHT = 4
_DOT = 8
_EDGE = 10


class HostDelegate(QStyledItemDelegate):
    """For lists whose model has ``HostRow`` records under ``HOST_ROLE``."""

    def sizeHint(self, _option: QStyleOptionViewItem, _index: QModelIndex | QPersistentModelIndex) -> QSize:
        """Return the size of every row."""
        return QSize(200, ROW_HEIGHT)

    def paint(
        self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> None:
        """Paint a row."""
        row = index.data(HOST_ROLE)
        if not isinstance(row, HostRow):
            return
        tokens, state, box = theme(), _flags(option), _rect(option)
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        if state & QStyle.StateFlag.State_Selected or state & QStyle.StateFlag.State_MouseOver:
            chosen = bool(state & QStyle.StateFlag.State_Selected)
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(QColor(tokens.accent_soft if chosen else tokens.hover))
            painter.drawRoundedRect(QRectF(box).adjusted(1, 1, -1, -1), SPACE.radius_small, SPACE.radius_small)
        if state & QStyle.StateFlag.State_HasFocus:
            painter.setPen(QColor(tokens.accent))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawRoundedRect(QRectF(box).adjusted(1.5, 1.5, -1.5, -1.5), SPACE.radius_small, SPACE.radius_small)
        inner = box.adjusted(_EDGE, 9, -_EDGE, -9)
        self._paint_words(painter, row, inner)
        if row.cpu is not None:
            self._paint_bars(painter, row, inner)
        painter.restore()

    def _paint_words(self, painter: QPainter, row: HostRow, inner: QRect) -> None:
        tokens = theme()
        look = link_look(row.status)
        width = inner.width() - (_BAR_WIDTH + 40 if row.cpu is not None else 0)
        font = QFont(painter.font())
        font.setPixelSize(13)
        font.setWeight(QFont.Weight.DemiBold)
        painter.setFont(font)
        painter.setPen(QColor(tokens.text))
        name = painter.fontMetrics().elidedText(row.title, Qt.TextElideMode.ElideMiddle, width)
        painter.drawText(QRect(inner.left(), inner.top(), width, 18), Qt.AlignmentFlag.AlignVCenter, name)
        font.setPixelSize(12)
        font.setWeight(QFont.Weight.Normal)
        painter.setFont(font)
        colour = QColor(getattr(tokens, look.colour))
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(colour)
        painter.drawEllipse(QRectF(inner.left() + 1, inner.bottom() - 12, _DOT, _DOT))
        painter.setPen(QColor(tokens.text_muted))
        word = look.word if row.name != LOCAL_HOST else "Always here"
        text = f"{word} · {row.detail}" if row.detail and row.detail != row.name else word
        left = inner.left() + _DOT + 8
        room = width - _DOT - 8
        shown = painter.fontMetrics().elidedText(text, Qt.TextElideMode.ElideRight, room)
        painter.drawText(QRect(left, inner.bottom() - 17, room, 18), Qt.AlignmentFlag.AlignVCenter, shown)

    @staticmethod
    def _paint_bars(painter: QPainter, row: HostRow, inner: QRect) -> None:
        tokens = theme()
        font = QFont(painter.font())
        font.setPixelSize(11)
        painter.setFont(font)
        left = inner.right() - _BAR_WIDTH + 1
        for name, share, top in (("CPU", row.cpu, inner.top() + 2), ("GPU", row.gpu, inner.bottom() - 15)):
            if share is None:
                continue
            painter.setPen(QColor(tokens.text_faint))
            painter.drawText(QRect(left - 34, top, 30, 14), Qt.AlignmentFlag.AlignVCenter, name)
            painter.setPen(Qt.PenStyle.NoPen)
            track = QRectF(left, top + 5, _BAR_WIDTH, _BAR_HEIGHT)
            painter.setBrush(QColor(tokens.border_strong))
            painter.drawRoundedRect(track, 2, 2)
            track.setWidth(max(_BAR_WIDTH * min(share, 1.0), _BAR_HEIGHT))
            painter.setBrush(QColor(tokens.accent))
            painter.drawRoundedRect(track, 2, 2)


def _flags(option: QStyleOptionViewItem) -> QStyle.StateFlag:
    return option.state  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]


def _rect(option: QStyleOptionViewItem) -> QRect:
    return option.rect  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]
