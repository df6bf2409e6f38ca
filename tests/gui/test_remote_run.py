"""From the window to another host and back: a host is set up, checked, given a run, and the run's page follows it.

The host is this machine behind a real sshd; its environment is the one that the tests run in.
"""

from __future__ import annotations

import sys

import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtWidgets import QLabel, QLineEdit, QPushButton, QWidget

from app.controllers.routes import HOSTS, RUN, TRAIN
from app.views.wizards.new_run import Step
from core.contracts.hosts import LinkState, RuntimeRecord
from core.contracts.states import RunState
from tests.helpers.ssh_server import opened_ssh_server
from tests.helpers.windows import opened

SCRIPT = """
import time
for step in range(5):
    print(f"step {step} loss {1.0 / (step + 1):.4f}", flush=True)
    time.sleep(0.05)
print("done on the host", flush=True)
"""


def press(qtbot, owner: QWidget, name: str) -> None:
    button = owner.findChild(QPushButton, name)
    assert button is not None, name
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


@pytest.mark.timeout(300)
def test_a_run_on_another_host(qtbot, pilothouse_home, monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    script = tmp_path / "code" / "train.py"
    script.parent.mkdir()
    script.write_text(SCRIPT)
    with opened_ssh_server(tmp_path) as server, opened(pilothouse_home, qtbot, reads_home=False) as it:
        fleet, hosts = it.window.fleet, it.go(HOSTS)
        it.wait(lambda: fleet.is_loaded)
        fleet.add(server.record("box", work_dir=str(tmp_path / "on-the-host"))).start()
        it.wait(lambda: it.window.desk.dialog is not None)
        press(qtbot, it.window.desk.dialog, "question_yes")
        it.wait(lambda: fleet.status("box").state is LinkState.ONLINE)
        hosts.show_host("box")
        problems = []
        task = fleet.install("box", RuntimeRecord(kind="interpreter", python=sys.executable))
        task.failed.connect(problems.append)
        qtbot.waitUntil(lambda: fleet.book("box").setting_up is None, timeout=120_000)
        assert problems == []
        it.wait(lambda: fleet.record("box").runtime.kind == "interpreter")
        it.wait(lambda: fleet.status("box").readings)
        it.wait(lambda: hosts.detail.overview.plots)

        page = it.go(TRAIN, kind="train.script")
        wizard = page.wizard
        it.wait(lambda: wizard.step is Step.SETTINGS)
        for name, text in (("field_name", "on the box"), ("field_script", str(script))):
            edit = page.findChild(QLineEdit, name)
            edit.setText(text)
            edit.textEdited.emit(text)
        press(qtbot, page, "wizard_next")
        press(qtbot, page, "where_hosts")
        box = page.findChild(QWidget, "pick_box")
        qtbot.mouseClick(box, Qt.MouseButton.LeftButton, pos=QPoint(10, box.height() // 2))
        press(qtbot, page, "wizard_next")
        launch = page.findChild(QPushButton, "wizard_launch")
        verdict = page.findChild(QLabel, "review_verdict")
        qtbot.waitUntil(lambda: launch.isEnabled() or "problem" in verdict.text(), timeout=60_000)
        assert launch.isEnabled(), wizard._review_step._findings
        assert "--hosts box" in wizard._review_step._command.text()
        it.wait(lambda: "box" in wizard._review_step._plan.toPlainText())
        press(qtbot, page, "wizard_launch")
        qtbot.waitUntil(lambda: it.shell.stack.current_key() == RUN or bool(wizard._note.text()), timeout=90_000)
        assert it.shell.stack.current_key() == RUN, wizard._note.text()

        run = it.shell.stack.page(RUN)
        qtbot.waitUntil(
            lambda: run.controller.summary is not None and run.controller.summary.state.is_terminal, timeout=90_000
        )
        assert run.controller.summary.state is RunState.SUCCEEDED, run.controller.summary.message
        it.wait(lambda: "done on the host" in run.log.text.toPlainText())
        it.wait(lambda: run.tabs.isTabVisible(run.tabs.indexOf(run.board_of_nodes)))
        table = run.board_of_nodes.table
        assert table.item(0, 1).text() == "box"
        it.wait(lambda: table.item(0, 6).text() == "None left, verified")
