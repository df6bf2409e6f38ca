"""A chip: a small rounded mark of a run's state, told by icon and word as well as by colour."""

from __future__ import annotations

from PySide6.QtCore import QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QFont, QPainter, QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QWidget

from app.viewmodels.wording import STATE_TITLES
from app.views.icons import icon_pixmap
from app.views.theme import state_colour, state_icon, theme
from core.contracts.states import RunState

_HEIGHT = 22
_ICON = 14


class Chip(QWidget):
    """A rounded mark with an icon and one word."""

    def __init__(
        self, text: str = "", colour: str = "text_muted", icon_name: str = "", parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._text = text
        self._colour = colour
        self._icon_name = icon_name
        font = QFont(self.font())
        font.setPixelSize(12)
        font.setWeight(QFont.Weight.Medium)
        self.setFont(font)
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self.setAccessibleName(text)

    def set_content(self, text: str, colour: str, icon_name: str = "") -> None:
        """Change word, colour (a token's name or ``#RRGGBB``) and icon."""
        if (text, colour, icon_name) == (self._text, self._colour, self._icon_name):
            return
        self._text, self._colour, self._icon_name = text, colour, icon_name
        self.setAccessibleName(text)
        self.updateGeometry()
        self.update()

    def sizeHint(self) -> QSize:
        """Return the room that icon and word need."""
        width = self.fontMetrics().horizontalAdvance(self._text) + 18 + (_ICON + 4 if self._icon_name else 0)
        return QSize(width, _HEIGHT)

    def paintEvent(self, _event: QPaintEvent) -> None:
        """Paint the mark."""
        tokens = theme()
        colour = QColor(self._colour if self._colour.startswith("#") else getattr(tokens, self._colour))
        soft = QColor(colour)
        soft.setAlphaF(0.18 if tokens.is_dark else 0.11)
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(soft)
        painter.drawRoundedRect(QRectF(self.rect()), _HEIGHT / 2, _HEIGHT / 2)
        left = 9
        if self._icon_name:
            picture = icon_pixmap(self._icon_name, _ICON, colour.name(), self.devicePixelRatioF())
            painter.drawPixmap(QPointF(left - 2, (self.height() - _ICON) / 2), picture)
            left += _ICON + 2
        painter.setPen(colour)
        painter.drawText(QRectF(left, 0, self.width() - left, self.height()), Qt.AlignmentFlag.AlignVCenter, self._text)
        painter.end()


class StateChip(Chip):
    """The chip of a run's state."""

    def __init__(self, state: RunState, parent: QWidget | None = None) -> None:
        super().__init__(STATE_TITLES[state], state_colour(state), state_icon(state), parent)
        self._state = state

    def set_state(self, state: RunState) -> None:
        """Show another state."""
        self._state = state
        self.set_content(STATE_TITLES[state], state_colour(state), state_icon(state))

    def paintEvent(self, event: QPaintEvent) -> None:
        """Paint in the colour that the state has in the theme now."""
        self._colour = state_colour(self._state)
        super().paintEvent(event)
