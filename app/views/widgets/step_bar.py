"""The row of steps over a wizard: where one is, what is done, what comes."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtGui import QIcon
from PySide6.QtWidgets import QHBoxLayout, QLabel, QPushButton, QWidget

from app.views.icons import icon
from app.views.theme import SPACE, set_kind, set_role


class StepBar(QWidget):
    """Numbered steps; those already done can be pressed.

    Signals:
        step_wanted: Number of a step (int), from 0.
    """

    step_wanted = Signal(int)

    def __init__(self, titles: tuple[str, ...], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._buttons: list[QPushButton] = []
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(SPACE.xs)
        for n, title in enumerate(titles):
            if n:
                arrow = QLabel("›")
                set_kind(arrow, "muted")
                layout.addWidget(arrow)
            button = QPushButton(f"{n + 1}  {title}")
            button.setCheckable(True)
            button.setObjectName(f"wizard_step_{n}")
            button.setAccessibleName(f"Step {n + 1}: {title}")
            set_role(button, "ghost")
            button.clicked.connect(lambda _=False, n=n: self.step_wanted.emit(n))
            self._buttons.append(button)
            layout.addWidget(button)
        layout.addStretch(1)

    def set_step(self, step: int) -> None:
        """Show where one is."""
        for n, button in enumerate(self._buttons):
            button.setChecked(n == step)
            button.setEnabled(n <= step)
            button.setIcon(icon("check", "success") if n < step else QIcon())
