"""Dialogs for what background work asks: shall a host's key be trusted, what is the passphrase, password, answer.

One at a time over the window. The default of the key question is Cancel; what is typed is never shown, unless the server
says it may be, and never kept here. Widgets: ``question_key``, ``question_secret``, ``question_answer`` (the input),
``question_keep``, ``question_yes``, ``question_no``.
"""

from __future__ import annotations

from PySide6.QtCore import QObject, Qt
from PySide6.QtWidgets import QCheckBox, QDialog, QHBoxLayout, QLabel, QLineEdit, QPushButton, QVBoxLayout, QWidget

from app.controllers.questions import Question, Questions
from app.views.icons import icon_pixmap
from app.views.theme import SPACE, mono_font, set_kind, set_role
from core.contracts.hosts import HostKeyQuestion, SecretAnswer, SecretQuestion

_WIDTH = 520


class QuestionDesk(QObject):
    """Shows the questions of ``Questions`` as dialogs over a window, and carries the answers back."""

    def __init__(self, questions: Questions, window: QWidget) -> None:
        super().__init__(window)
        self._questions = questions
        self._window = window
        self.dialog: QuestionDialog | None = None
        questions.asked.connect(self._on_asked)
        questions.withdrawn.connect(self._on_withdrawn)

    def _on_asked(self, question: Question) -> None:
        dialog = HostKeyDialog if isinstance(question, HostKeyQuestion) else SecretDialog
        # Over the dialog that the user is in, if any: a modal one would not let a dialog behind it be reached.
        owner = self._window.window()
        self.dialog = dialog(question, _front_of(owner))  # pyright: ignore[reportArgumentType]
        self.dialog.finished.connect(self._on_finished)
        self.dialog.open()

    def _on_finished(self, _result: int) -> None:
        dialog, self.dialog = self.dialog, None
        if dialog is not None:
            answer = dialog.answer()
            dialog.deleteLater()
            self._questions.answer(answer)

    def _on_withdrawn(self) -> None:
        dialog, self.dialog = self.dialog, None
        if dialog is not None:
            dialog.finished.disconnect(self._on_finished)
            dialog.close()
            dialog.deleteLater()


def _front_of(window: QWidget) -> QWidget:
    open_dialogs = [dialog for dialog in window.findChildren(QDialog) if dialog.isVisible()]
    return open_dialogs[-1] if open_dialogs else window


class QuestionDialog(QDialog):
    """Picture, heading, sentences, and two buttons."""

    def __init__(self, icon_name: str, colour: str, heading: str, parent: QWidget) -> None:
        super().__init__(parent)
        self.setWindowTitle("Pilothouse")
        self.setFixedWidth(_WIDTH)
        outer = QHBoxLayout(self)
        outer.setContentsMargins(SPACE.l, SPACE.l, SPACE.l, SPACE.l)
        outer.setSpacing(SPACE.m)
        picture = QLabel()
        picture.setPixmap(icon_pixmap(icon_name, 32, colour, self.devicePixelRatioF()))
        outer.addWidget(picture, 0, Qt.AlignmentFlag.AlignTop)
        self.column = QVBoxLayout()
        self.column.setSpacing(SPACE.s)
        outer.addLayout(self.column, 1)
        self.add_words(heading, "h2")

    def answer(self) -> bool | SecretAnswer | None:
        """Return what the user answered."""
        return self.result() == QDialog.DialogCode.Accepted

    def add_words(self, text: str, kind: str = "body") -> QLabel:
        """Add a sentence."""
        label = QLabel(text)
        label.setTextFormat(Qt.TextFormat.PlainText)
        label.setWordWrap(True)
        set_kind(label, kind)  # pyright: ignore[reportArgumentType]
        self.column.addWidget(label)
        return label

    def add_buttons(self, yes_text: str, *, is_no_default: bool) -> QPushButton:
        """Add the buttons; returns the one that agrees."""
        row = QHBoxLayout()
        row.setSpacing(SPACE.s)
        no, yes = QPushButton("Cancel"), QPushButton(yes_text)
        no.setObjectName("question_no")
        yes.setObjectName("question_yes")
        no.clicked.connect(self.reject)
        yes.clicked.connect(self.accept)
        set_role(no if is_no_default else yes, "primary")
        yes.setAutoDefault(not is_no_default)
        (no if is_no_default else yes).setDefault(True)
        row.addStretch(1)
        row.addWidget(no)
        row.addWidget(yes)
        self.column.addSpacing(SPACE.s)
        self.column.addLayout(row)
        if is_no_default:
            no.setFocus()
        return yes


