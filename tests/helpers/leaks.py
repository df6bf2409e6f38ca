"""Finds Python threads, Qt threads, pool work and Qt timers that a test started and left running.

Remembers what was started, and where, by wrapping ``QThread.start`` and ``QTimer.start`` for the test's time; gives
what is ending a moment to end. Timers of objects that wait for deletion are not leaks: deletions are carried out first.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import shiboken6
from PySide6.QtCore import QCoreApplication, QEvent, QThread, QThreadPool, QTimer

GRACE_S = 3.0
ROOT = Path(__file__).resolve().parents[2]


class LeakCheck:
    """What was running before the test, and what it started since."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._threads_before = set(threading.enumerate())
        self._started: list[tuple[weakref.ref[Any], str]] = []
        for owner in (QThread, QTimer):
            monkeypatch.setattr(owner, "start", self._remembering(owner.start))

    def _remembering(self, start: Callable[..., None]) -> Callable[..., None]:
        def remember(instance: Any, *args: Any) -> None:
            self._started.append((weakref.ref(instance), _caller()))
            start(instance, *args)

        return remember

    def leaks(self) -> list[str]:
        """Return a line for each thing still running after a moment's grace. Thread: the main thread."""
        deadline = time.monotonic() + GRACE_S
        while True:
            _carry_out_deletions()
            found = [*self._python_threads(), *self._qt_objects(), *_pool_work()]
            if not found or time.monotonic() > deadline:
                return found
            time.sleep(0.02)

    def _python_threads(self) -> list[str]:
        return [
            f"thread {thread.name!r} is alive"
            for thread in threading.enumerate()
            # A Qt thread that ran Python code shows up as a dummy thread for ever.
            if thread not in self._threads_before and not isinstance(thread, threading._DummyThread)
        ]

    def _qt_objects(self) -> list[str]:
        found: list[str] = []
        for reference, place in self._started:
            instance = reference()
            if instance is None or not shiboken6.isValid(instance):
                continue
            is_running = instance.isRunning() if isinstance(instance, QThread) else instance.isActive()
            if is_running:
                found.append(f"{type(instance).__name__} started at {place} is running")
        return found


def drop_old_notices() -> None:
    """Let what earlier tests told the user go nowhere, so that it does not reach the next test's window."""
    module = sys.modules.get("app.controllers.notices")
    if module is None or QCoreApplication.instance() is None:
        return
    QCoreApplication.processEvents()
    module.bridge().connect_window()
    module.bridge().disconnect_window()


def _caller() -> str:
    for frame in reversed(traceback.extract_stack()[:-2]):
        path = Path(frame.filename)
        if path.is_relative_to(ROOT) and ".venv" not in path.parts:
            return f"{path.relative_to(ROOT)}:{frame.lineno}"
    return "an unknown place"


def _carry_out_deletions() -> None:
    if QCoreApplication.instance() is not None:
        QCoreApplication.processEvents()
        QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)


def _pool_work() -> list[str]:
    active = QThreadPool.globalInstance().activeThreadCount()
    return [f"{active} task(s) of the global thread pool go on"] if active else []
