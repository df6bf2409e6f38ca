"""Opens services over a home for tests of pages, and watches the UI thread for stalls."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PySide6.QtCore import QObject, QTimer
from pytestqt.qtbot import QtBot

from app.controllers.ops import wait_for_ops
from app.controllers.services import Services
from core.contracts.settings import Settings


@contextmanager
def opened_services(home: Path, qtbot: QtBot) -> Iterator[Services]:
    """Yield services whose workspace is open; stop following at the end."""
    services = Services(home, Settings())
    with qtbot.waitSignal(services.opened, timeout=30_000):
        services.open()
    try:
        yield services
    finally:
        services.close()
        wait_for_ops()
        services.deleteLater()


class StallWatch(QObject):
    """Measures the most work that the UI thread does between two turns of its event loop, in CPU seconds.

    CPU time, not wall time: on a machine that others use, too, a thread that is ready to run waits for its turn.
    """

    def __init__(self) -> None:
        super().__init__()
        self.worst_s = 0.0
        self._last = time.thread_time()
        self._timer = QTimer(self, interval=2)
        self._timer.timeout.connect(self._on_tick)
        self._timer.start()

    def reset(self) -> None:
        """Forget what was measured so far."""
        self.worst_s, self._last = 0.0, time.thread_time()

    def stop(self) -> None:
        """Stop measuring."""
        self._timer.stop()

    def _on_tick(self) -> None:
        now = time.thread_time()
        self.worst_s = max(self.worst_s, now - self._last)
        self._last = now
