from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from PySide6.QtCore import QObject, QThread

from app.controllers.notices import NoticeBridge, bridge, notify
from app.controllers.ops import Op, wait_for_ops
from core.contracts.errors import Cancelled, EnvironmentProblem, UserError
from core.contracts.notices import Notice, Severity


@pytest.fixture
def posted(qtbot) -> Iterator[list[Notice]]:
    found: list[Notice] = []
    bridge().posted.connect(found.append)
    bridge().connect_window()
    found.clear()
    yield found
    bridge().disconnect_window()
    bridge().posted.disconnect(found.append)


def test_the_work_runs_elsewhere_and_the_callback_on_the_ui_thread(qtbot):
    threads: dict[str, object] = {}

    def work() -> int:
        threads["work"] = threading.get_ident()
        return 42

    values: list[int] = []

    def receive(value: int) -> None:
        threads["callback"] = threading.get_ident()
        values.append(value)

    finished: list[bool] = []
    Op(work).succeeded(receive).finished(lambda: finished.append(True)).start()
    qtbot.waitUntil(lambda: bool(finished))
    assert values == [42]
    assert threads["callback"] == threading.get_ident() != threads["work"]


@pytest.mark.parametrize("kind", [UserError, EnvironmentProblem])
def test_a_foreseen_error_is_its_sentence_and_remedy(qtbot, kind):
    notices: list[Notice] = []

    def fail() -> None:
        raise kind("The disk is full.", "Free some space.")

    Op(fail).failed(notices.append).start()
    qtbot.waitUntil(lambda: bool(notices))
    assert (notices[0].message, notices[0].hint, notices[0].details) == ("The disk is full.", "Free some space.", "")


def test_without_a_callback_the_error_reaches_the_window(qtbot, posted):
    def fail() -> None:
        raise UserError("No such run.")

    Op(fail).start()
    qtbot.waitUntil(lambda: bool(posted))
    assert posted[0].message == "No such run."


def test_a_bug_becomes_a_crash_report_with_the_traceback(qtbot, posted, tmp_path):
    bridge().set_crash_dir(tmp_path / "crashes")

    def broken() -> float:
        return 1 / 0

    Op(broken).start()
    qtbot.waitUntil(lambda: bool(posted))
    reports = list((tmp_path / "crashes").glob("crash-*.txt"))
    assert len(reports) == 1
    assert "ZeroDivisionError" in reports[0].read_text()
    assert "ZeroDivisionError" in posted[0].details
    assert str(reports[0]) in posted[0].hint


def test_a_crash_report_that_cannot_be_written_does_not_hide_the_error(qtbot, tmp_path):
    (tmp_path / "file").write_text("")
    own = NoticeBridge()
    own.set_crash_dir(tmp_path / "file" / "crashes")
    assert "KeyError" in own.notice_of(KeyError("x")).details


def test_cancelled_is_silent(qtbot, posted):
    ended: list[str] = []

    def cancelled() -> None:
        raise Cancelled

    Op(cancelled).failed(lambda _: ended.append("failed")).finished(lambda: ended.append("finished")).start()
    qtbot.waitUntil(lambda: bool(ended))
    assert ended == ["finished"]
    assert posted == []


def test_a_cancelled_op_calls_nothing(qtbot):
    go = threading.Event()
    calls: list[object] = []
    op = Op(go.wait).succeeded(calls.append).finished(lambda: calls.append("finished")).start()
    op.cancel()
    go.set()
    qtbot.waitUntil(lambda: not op.is_live)
    assert calls == []


def test_the_callback_of_a_destroyed_object_is_not_called(qtbot):
    class Owner(QObject):
        def receive(self, _value: object) -> None:
            calls.append(self)

    calls: list[object] = []
    go = threading.Event()
    owner = Owner()
    op = Op(go.wait).succeeded(owner.receive).start()
    owner.deleteLater()
    qtbot.waitSignal(owner.destroyed, timeout=2000)
    import shiboken6

    qtbot.waitUntil(lambda: not shiboken6.isValid(owner))
    go.set()
    qtbot.waitUntil(lambda: not op.is_live)
    assert calls == []


def test_waiting_for_ops_ends_when_they_have(qtbot):
    done: list[bool] = []
    Op(lambda: QThread.msleep(30)).finished(lambda: done.append(True)).start()
    assert wait_for_ops(5000)
    qtbot.waitUntil(lambda: bool(done))


def test_notices_wait_for_a_window(qtbot):
    own = NoticeBridge()
    early = Notice(severity=Severity.WARNING, message="The settings could not be read.")
    own.post(early)
    qtbot.waitUntil(lambda: own.waiting() == (early,))
    seen: list[Notice] = []
    own.posted.connect(seen.append)
    own.connect_window()
    assert seen == [early]
    assert own.waiting() == ()


def test_notices_from_threads_arrive_on_the_ui_thread(qtbot, posted):
    worker = threading.Thread(target=lambda: notify(Severity.INFO, "From a thread"))
    worker.start()
    worker.join()
    qtbot.waitUntil(lambda: [notice.message for notice in posted] == ["From a thread"])
