"""A card: a surface with a title row and a body; may be pressed with mouse or keyboard when it is ``clickable``."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QKeyEvent, QMouseEvent
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from app.views.theme import SPACE, SurfaceKind, set_kind, set_surface

_PRESS_KEYS = (Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_Space)


class Card(QFrame):
    """A surface.

    Attributes:
        body: Layout that the owner fills.
        title_row: Layout of the title row; widgets added to it stand at its right end.

    Signals:
        clicked: It was pressed (only when ``clickable``).
    """

    clicked = Signal()

    def __init__(
        self, title: str = "", *, clickable: bool = False, surface: SurfaceKind = "card", parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        set_surface(self, surface)
        self._is_clickable = clickable
        self.setProperty("clickable", clickable)
        if clickable:
            self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
            self.setCursor(Qt.CursorShape.PointingHandCursor)
            self.setAccessibleName(title)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(SPACE.m, SPACE.m - 2, SPACE.m, SPACE.m)
        outer.setSpacing(SPACE.s)
        self.title_row = QHBoxLayout()
        self.title_row.setSpacing(SPACE.s)
        if title:
            self._title = QLabel(title)
            self._title.setTextFormat(Qt.TextFormat.PlainText)
            set_kind(self._title, "h3")
            self.title_row.addStrut(24)
            self.title_row.addWidget(self._title)
            self.title_row.addStretch(1)
        outer.addLayout(self.title_row)
        self.body = QVBoxLayout()
        self.body.setSpacing(SPACE.s)
        outer.addLayout(self.body, 1)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """Press on release inside, as buttons do."""
        inside = self.rect().contains(event.position().toPoint())
        if self._is_clickable and event.button() is Qt.MouseButton.LeftButton and inside:
            self.clicked.emit()
            return
        super().mouseReleaseEvent(event)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Press with Enter or Space."""
        if self._is_clickable and event.key() in _PRESS_KEYS:
            self.clicked.emit()
            return
        super().keyPressEvent(event)
