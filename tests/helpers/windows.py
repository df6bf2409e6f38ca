"""Opens the real window over a real home for a test, and closes it without leaving anything behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PySide6.QtCore import QCoreApplication, QElapsedTimer, QEvent, QTimer
from PySide6.QtWidgets import QApplication

from app.__main__ import Window
from app.controllers.home_controller import HomeSnapshot
from app.controllers.notices import bridge
from app.controllers.routes import Route
from app.views.theme import apply_theme
from core.contracts.settings import Settings

PATIENCE_MS = 30_000


class OpenWindow:
    """A window that is open, with its Home read.

    Attributes:
        window: The wired window.
        snapshots: What Home has read so far.
    """

    def __init__(self, home: Path, settings: Settings, qtbot: Any) -> None:
        app = QApplication.instance()
        assert isinstance(app, QApplication)
        apply_theme(app, settings.theme)
        self._qtbot = qtbot
        self.snapshots: list[HomeSnapshot] = []
        self.window = Window(home, settings)
        self.shell = self.window.shell
        self.window.home_controller.loaded.connect(self.snapshots.append)
        self.window.show()

    def wait(self, condition: Callable[[], Any]) -> None:
        """Run the event loop until a condition holds."""
        self._qtbot.waitUntil(lambda: bool(condition()), timeout=PATIENCE_MS)

    def go(self, key: str, **what: Any) -> Any:
        """Open a page and return it."""
        self.window.services.router.go(Route(page=key, **what))
        self.wait(lambda: self.shell.stack.current_key() == key)
        return self.shell.stack.page(key)

    def close(self) -> None:
        """Close the window and delete its parts."""
        self.shell.quit()
        self.window.close()
        bridge().disconnect_window()
        for part in (self.shell, self.window.services):
            part.deleteLater()
        QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
        QCoreApplication.processEvents()


@contextmanager
def opened(
    home: Path, qtbot: Any, settings: Settings | None = None, *, reads_home: bool = True
) -> Iterator[OpenWindow]:
    """Open a window; wait for its Home unless said otherwise."""
    it = OpenWindow(home, settings or Settings(theme="light"), qtbot)
    try:
        it.wait(lambda: it.window.services.is_open)
        if reads_home:
            it.wait(lambda: it.snapshots)
        yield it
    finally:
        it.close()


class Watchdog:
    """Measures the longest time for which the event loop did not answer."""

    def __init__(self) -> None:
        self.worst_ms = 0
        self._clock = QElapsedTimer()
        self._timer = QTimer(interval=5)
        self._timer.timeout.connect(self._on_tick)

    def start(self) -> None:
        """Begin."""
        self._clock.start()
        self._timer.start()

    def stop(self) -> None:
        """End."""
        self._timer.stop()

    def _on_tick(self) -> None:
        self.worst_ms = max(self.worst_ms, self._clock.restart())
