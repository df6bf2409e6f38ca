"""Carries questions of background work to the user: unknown host keys, passphrases, passwords, prompts of a server.

``Questions`` is the ``Asker`` that the fleet is given. Its two methods are called on background threads and block until
the window has answered; the window shows one question at a time. Once closed, or when the work that asked was cancelled,
the answer is a refusal. Knows no widget, keeps no secret.
"""

from __future__ import annotations

from threading import Event, Lock

from PySide6.QtCore import QObject, Qt, Signal, Slot

from core.contracts.hosts import HostKeyQuestion, SecretAnswer, SecretQuestion

Question = HostKeyQuestion | SecretQuestion
Answer = bool | SecretAnswer | None


class _Pending:
    """A question on its way, and the event that frees the thread that asked it."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self.answer: Answer = None
        self.done = Event()


class Questions(QObject):
    """Asks the user on behalf of background threads; see ``core.contracts.hosts.Asker``.

    Signals:
        asked: A question is to be shown now: a ``HostKeyQuestion`` or ``SecretQuestion``. UI thread, one at a time.
        withdrawn: The question shown last needs no answer any more.
    """

    asked = Signal(object)
    withdrawn = Signal()
    _changed = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._lock = Lock()
        self._pending: list[_Pending] = []
        self._shown: _Pending | None = None
        self._is_closed = False
        self._changed.connect(self._on_changed, Qt.ConnectionType.QueuedConnection)

    # -- any thread ------------------------------------------------------------------------------------------------

    def trust_host_key(self, question: HostKeyQuestion) -> bool:
        """Return whether the user trusts the key. Background threads; blocks."""
        return self._ask(question) is True

    def secret(self, question: SecretQuestion) -> SecretAnswer | None:
        """Return what the user typed, None when refused. Background threads; blocks."""
        answer = self._ask(question)
        return answer if isinstance(answer, SecretAnswer) else None

    def refuse(self, host: str = "") -> None:
        """Answer every open question about a host (about any, when none is given) with no."""
        with self._lock:
            for pending in [each for each in self._pending if not host or _is_about(each.question, host)]:
                self._pending.remove(pending)
                pending.done.set()
        self._changed.emit()

    def close(self) -> None:
        """Refuse what is open and everything that comes later, so that no thread waits for ever."""
        self._is_closed = True
        self.refuse()

    def _ask(self, question: Question) -> Answer:
        pending = _Pending(question)
        with self._lock:
            if self._is_closed:
                return None
            self._pending.append(pending)
        self._changed.emit()
        pending.done.wait()
        return pending.answer

    # -- UI thread -------------------------------------------------------------------------------------------------

    @property
    def current(self) -> Question | None:
        """The question that is shown now."""
        return None if self._shown is None else self._shown.question

    def answer(self, answer: Answer) -> None:
        """Answer the question that is shown; the next one follows."""
        shown, self._shown = self._shown, None
        if shown is not None:
            with self._lock:
                if shown in self._pending:
                    self._pending.remove(shown)
                    shown.answer = answer
            shown.done.set()
        self._on_changed()

    @Slot()
    def _on_changed(self) -> None:
        with self._lock:
            is_gone = self._shown is not None and self._shown not in self._pending
            upcoming = self._pending[0] if self._pending else None
        if is_gone:
            self._shown = None
            self.withdrawn.emit()
        if self._shown is None and upcoming is not None:
            self._shown = upcoming
            self.asked.emit(upcoming.question)


def _is_about(question: Question, host: str) -> bool:
    # A question names the host with its address behind it where that differs.
    return question.host == host or question.host.startswith(f"{host} ")
