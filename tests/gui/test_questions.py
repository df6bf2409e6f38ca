"""Questions of background threads: shown one at a time, answered by hand, refused on close."""

from __future__ import annotations

import threading

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QApplication, QCheckBox, QLabel, QLineEdit, QPushButton, QWidget

from app.controllers.questions import Questions
from app.views.dialogs.questions import QuestionDesk
from app.views.theme import apply_theme
from core.contracts.hosts import HostKeyQuestion, SecretAnswer, SecretQuestion

KEY = HostKeyQuestion(host="lab-3", key_type="ssh-ed25519", fingerprint="SHA256:abcdef")


class Thread:
    """Asks on a thread of its own."""

    def __init__(self, ask):
        self.answer = "none yet"
        self._thread = threading.Thread(target=self._run, args=(ask,))
        self._thread.start()

    def _run(self, ask):
        self.answer = ask()

    @property
    def has_answer(self) -> bool:
        return not self._thread.is_alive()


@pytest.fixture
def desk(qtbot, qapp):
    apply_theme(qapp, "light")
    window = QWidget()
    qtbot.addWidget(window)
    window.show()
    questions = Questions(window)
    made = QuestionDesk(questions, window)
    made.questions = questions
    yield made
    questions.close()


def shown(qtbot, desk: QuestionDesk, name: str) -> QWidget:
    qtbot.waitUntil(lambda: desk.dialog is not None and desk.dialog.objectName() == name)
    assert desk.dialog is not None
    return desk.dialog


def press(qtbot, dialog: QWidget, name: str) -> None:
    button = dialog.findChild(QPushButton, name)
    assert button is not None
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def test_an_unknown_key_is_shown_and_trusted(qtbot, desk):
    thread = Thread(lambda: desk.questions.trust_host_key(KEY))
    dialog = shown(qtbot, desk, "question_key")
    fingerprint = dialog.findChild(QLabel, "question_fingerprint")
    assert fingerprint.text() == "SHA256:abcdef"
    assert not thread.has_answer
    press(qtbot, dialog, "question_yes")
    qtbot.waitUntil(lambda: thread.has_answer)
    assert thread.answer is True


def test_enter_does_not_trust_a_key(qtbot, desk):
    thread = Thread(lambda: desk.questions.trust_host_key(KEY))
    dialog = shown(qtbot, desk, "question_key")
    qtbot.keyClick(dialog, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: thread.has_answer)
    assert thread.answer is False


def test_a_key_of_a_new_type_is_worded_differently(qtbot, desk):
    question = HostKeyQuestion(host="lab-3", key_type="ssh-rsa", fingerprint="SHA256:x", is_new_type=True)
    thread = Thread(lambda: desk.questions.trust_host_key(question))
    dialog = shown(qtbot, desk, "question_key")
    words = " ".join(label.text() for label in dialog.findChildren(QLabel))
    assert "new type" in words
    assert "did not change" in words
    press(qtbot, dialog, "question_no")
    qtbot.waitUntil(lambda: thread.has_answer)
    assert thread.answer is False


def test_a_passphrase_is_hidden_kept_on_wish_and_asked_again(qtbot, desk):
    question = SecretQuestion(kind="passphrase", about="/k/id", host="lab-3", is_retry=True)
    thread = Thread(lambda: desk.questions.secret(question))
    dialog = shown(qtbot, desk, "question_secret")
    edit, keep = dialog.findChild(QLineEdit, "question_answer"), dialog.findChild(QCheckBox, "question_keep")
    assert edit.echoMode() is QLineEdit.EchoMode.Password
    assert dialog.findChild(QLabel, "question_retry").isVisible()
    press(qtbot, dialog, "question_yes")
    assert desk.dialog is dialog, "an empty passphrase is not sent"
    qtbot.keyClicks(edit, "open sesame")
    keep.click()
    qtbot.keyClick(edit, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: thread.has_answer)
    assert thread.answer == SecretAnswer(secret="open sesame", keep=True)
    assert "sesame" not in repr(thread.answer)


def test_a_prompt_that_may_be_seen_and_is_never_kept(qtbot, desk):
    question = SecretQuestion(kind="prompt", about="Token:", host="lab-3", echo=True, can_keep=False)
    thread = Thread(lambda: desk.questions.secret(question))
    dialog = shown(qtbot, desk, "question_secret")
    edit = dialog.findChild(QLineEdit, "question_answer")
    assert edit.echoMode() is QLineEdit.EchoMode.Normal
    assert not dialog.findChild(QCheckBox, "question_keep").isVisible()
    assert QApplication.focusWidget() is edit
    press(qtbot, dialog, "question_yes")
    qtbot.waitUntil(lambda: thread.has_answer)
    assert thread.answer == SecretAnswer(secret="", keep=False)


def test_questions_wait_for_each_other(qtbot, desk):
    threads = [Thread(lambda: desk.questions.trust_host_key(KEY)) for _ in range(3)]
    for count in (1, 2, 3):
        dialog = shown(qtbot, desk, "question_key")
        press(qtbot, dialog, "question_yes")
        qtbot.waitUntil(lambda count=count: sum(thread.has_answer for thread in threads) == count)
    qtbot.waitUntil(lambda: desk.dialog is None)


def test_escape_refuses(qtbot, desk):
    thread = Thread(lambda: desk.questions.secret(SecretQuestion(kind="password", about="ann@lab-3", host="lab-3")))
    dialog = shown(qtbot, desk, "question_secret")
    qtbot.keyClick(dialog, Qt.Key.Key_Escape)
    qtbot.waitUntil(lambda: thread.has_answer)
    assert thread.answer is None


def test_cancelling_the_work_takes_its_question_back(qtbot, desk):
    other = HostKeyQuestion(host="lab-4", key_type="ssh-ed25519", fingerprint="SHA256:other")
    first = Thread(lambda: desk.questions.trust_host_key(KEY))
    shown(qtbot, desk, "question_key")
    second = Thread(lambda: desk.questions.trust_host_key(other))
    desk.questions.refuse("lab-3")
    qtbot.waitUntil(lambda: first.has_answer)
    assert first.answer is False
    qtbot.waitUntil(lambda: desk.questions.current == other)
    press(qtbot, shown(qtbot, desk, "question_key"), "question_yes")
    qtbot.waitUntil(lambda: second.has_answer)
    assert second.answer is True


def test_closing_refuses_what_is_open_and_what_comes(qtbot, desk):
    open_one = Thread(lambda: desk.questions.trust_host_key(KEY))
    shown(qtbot, desk, "question_key")
    desk.questions.close()
    qtbot.waitUntil(lambda: open_one.has_answer)
    assert open_one.answer is False
    assert desk.questions.trust_host_key(KEY) is False
    qtbot.waitUntil(lambda: desk.dialog is None)
