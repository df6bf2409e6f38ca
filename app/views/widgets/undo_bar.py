"""A bar that says what was just done and offers to undo it, for a while."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QHBoxLayout, QLabel, QPushButton, QWidget

from app.views.icons import icon
from app.views.theme import SPACE, set_role, set_surface

_SHOWN_MS = 20_000


class UndoBar(QWidget):
    """Hidden until there is something to undo; its button is called ``undo``."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        set_surface(self, "hero")
        row = QHBoxLayout(self)
        row.setContentsMargins(SPACE.m, SPACE.xs, SPACE.s, SPACE.xs)
        self._text = QLabel()
        self._undo: Callable[[], object] | None = None
        button = QPushButton("Undo")
        button.setObjectName("undo")
        button.setIcon(icon("back"))
        set_role(button, "ghost")
        button.clicked.connect(self._on_undo)
        row.addWidget(self._text, 1)
        row.addWidget(button)
        self._timer = QTimer(self, interval=_SHOWN_MS, singleShot=True)
        self._timer.timeout.connect(self.hide)
        self.hide()

    def offer(self, text: str, undo: Callable[[], object]) -> None:
        """Say what was done; ``undo`` is called when the button is pressed."""
        self._text.setText(text)
        self._undo = undo
        self.show()
        self._timer.start()

    def _on_undo(self) -> None:
        self.hide()
        self._timer.stop()
        if self._undo is not None:
            self._undo()
