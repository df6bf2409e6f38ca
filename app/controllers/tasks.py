"""A long piece of work with progress, a log and Cancel, such as setting up a host or copying checkpoints.

``Task`` is the ``Watcher`` that the core reports to: the work runs on a background thread, its reports arrive on the UI
thread as signals. Cancelling raises a flag that the work looks at; it then undoes what is half done.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Event
from typing import Any

from PySide6.QtCore import QObject, Qt, Signal, Slot

from app.controllers.ops import Op
from core.contracts.hosts import Progress, Watcher


class Task(QObject):
    """One piece of work. Made, started and cancelled on the UI thread.

    Signals:
        progressed: A ``Progress``.
        succeeded: What the work returned.
        failed: A ``Notice``.
        ended: It is over: done, failed or cancelled.
    """

    progressed = Signal(object)
    succeeded = Signal(object)
    failed = Signal(object)
    ended = Signal()
    _reported = Signal(object)

    def __init__(self, title: str, work: Callable[[Watcher], Any], parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.title = title
        self._work = work
        self._cancelled = Event()
        self._op: Op[Any] | None = None
        self._reported.connect(self._on_reported, Qt.ConnectionType.QueuedConnection)

    @property
    def is_running(self) -> bool:
        """True until it is over."""
        return self._op is not None

    def start(self) -> None:
        """Begin."""
        work = self._work
        self._op = (
            Op(lambda: work(self))
            .succeeded(self.succeeded.emit)
            .failed(self.failed.emit)
            .finished(self._on_finished)
            .start(may_wait=True)
        )

    def cancel(self) -> None:
        """Ask the work to end; ``ended`` follows when it has. Any thread."""
        self._cancelled.set()

    def report(self, progress: Progress) -> None:
        """Show how far it is. Called by the work, on its thread."""
        self._reported.emit(progress)

    def is_cancelled(self) -> bool:
        """Return whether to end. Called by the work, on its thread."""
        return self._cancelled.is_set()

    @Slot(object)
    def _on_reported(self, progress: Progress) -> None:
        if self._op is not None:
            self.progressed.emit(progress)

    def _on_finished(self) -> None:
        self._op = None
        self.ended.emit()