class HostKeyDialog(QuestionDialog):
    """Is this the right machine?"""

    def __init__(self, question: HostKeyQuestion, parent: QWidget) -> None:
        heading = "This host shows a key of a new type" if question.is_new_type else "This host is not known yet"
        super().__init__("shield", "warning", heading, parent)
        self.setObjectName("question_key")
        if question.is_new_type:
            self.add_words(
                f"{question.host} is known by another key, which did not change, and now offers one more of the type "
                f"{question.key_type}. That is usual after an upgrade of its system."
            )
        else:
            self.add_words(
                f"Nobody has connected to {question.host} from here before. Compare the fingerprint of its "
                f"{question.key_type} key with the one that its administrator gives you."
            )
        key = self.add_words(question.fingerprint, "mono")
        key.setFont(mono_font(13))
        key.setObjectName("question_fingerprint")
        key.setTextInteractionFlags(
            Qt.TextInteractionFlag.TextSelectableByMouse | Qt.TextInteractionFlag.TextSelectableByKeyboard
        )
        key.setAccessibleName(f"Fingerprint {question.fingerprint}")
        key.setFocusPolicy(Qt.FocusPolicy.ClickFocus)
        self.add_words("If they differ, somebody may be between you and the host: cancel.", "caption")
        self.add_buttons("Trust and connect", is_no_default=True)


_SECRET_WORDS = {
    "passphrase": ("Passphrase for a key", "The key {about} is locked; {host} needs it."),
    "password": ("Password", "{about} asks for a password."),
    "prompt": ("{host} asks", "{about}"),
}


class SecretDialog(QuestionDialog):
    """Something to type."""

    def __init__(self, question: SecretQuestion, parent: QWidget) -> None:
        heading, sentence = (
            text.format(about=question.about, host=question.host) for text in _SECRET_WORDS[question.kind]
        )
        super().__init__("shield", "accent", heading, parent)
        self.setObjectName("question_secret")
        self.add_words(sentence)
        if question.is_retry:
            self.add_words("That was not right. Try again.", "error").setObjectName("question_retry")
        self._input = QLineEdit()
        self._input.setObjectName("question_answer")
        self._input.setAccessibleName(heading)
        if not question.echo:
            self._input.setEchoMode(QLineEdit.EchoMode.Password)
        self.column.addWidget(self._input)
        self._keep = QCheckBox("Keep it in the keyring")
        self._keep.setObjectName("question_keep")
        self._keep.setToolTip("Saved in the system's keyring, or in an encrypted file where there is none.")
        self._keep.setVisible(question.can_keep)
        self.column.addWidget(self._keep)
        self.add_buttons("Continue", is_no_default=False)
        self._input.setFocus()

    def answer(self) -> SecretAnswer | None:
        """Return what was typed; None when refused. The input is emptied."""
        if self.result() != QDialog.DialogCode.Accepted:
            return None
        secret = self._input.text()
        self._input.clear()
        return SecretAnswer(secret=secret, keep=self._keep.isVisibleTo(self) and self._keep.isChecked())

    def accept(self) -> None:
        """Close; an answer that may be shown may be empty, a secret may not."""
        if self._input.text() or self._input.echoMode() is QLineEdit.EchoMode.Normal:
            super().accept()
