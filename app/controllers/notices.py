"""The one path of messages to the user. It caches until a window is connected, so that no start-up error is lost.

``bridge().post`` may be called on any thread; windows receive notices on the UI thread. It is the only singleton.
"""

from __future__ import annotations

import time
import traceback
from pathlib import Path
from threading import Lock

from PySide6.QtCore import QCoreApplication, QObject, Qt, Signal, Slot

from core.contracts.errors import PilothouseError
from core.contracts.ids import RunId
from core.contracts.notices import Notice, Severity

_KEPT_REPORTS = 50


class NoticeBridge(QObject):
    """Carries notices to the window.

    Signals:
        posted: A ``Notice``, on the UI thread.
    """

    posted = Signal(object)
    _arrived = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self._lock = Lock()
        self._waiting: list[Notice] = []
        self._is_connected = False
        self._crash_dir: Path | None = None
        self._reported: set[str] = set()
        app = QCoreApplication.instance()
        if app is not None:
            self.moveToThread(app.thread())
        self._arrived.connect(self._on_arrived, Qt.ConnectionType.QueuedConnection)

    def post(self, notice: Notice) -> None:
        """Show a notice, now or as soon as there is a window. Any thread."""
        self._arrived.emit(notice)

    def connect_window(self) -> None:
        """Say that a window listens to ``posted`` now: what waited is emitted. UI thread."""
        self._is_connected = True
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for notice in waiting:
            self.posted.emit(notice)

    def disconnect_window(self) -> None:
        """Say that the window is gone: cache again. UI thread."""
        self._is_connected = False

    def waiting(self) -> tuple[Notice, ...]:
        """Return what waits for a window."""
        with self._lock:
            return tuple(self._waiting)

    def set_crash_dir(self, folder: Path) -> None:
        """Choose where crash reports are written."""
        self._crash_dir = folder

    def notice_of(self, error: BaseException) -> Notice:
        """Return an error as a notice; an unforeseen one also becomes a crash report on disk. Any thread."""
        if isinstance(error, PilothouseError):
            return Notice(severity=Severity.ERROR, message=error.message, hint=error.hint)
        details = "".join(traceback.format_exception(error))
        path = self._write_crash(details)
        where = f"The report is in {path}." if path else "The report is behind Details."
        return Notice(
            severity=Severity.ERROR,
            message=f"Something went wrong inside Pilothouse ({type(error).__name__}). Your runs are not affected.",
            hint=where,
            details=details,
        )

    @Slot(object)
    def _on_arrived(self, notice: Notice) -> None:
        if self._is_connected:
            self.posted.emit(notice)
            return
        with self._lock:
            self._waiting.append(notice)

    def _write_crash(self, details: str) -> Path | None:
        if self._crash_dir is None or details in self._reported:
            return None
        # The same fault may come back every few seconds, for days.
        self._reported.add(details)
        path = self._crash_dir / f"crash-{time.strftime('%Y%m%d-%H%M%S')}-{time.monotonic_ns() % 10**6:06d}.txt"
        try:
            self._crash_dir.mkdir(parents=True, exist_ok=True)
            path.write_text(details, encoding="utf-8")
            for old in sorted(self._crash_dir.glob("crash-*.txt"))[:-_KEPT_REPORTS]:
                old.unlink(missing_ok=True)
        except OSError:
            # A full or read-only disk must not hide the error itself: it is still behind Details.
            return None
        return path


_bridge: NoticeBridge | None = None


def bridge() -> NoticeBridge:
    """Return the notice bridge of this process."""
    global _bridge  # noqa: PLW0603 - the one singleton, see the module's docstring
    if _bridge is None:
        _bridge = NoticeBridge()
    return _bridge


def notify(severity: Severity, message: str, hint: str = "", *, run_id: RunId | None = None, details: str = "") -> None:
    """Post a notice. Any thread."""
    bridge().post(Notice(severity=severity, message=message, hint=hint, run_id=run_id, details=details))
