from __future__ import annotations

import threading

import pytest
from PySide6.QtCore import QObject, QThread, QTimer
from pytestqt.qtbot import QtBot

from app.controllers.notices import bridge, notify
from core.contracts.notices import Severity
from tests.helpers import leaks


@pytest.fixture(autouse=True)
def _short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "GRACE_S", 0.1)


def test_a_running_timer_is_named_with_its_place(qtbot: QtBot, monkeypatch: pytest.MonkeyPatch) -> None:
    check = leaks.LeakCheck(monkeypatch)
    timer = QTimer()
    timer.start(1000)
    found = check.leaks()
    timer.stop()
    assert len(found) == 1
    assert "test_setup_leak_check.py" in found[0]
    assert check.leaks() == []


def test_a_timer_that_waits_for_deletion_is_no_leak(qtbot: QtBot, monkeypatch: pytest.MonkeyPatch) -> None:
    check = leaks.LeakCheck(monkeypatch)
    owner = QObject()
    QTimer(owner).start(1000)
    owner.deleteLater()
    assert check.leaks() == []


def test_a_qt_thread_is_a_leak_until_it_ends(qtbot: QtBot, monkeypatch: pytest.MonkeyPatch) -> None:
    check = leaks.LeakCheck(monkeypatch)
    thread = QThread()
    thread.start()
    found = check.leaks()
    thread.quit()
    assert thread.wait(5000)
    assert any("QThread" in line for line in found)
    assert check.leaks() == []


def test_a_python_thread_is_a_leak_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    check = leaks.LeakCheck(monkeypatch)
    release = threading.Event()
    thread = threading.Thread(target=release.wait, name="forgotten")
    thread.start()
    found = check.leaks()
    release.set()
    thread.join(5)
    assert found == ["thread 'forgotten' is alive"]
    assert check.leaks() == []


def test_what_an_earlier_test_told_the_user_is_dropped(qtbot: QtBot) -> None:
    notify(Severity.ERROR, "from an earlier test")
    leaks.drop_old_notices()
    assert bridge().waiting() == ()
    notify(Severity.ERROR, "from this test")
    qtbot.waitUntil(lambda: bool(bridge().waiting()))
    assert [notice.message for notice in bridge().waiting()] == ["from this test"]
