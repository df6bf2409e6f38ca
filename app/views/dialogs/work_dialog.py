"""The frame of dialogs with a form: heading, body, what is going on, a sentence of what is wrong, and buttons."""

from __future__ import annotations

from PySide6.QtWidgets import QDialog, QFormLayout, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from app.views.theme import SPACE, set_kind, set_role

_WIDTH = 620


class WorkDialog(QDialog):
    """A dialog that stays open until what it asks for has worked.

    Attributes:
        column: Layout between heading and buttons.
        accept_button: The button that does it; called ``dialog_accept``.
        buttons: Layout of the foot; widgets put in at index 0 stand at the left.
    """

    def __init__(self, title: str, sentence: str, accept_text: str, parent: QWidget) -> None:
        super().__init__(parent)
        self.setWindowTitle(title)
        self.setMinimumWidth(_WIDTH)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(SPACE.l, SPACE.l, SPACE.l, SPACE.l)
        outer.setSpacing(SPACE.m)
        heading = QLabel(title)
        set_kind(heading, "h2")
        outer.addWidget(heading)
        if sentence:
            outer.addWidget(caption(sentence))
        self.column = QVBoxLayout()
        self.column.setSpacing(SPACE.m)
        outer.addLayout(self.column, 1)
        self._words = QLabel()
        self._words.setObjectName("dialog_words")
        self._words.setWordWrap(True)
        self._words.hide()
        outer.addWidget(self._words)
        self.buttons = QHBoxLayout()
        self.buttons.setSpacing(SPACE.s)
        self.buttons.addStretch(1)
        cancel = QPushButton("Cancel")
        cancel.setObjectName("dialog_cancel")
        cancel.setAutoDefault(False)
        cancel.clicked.connect(self.reject)
        self.accept_button = QPushButton(accept_text)
        self.accept_button.setObjectName("dialog_accept")
        self.accept_button.setDefault(True)
        self.accept_button.clicked.connect(self.accept)
        set_role(self.accept_button, "primary")
        self.buttons.addWidget(cancel)
        self.buttons.addWidget(self.accept_button)
        outer.addLayout(self.buttons)

    def say(self, text: str, *, is_wrong: bool = False) -> None:
        """Show a sentence above the buttons; empty shows none."""
        set_kind(self._words, "error" if is_wrong else "muted")
        self._words.setText(text)
        self._words.setVisible(bool(text))

    def words(self) -> str:
        """Return the sentence above the buttons."""
        return self._words.text()


def caption(text: str) -> QLabel:
    """Return a wrapped line of small text."""
    label = QLabel(text)
    label.setWordWrap(True)
    set_kind(label, "caption")
    return label


def form_layout() -> QFormLayout:
    """Return a form layout in the look of the dialogs."""
    form = QFormLayout()
    form.setHorizontalSpacing(SPACE.m)
    form.setVerticalSpacing(SPACE.s)
    form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
    return form
