from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QPushButton

from app.controllers.notices import notify
from app.controllers.single_instance import Claim, SingleInstance
from app.views.toast import DetailsDialog
from core.contracts.ids import RunId
from core.contracts.notices import Severity
from core.contracts.settings import Settings
from core.settings.store import load_settings
from tests.helpers.windows import opened

CTRL = Qt.KeyboardModifier.ControlModifier


@pytest.mark.parametrize(("digit", "key"), [(2, "train"), (3, "runs"), (4, "hosts"), (5, "settings")])
def test_pages_are_reached_by_ctrl_digit(qtbot, pilothouse_home, digit, key):
    with opened(pilothouse_home, qtbot) as it:
        qtbot.keyClick(it.shell, Qt.Key(Qt.Key.Key_0 + digit), CTRL)
        it.wait(lambda: it.shell.stack.current_key() == key)
        assert it.shell.rail.findChild(QPushButton, f"nav_{key}").isChecked()
        assert it.shell.windowTitle().endswith("Pilothouse")
        qtbot.keyClick(it.shell, Qt.Key.Key_1, CTRL)
        assert it.shell.stack.current_key() == "home"


def test_the_rail_is_walked_with_arrows_and_space(qtbot, pilothouse_home):
    with opened(pilothouse_home, qtbot) as it:
        home = it.shell.rail.findChild(QPushButton, "nav_home")
        train = it.shell.rail.findChild(QPushButton, "nav_train")
        home.setFocus()
        qtbot.keyClick(home, Qt.Key.Key_Up)
        settings = it.shell.rail.findChild(QPushButton, "nav_settings")
        assert it.shell.focusWidget() is settings
        qtbot.keyClick(settings, Qt.Key.Key_Down)
        qtbot.keyClick(home, Qt.Key.Key_Down)
        assert it.shell.focusWidget() is train
        qtbot.keyClick(train, Qt.Key.Key_Space)
        it.wait(lambda: it.shell.stack.current_key() == "train")


def test_every_button_of_the_frame_has_a_name_for_screen_readers(qtbot, pilothouse_home):
    with opened(pilothouse_home, qtbot) as it:
        it.go("settings")
        it.go("home")
        for button in it.shell.findChildren(QPushButton):
            if button.isHidden():
                continue
            assert button.text().strip() or button.accessibleName(), button.objectName()


def test_notices_become_toasts_and_errors_stay(qtbot, pilothouse_home):
    with opened(pilothouse_home, qtbot) as it:
        for number in range(6):
            notify(Severity.ERROR, f"Problem {number}")
        it.wait(lambda: [t.notice.message for t in it.shell.toasts.toasts()] == [f"Problem {n}" for n in range(2, 6)])
        toast = it.shell.toasts.toasts()[0]
        assert not toast._timer.isActive()
        for shown in it.shell.toasts.toasts():
            assert it.shell.rect().contains(shown.geometry())
        toast.closed.emit()
        assert len(it.shell.toasts.toasts()) == 3


def test_a_toast_opens_its_run_and_shows_its_details(qtbot, pilothouse_home):
    with opened(pilothouse_home, qtbot) as it:
        routes: list[object] = []
        it.window.services.router.requested.connect(routes.append)
        it.window.services.router.requested.disconnect(it.shell.go)
        notify(Severity.ERROR, "digits failed", run_id=RunId("20260101-000000-digits-abcdef"), details="a traceback")
        it.wait(it.shell.toasts.toasts)
        buttons = {button.text(): button for button in it.shell.toasts.toasts()[0].findChildren(QPushButton)}
        qtbot.mouseClick(buttons["Details"], Qt.MouseButton.LeftButton)
        dialog = it.shell.findChild(DetailsDialog)
        assert dialog.isVisible()
        dialog.accept()
        qtbot.mouseClick(buttons["Open run"], Qt.MouseButton.LeftButton)
        assert routes[0].run_id == "20260101-000000-digits-abcdef"
        assert it.shell.toasts.toasts() == []


def test_size_and_page_are_remembered(qtbot, pilothouse_home):
    with opened(pilothouse_home, qtbot) as it:
        it.go("settings")
        it.shell.resize(920, 655)
    settings, _ = load_settings(pilothouse_home / "settings.toml")
    assert settings.last_page == "settings"
    with opened(pilothouse_home, qtbot, settings, reads_home=False) as it:
        it.wait(lambda: it.shell.stack.current_key() == "settings")
        assert it.shell.height() == 655


def test_a_home_that_cannot_be_opened_is_explained_in_the_window(qtbot, tmp_path):
    home = tmp_path / "home"
    home.write_text("not a folder")
    from tests.helpers.windows import OpenWindow

    it = OpenWindow(home, Settings(theme="light"), qtbot)
    try:
        it.wait(lambda: "cannot be used" in it.shell.stack._busy._heading.text())
        assert "PILOTHOUSE_HOME" in it.shell.stack._busy._sentence.text()
    finally:
        it.close()


def test_a_second_start_wakes_the_first(qtbot, tmp_path):
    first, other = SingleInstance(tmp_path), SingleInstance(tmp_path / "other")
    assert first.claim() is Claim.FIRST
    assert other.claim() is Claim.FIRST
    lines = (
        "import sys, pathlib",
        "from PySide6.QtCore import QCoreApplication",
        "from app.controllers.single_instance import SingleInstance",
        "app = QCoreApplication([])",
        "print(SingleInstance(pathlib.Path(sys.argv[1])).claim().name)",
    )
    command = [sys.executable, "-c", "\n".join(lines), str(tmp_path)]
    with qtbot.waitSignal(first.show_wanted, timeout=20_000):
        second = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    qtbot.waitUntil(lambda: second.poll() is not None, timeout=20_000)
    assert second.communicate()[0].strip() == "SHOWN_OTHER"
    first.release()
    again = SingleInstance(tmp_path)
    assert again.claim() is Claim.FIRST
    again.release()
    other.release()
