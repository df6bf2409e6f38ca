"""The Hosts page over a real fleet: a real sshd on the loopback, and far too many hosts that are never connected to."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt, QTimer
from PySide6.QtWidgets import (
    QApplication,
    QCheckBox,
    QComboBox,
    QLabel,
    QLineEdit,
    QMessageBox,
    QPlainTextEdit,
    QPushButton,
    QRadioButton,
    QWidget,
)

from app.controllers.routes import HOSTS
from app.viewmodels.host_list import HOST_ROLE, HostList
from app.viewmodels.host_wording import age_text, check_text, gpus_text, link_look, link_sentence, queue_text
from app.views.hosts.host_dialog import HostDialog
from app.views.hosts.runtime_dialog import RuntimeDialog
from core.contracts.hosts import (
    LOCAL_HOST,
    CheckReport,
    Finding,
    FindingLevel,
    HostGpu,
    HostRecord,
    HostStatus,
    LinkState,
    QueueEntry,
    RuntimeRecord,
)
from tests.helpers.fleet_scenes import records, report, status_of
from tests.helpers.ssh_server import opened_ssh_server
from tests.helpers.windows import opened


@pytest.fixture
def window(qtbot, pilothouse_home, monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    monkeypatch.setenv("HOME", str(tmp_path))
    with opened(pilothouse_home, qtbot, reads_home=False) as it:
        it.page = it.go(HOSTS)
        it.wait(lambda: it.window.fleet.is_loaded)
        yield it


def part(owner: QWidget, kind: type, name: str):
    found = owner.findChild(kind, name)
    assert found is not None, name
    return found


def press(qtbot, owner: QWidget, name: str) -> None:
    qtbot.mouseClick(part(owner, QPushButton, name), Qt.MouseButton.LeftButton)


def write(owner: QWidget, name: str, text: str) -> None:
    edit = part(owner, QLineEdit, name)
    edit.clear()
    edit.setText(text)
    edit.textEdited.emit(text)


def open_add_dialog(qtbot, it) -> HostDialog:
    press(qtbot, it.page, "hosts_first" if not it.window.fleet.hosts else "hosts_add")
    it.wait(lambda: it.shell.findChildren(HostDialog))
    return it.shell.findChildren(HostDialog)[-1]


def answer_key(qtbot, it, name: str) -> None:
    it.wait(lambda: it.window.desk.dialog is not None)
    press(qtbot, it.window.desk.dialog, name)


def agree_soon(text: str) -> None:
    """Press a button of the next message box, once it is there."""

    def press_it() -> None:
        box = QApplication.activeModalWidget()
        assert isinstance(box, QMessageBox)
        next(button for button in box.buttons() if button.text() == text).click()

    QTimer.singleShot(300, press_it)


@pytest.fixture
def server(tmp_path):
    with opened_ssh_server(tmp_path) as it:
        yield it


def fill_in(dialog: HostDialog, server) -> None:
    write(dialog, "host_address", "127.0.0.1")
    write(dialog, "host_name", "box")
    write(dialog, "host_port", str(server.port))
    write(dialog, "host_user", server.user)
    write(dialog, "host_identity", str(server.identity))


def test_a_host_is_tested_added_seen_online_and_removed(qtbot, window, server):
    dialog = open_add_dialog(qtbot, window)
    fill_in(dialog, server)
    press(qtbot, dialog, "host_test")
    answer_key(qtbot, window, "question_yes")
    window.wait(lambda: "It works" in dialog.words())
    press(qtbot, dialog, "dialog_accept")
    fleet = window.window.fleet
    window.wait(lambda: window.page.detail.name == "box")
    assert fleet.record("box").port == server.port
    window.wait(lambda: fleet.status("box").state is LinkState.ONLINE)
    row = window.page.model.row_of("box")
    window.wait(lambda: window.page.model.index(row).data(HOST_ROLE).status.state is LinkState.ONLINE)
    agree_soon("Remove")
    press(qtbot, window.page, "host_remove")
    window.wait(lambda: not fleet.hosts and window.page.detail.name == LOCAL_HOST)
    assert part(window.page, QPushButton, "hosts_first").isVisible()


def test_a_key_that_is_not_trusted_is_a_sentence(qtbot, window, server):
    dialog = open_add_dialog(qtbot, window)
    fill_in(dialog, server)
    press(qtbot, dialog, "host_test")
    answer_key(qtbot, window, "question_no")
    window.wait(lambda: not dialog._is_busy)
    assert "It works" not in dialog.words()
    assert dialog.words()
    dialog.reject()


def test_a_test_that_asks_is_cancelled_with_its_question(qtbot, window, server):
    dialog = open_add_dialog(qtbot, window)
    fill_in(dialog, server)
    press(qtbot, dialog, "host_test")
    window.wait(lambda: window.window.desk.dialog is not None)
    dialog.reject()
    window.wait(lambda: window.window.desk.dialog is None)
    assert window.window.fleet.questions.current is None


def test_what_is_wrong_with_a_host_is_said_before_it_is_kept(qtbot, window):
    dialog = open_add_dialog(qtbot, window)
    for name, address, port, words in (
        ("", "", "", "Give the host a name"),
        ("two words", "x", "", "Give the host a name"),
        ("local", "x", "", "already"),
        ("box", "", "", "address"),
        ("box", "x", "99999", "port"),
    ):
        write(dialog, "host_name", name)
        write(dialog, "host_address", address)
        write(dialog, "host_port", port)
        press(qtbot, dialog, "dialog_accept")
        assert words in dialog.words(), (name, dialog.words())
    dialog.reject()


def test_a_host_of_the_ssh_config_is_chosen(qtbot, window, tmp_path):
    (tmp_path / ".ssh").mkdir(exist_ok=True)
    (tmp_path / ".ssh" / "config").write_text("Host gpu-7\n  HostName 10.9.8.7\n  User ann\nHost *\n  Port 2200\n")
    dialog = open_add_dialog(qtbot, window)
    source = part(dialog, QComboBox, "host_source")
    window.wait(lambda: source.findData("gpu-7") > 0)
    assert "10.9.8.7" in source.itemText(source.findData("gpu-7"))
    source.setCurrentIndex(source.findData("gpu-7"))
    source.activated.emit(source.currentIndex())
    draft = dialog.draft()
    assert (draft.name, draft.alias, draft.address) == ("gpu-7", "gpu-7", "")
    dialog.reject()


def test_a_runtime_is_chosen(qtbot, window):
    dialog = RuntimeDialog("box", RuntimeRecord(), window.shell)
    part(dialog, QRadioButton, "runtime_own").setChecked(True)
    dialog.accept()
    assert "interpreter" in dialog.words()
    part(dialog, QLineEdit, "runtime_python").setText("/opt/env/bin/python")
    part(dialog, QLineEdit, "runtime_wrapper").setText("apptainer exec --nv 'my image.sif'")
    part(dialog, QPlainTextEdit, "runtime_prelude").setPlainText("module load cuda\n\nexport A='b c'\n")
    dialog.accept()
    assert dialog.choice == RuntimeRecord(
        kind="interpreter",
        python="/opt/env/bin/python",
        wrapper=("apptainer", "exec", "--nv", "my image.sif"),
        prelude=("module load cuda", "export A='b c'"),
    )
    again = RuntimeDialog("box", dialog.choice, window.shell)
    assert part(again, QRadioButton, "runtime_own").isChecked()
    again.accept()
    assert again.choice == dialog.choice


def test_a_managed_runtime_holds_what_is_checked_and_what_the_command_line_added(qtbot, window):
    dialog = RuntimeDialog("box", RuntimeRecord(), window.shell)
    dialog.accept()
    assert dialog.choice == RuntimeRecord(kind="managed", extras=("train",))
    known = RuntimeRecord(kind="managed", extras=("compress", "transformers>=4.50"))
    again = RuntimeDialog("box", known, window.shell)
    part(again, QCheckBox, "runtime_extra_infer").setChecked(True)
    again.accept()
    assert again.choice is not None
    assert again.choice.extras == ("compress", "infer", "transformers>=4.50")


def test_a_real_host_is_checked(qtbot, window, server):
    fleet = window.window.fleet
    fleet.add(server.record("box")).start()
    answer_key(qtbot, window, "question_yes")
    window.wait(lambda: fleet.status("box").state is LinkState.ONLINE)
    window.page.show_host("box")
    window.page.detail.tabs.setCurrentWidget(window.page.detail.check)
    press(qtbot, window.page.detail.check, "check_first")
    window.wait(lambda: fleet.book("box").report is not None)
    verdict = part(window.page.detail.check, QLabel, "check_verdict")
    window.wait(verdict.text)
    assert any(finding.topic for finding in fleet.book("box").report.findings)
    assert part(window.page.detail.check, QPushButton, "check_run").isEnabled()


def test_the_list_of_many_hosts(qtmodeltester, qtbot):
    hosts = records(64)
    model = HostList()
    qtmodeltester.check(model)
    model.set_hosts(hosts, {})
    qtmodeltester.check(model)
    assert model.rowCount() == 65
    assert model.host_at(0) == LOCAL_HOST
    for number, record in enumerate(hosts):
        model.set_status(status_of(record, number, 1000.0))
    model.set_filter("unreachable")
    silent = [number for number in range(64) if number % 10 == 4 and number % 17 != 6]
    assert model.rowCount() == len(silent)
    model.set_filter("lab-7 10.0")
    assert [model.host_at(row) for row in range(model.rowCount())] == ["lab-7"]
    online = model.index(0).data(HOST_ROLE)
    assert online.cpu is not None
    changed = []
    model.dataChanged.connect(lambda first, last: changed.append((first.row(), last.row())))
    model.set_status(status_of(hosts[7], 7, 1001.0))
    model.set_status(status_of(hosts[8], 8, 1001.0))
    assert changed == [(0, 0)], "only rows on view are drawn anew"


def test_words_of_connections():
    silent = HostStatus(
        name="a", state=LinkState.UNREACHABLE, since=0.0, message="No answer.", hint="Wait.", next_try=1010.0
    )
    assert link_sentence(silent, 1000.0) == "No answer. Wait. Next try in 10 s."
    assert link_look(HostStatus(name="a", state=LinkState.UNREACHABLE, since=5.0)).word.startswith("Unreachable since")
    assert [age_text(age) for age in (1, 12, 200, 7500)] == ["now", "12 s ago", "3 min ago", "2 h 5 min ago"]


def test_words_of_gpus_queues_and_checks():
    held = HostGpu(index=1, name="H100", memory_bytes=1, held_by=("ann (7 python)",))
    free = HostGpu(index=0, name="H100", memory_bytes=1)
    assert gpus_text((free, held)) == "1 of 2 free · H100 · held by ann (7 python)"
    assert gpus_text(()) == "No GPU"
    entry = QueueEntry(run_id="r", name="n", position=3, asked=4)
    assert queue_text(entry) == "2 ahead of it, asks for 4 devices"
    assert queue_text(QueueEntry(run_id="r", name="n", position=0, asked=2, devices=(0, 1))) == "Holds GPUs 0, 1"
    assert check_text(report("a")) == "1 error, 2 warnings"
    fine = CheckReport(host="a", ok=True, findings=(Finding(level=FindingLevel.OK, what="Fine."),))
    assert check_text(fine) == "The check passed"


def test_findings_fold_and_unfold(qtbot, window):
    page = window.page
    page.detail.check.show_book(window.window.fleet.book(LOCAL_HOST))
    book = window.window.fleet.book(LOCAL_HOST)
    book.report, book.checked = report(LOCAL_HOST), 0.0
    page.detail.show_book()
    findings = page.detail.check.findings
    shown = [label.text() for label in findings.findChildren(QLabel) if not label.isHidden()]
    assert any("3.1 GiB" in text for text in shown)
    assert not any("driver" in text for text in shown)
    press(qtbot, findings, "findings_all")
    assert any("driver" in label.text() for label in findings.findChildren(QLabel))


def test_a_form_keeps_slurm_and_hops(qtbot, window):
    record = HostRecord(name="login", address="login.example.org", jump=("gate", "inner"), is_slurm=True)
    dialog = HostDialog(window.window.fleet, record, window.shell)
    assert part(dialog, QCheckBox, "host_slurm").isChecked()
    assert dialog.draft() == record
    dialog.reject()
