"""The designed empty (or error, or busy) state of a page: an icon, a heading, a sentence and at most one button."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QLabel, QPushButton, QVBoxLayout, QWidget

from app.views.icons import icon_pixmap
from app.views.theme import SPACE, set_kind, set_role, theme_host


class EmptyState(QWidget):
    """Says what a place is for and offers the one thing to do.

    Signals:
        triggered: The button was pressed.
    """

    triggered = Signal()

    def __init__(
        self, icon_name: str, heading: str, sentence: str, button: str = "", parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._icon_name = icon_name
        layout = QVBoxLayout(self)
        layout.setAlignment(Qt.AlignmentFlag.AlignCenter)
        layout.setSpacing(SPACE.s)
        layout.setContentsMargins(SPACE.l, SPACE.xl, SPACE.l, SPACE.xl)
        self._picture = QLabel()
        self._picture.setAlignment(Qt.AlignmentFlag.AlignHCenter)
        self._heading = QLabel()
        set_kind(self._heading, "h2")
        self._sentence = QLabel()
        set_kind(self._sentence, "muted")
        for label in (self._heading, self._sentence):
            label.setTextFormat(Qt.TextFormat.PlainText)
            label.setAlignment(Qt.AlignmentFlag.AlignHCenter)
            label.setWordWrap(True)
            label.setMinimumWidth(420)
            label.setMaximumWidth(520)
        self.button = QPushButton()
        set_role(self.button, "primary")
        self.button.clicked.connect(self.triggered)
        layout.addWidget(self._picture, 0, Qt.AlignmentFlag.AlignHCenter)
        layout.addSpacing(SPACE.xs)
        layout.addWidget(self._heading, 0, Qt.AlignmentFlag.AlignHCenter)
        layout.addWidget(self._sentence, 0, Qt.AlignmentFlag.AlignHCenter)
        layout.addSpacing(SPACE.s)
        layout.addWidget(self.button, 0, Qt.AlignmentFlag.AlignHCenter)
        theme_host().changed.connect(self._draw)
        self.set_content(icon_name, heading, sentence, button)

    def set_content(self, icon_name: str, heading: str, sentence: str, button: str = "") -> None:
        """Change what it says; an empty ``button`` hides the button."""
        self._icon_name = icon_name
        self._heading.setText(heading)
        self._sentence.setText(sentence)
        self.button.setText(button)
        self.button.setVisible(bool(button))
        self._draw()

    def _draw(self) -> None:
        self._picture.setPixmap(icon_pixmap(self._icon_name, 44, "text_faint", self.devicePixelRatioF()))
