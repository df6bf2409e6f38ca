"""A bar of coloured parts with a legend below: what a whole is made of, optionally against a limit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PySide6.QtCore import QEvent, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QHelpEvent, QPainter, QPainterPath, QPaintEvent, QPen
from PySide6.QtWidgets import QHBoxLayout, QLabel, QSizePolicy, QToolTip, QVBoxLayout, QWidget

from app.views.theme import SPACE, set_kind, theme, theme_host
from app.views.widgets.flow_layout import FlowLayout

_HEIGHT = 14
_DOT = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class BarPart:
    """One part: its name and its size in whatever unit the bar counts."""

    name: str
    size: float


class StackedBar(QWidget):
    """A bar of parts and a legend. ``text_of`` says a size in words."""

    def __init__(self, text_of: Callable[[float], str], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._text_of = text_of
        self._shown: object = None
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(SPACE.s)
        self._bar = _Bar(text_of)
        column.addWidget(self._bar)
        self._legend = QWidget()
        self._flow = FlowLayout(self._legend, spacing=SPACE.m)
        column.addWidget(self._legend)

    def show_parts(self, parts: Sequence[BarPart], limit: float | None = None) -> None:
        """Show the parts in order; ``limit`` is marked in the bar, which reaches at least so far."""
        if self._shown == (tuple(parts), limit):
            return
        self._shown = (tuple(parts), limit)
        self._bar.show_parts(tuple(parts), limit)
        self._bar.setAccessibleName(", ".join(f"{part.name} {self._text_of(part.size)}" for part in parts))
        while (item := self._flow.takeAt(0)) is not None:
            widget = item.widget()
            if widget is not None:
                widget.hide()
                widget.deleteLater()
        for n, part in enumerate(parts):
            self._flow.addWidget(_LegendEntry(n, part.name, self._text_of(part.size)))
        self.updateGeometry()


class _Bar(QWidget):
    def __init__(self, text_of: Callable[[float], str]) -> None:
        super().__init__()
        self._parts: tuple[BarPart, ...] = ()
        self._limit: float | None = None
        self._text_of = text_of
        self.setFixedHeight(_HEIGHT)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        theme_host().changed.connect(self._on_theme)

    def show_parts(self, parts: tuple[BarPart, ...], limit: float | None) -> None:
        self._parts, self._limit = parts, limit
        self.update()

    def paintEvent(self, _event: QPaintEvent) -> None:
        tokens = theme()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        outline = QPainterPath()
        outline.addRoundedRect(QRectF(self.rect()), 4, 4)
        painter.setClipPath(outline)
        painter.fillRect(self.rect(), QColor(tokens.sunken))
        scale = self._scale()
        left = 0.0
        for n, part in enumerate(self._parts):
            width = part.size * scale
            painter.fillRect(QRectF(left, 0, max(width - 1, 0.5), _HEIGHT), QColor(tokens.curve(n)))
            left += width
        if self._limit is not None and self._limit * scale < self.width() - 1:
            painter.setPen(QPen(QColor(tokens.danger), 2))
            painter.drawLine(round(self._limit * scale), 0, round(self._limit * scale), _HEIGHT)
        painter.end()

    def event(self, event: QEvent) -> bool:
        if event.type() is QEvent.Type.ToolTip and isinstance(event, QHelpEvent):
            left, scale = 0.0, self._scale()
            for part in self._parts:
                left += part.size * scale
                if event.pos().x() <= left:
                    QToolTip.showText(event.globalPos(), f"{part.name}: {self._text_of(part.size)}", self)
                    return True
        return super().event(event)

    def _scale(self) -> float:
        total = sum(part.size for part in self._parts)
        return self.width() / (max(total, self._limit or 0.0) or 1.0)

    def _on_theme(self) -> None:
        self.update()


class _LegendEntry(QWidget):
    def __init__(self, index: int, name: str, value: str) -> None:
        super().__init__()
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(SPACE.xs)
        row.addWidget(_Dot(index))
        for text in (name, value):
            label = QLabel(text)
            label.setTextFormat(Qt.TextFormat.PlainText)
            if text is name:
                set_kind(label, "caption")
            row.addWidget(label)


class _Dot(QWidget):
    def __init__(self, index: int) -> None:
        super().__init__()
        self._index = index
        self.setFixedSize(QSize(_DOT, _DOT))

    def paintEvent(self, _event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(theme().curve(self._index)))
        painter.drawRoundedRect(QRectF(0, 0, _DOT, _DOT), 3, 3)
        painter.end()
