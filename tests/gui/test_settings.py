from __future__ import annotations

import time
from pathlib import Path
from threading import Lock

import pytest
from PySide6.QtCore import Qt, QTimer
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QApplication, QCheckBox, QPushButton, QSlider

from app.controllers.notices import bridge
from app.controllers.ops import wait_for_ops
from app.controllers.services import Services
from app.controllers.settings_controller import scrub
from app.views.theme import DARK, LIGHT, theme
from core.contracts.ids import RunId
from core.contracts.settings import Settings
from core.settings.store import load_settings, save_settings
from tests.helpers.builders import build_run
from tests.helpers.windows import opened


def kept(home: Path):
    return load_settings(home / "settings.toml")[0]


def test_the_theme_changes_at_once_and_is_kept(qtbot, pilothouse_home):
    with opened(pilothouse_home, qtbot) as it:
        page = it.go("settings")
        qtbot.mouseClick(page.findChild(QPushButton, "theme_dark"), Qt.MouseButton.LeftButton)
        assert theme() is DARK
        it.wait(lambda: kept(pilothouse_home).theme == "dark")
        qtbot.mouseClick(page.findChild(QPushButton, "theme_light"), Qt.MouseButton.LeftButton)
        assert theme() is LIGHT
        it.wait(lambda: kept(pilothouse_home).theme == "light")


def test_switch_and_slider_are_kept(qtbot, pilothouse_home):
    with opened(pilothouse_home, qtbot) as it:
        page = it.go("settings")
        page.findChild(QCheckBox, "notify_on_end").click()
        it.wait(lambda: kept(pilothouse_home).notify_on_end is False)
        slider = page.findChild(QSlider, "smoothing")
        slider.setFocus()
        qtbot.keyClick(slider, Qt.Key.Key_PageUp)
        it.wait(lambda: kept(pilothouse_home).smoothing == pytest.approx(0.10))
        assert page._smoothing_value.text() == "0.10"


def test_settings_changed_in_a_row_are_written_one_after_the_other(qtbot, pilothouse_home, monkeypatch):
    written, under_way = [], Lock()

    def slow_save(path, settings):
        assert under_way.acquire(blocking=False), "another one is writing"
        time.sleep(0.05)
        save_settings(path, settings)
        written.append(settings)
        under_way.release()

    monkeypatch.setattr("core.settings.store.save_settings", slow_save)
    with opened(pilothouse_home, qtbot) as it:
        for percent in range(4):
            it.window.settings_controller.set_smoothing(percent / 100)
        it.wait(lambda: len(written) == 4)
        assert written[-1].smoothing == kept(pilothouse_home).smoothing == pytest.approx(0.03)
        assert bridge().waiting() == ()


def test_diagnostics_reach_the_clipboard_without_secrets(qtbot, pilothouse_home, monkeypatch):
    monkeypatch.setenv("PILOTHOUSE_TOKEN", "hunter2hunter2")
    monkeypatch.setenv("QT_SCALE_FACTOR_ROUNDING_POLICY", "PassThrough")
    with opened(pilothouse_home, qtbot) as it:
        page = it.go("settings")
        QGuiApplication.clipboard().clear()
        qtbot.mouseClick(page.findChild(QPushButton, "copy_diagnostics"), Qt.MouseButton.LeftButton)
        it.wait(lambda: "Pilothouse diagnostics" in QGuiApplication.clipboard().text())
        text = QGuiApplication.clipboard().text()
        assert "QT_SCALE_FACTOR_ROUNDING_POLICY=PassThrough" in text
        assert "PySide6-Essentials 6." in text
        assert "hunter2" not in text


@pytest.mark.parametrize(
    "secret",
    [
        "HF_TOKEN=hf_abcdefghijklmnopqrstuv",
        "password: correct-horse",
        "https://ann:correct-horse@example.org/x",
        "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
        "api_key = correct-horse",
    ],
)
def test_secrets_are_removed(secret):
    cleaned = scrub(f"before {secret} after")
    assert "correct-horse" not in cleaned
    assert "abcdefghijklmnop" not in cleaned
    assert cleaned.startswith("before ")
    assert cleaned.endswith(" after")


def test_the_home_folder_is_not_told():
    assert scrub(f"{Path.home()}/models/x").startswith("~/") or len(str(Path.home())) == 1


def test_a_user_id_without_an_entry_still_hides_its_folder(monkeypatch):
    def nobody(*_):
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setenv("HOME", "/home/somewhere")
    monkeypatch.setattr("app.controllers.settings_controller.getuser", nobody)
    assert scrub("in /home/somewhere/x") == "in ~/x"


def test_rebuilding_the_history_finds_the_runs_again(qtbot, pilothouse_home):
    build_run(pilothouse_home, name="digits", steps=5)
    with opened(pilothouse_home, qtbot) as it:
        it.wait(lambda: it.snapshots[-1].total == 1)
        page = it.go("settings")
        qtbot.mouseClick(page.findChild(QPushButton, "rebuild_history"), Qt.MouseButton.LeftButton)
        it.go("home")
        seen = len(it.snapshots)
        it.wait(lambda: len(it.snapshots) > seen or it.snapshots[-1].total == 1)
        it.wait(lambda: it.snapshots[-1].total == 1)


def test_the_bin_is_emptied_after_one_question(qtbot, pilothouse_home):
    run_dir = build_run(pilothouse_home, name="digits", steps=5)
    with opened(pilothouse_home, qtbot) as it:
        it.wait(lambda: it.snapshots[-1].total == 1)
        page = it.go("settings")
        button = page.findChild(QPushButton, "empty_bin")
        assert not button.isEnabled()
        it.window.services.workspace.delete([RunId(run_dir.name)])
        it.go("home")
        it.go("settings")
        it.wait(button.isEnabled)
        assert button.text() == "Empty (1)…"

        def answer() -> None:
            box = QApplication.activeModalWidget()
            qtbot.mouseClick(next(b for b in box.buttons() if "for good" in b.text()), Qt.MouseButton.LeftButton)

        QTimer.singleShot(0, answer)
        qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
        it.wait(lambda: not button.isEnabled())
    assert list((pilothouse_home / "bin").iterdir()) == []


def test_what_is_set_while_the_home_is_being_opened_is_kept(qtbot, pilothouse_home):
    services = Services(pilothouse_home, Settings())
    services.change_settings(smoothing=0.5)
    services.open()
    qtbot.waitUntil(lambda: kept(pilothouse_home).smoothing == 0.5, timeout=10_000)
    wait_for_ops()
    services.close()
