"""The composition root: the only place that knows how settings, services, controllers and views fit together.

``python -P -m app`` starts the window; so does ``pilothouse`` without a command. The window paints first, the workspace
opens behind it. Without a display the quick start is driven through the same window off screen (``app.offscreen_tour``).
"""

from __future__ import annotations

import argparse
import importlib
import locale
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from PySide6.QtCore import QMessageLogContext, QTimer, QtMsgType, qInstallMessageHandler
from PySide6.QtWidgets import QApplication

from app.controllers.actions import ActionList
from app.controllers.crash_hook import install_crash_hook
from app.controllers.fleet_controller import FleetController
from app.controllers.home_controller import HomeController
from app.controllers.notices import bridge
from app.controllers.ops import Op, wait_for_ops
from app.controllers.palette_controller import PaletteController
from app.controllers.routes import HOME, HOSTS, RUN, RUNS, SETTINGS, TRAIN
from app.controllers.run_endings import RunEndings
from app.controllers.services import Services
from app.controllers.settings_controller import SettingsController
from app.controllers.single_instance import Claim, SingleInstance
from app.controllers.start_report import StartReport, StartWatch
from app.controllers.telemetry_controller import TelemetryController
from app.views.dialogs.questions import QuestionDesk
from app.views.page import Page
from app.views.page_stack import PageSpec
from app.views.shell import Shell, ShellParts
from app.views.theme import apply_theme
from core.contracts.errors import PilothouseError
from core.contracts.settings import Settings
from core.settings.binding_check import check_binding
from core.settings.home import Home, default_home
from core.settings.store import load_settings

OK, FAILED, UNUSABLE = 0, 1, 2


class Window:
    """Everything of one open window, wired together. UI thread.

    Attributes:
        services: Access to the core.
        shell: The window itself.
    """

    def __init__(self, home: Path, settings: Settings) -> None:
        self.services = Services(home, settings)
        self.actions = ActionList()
        self.telemetry = TelemetryController(self.services)
        self.fleet = FleetController(self.services)
        self.home_controller = HomeController(self.services)
        self.settings_controller = SettingsController(self.services)
        self.shell = Shell(
            ShellParts(
                services=self.services,
                telemetry=self.telemetry,
                actions=self.actions,
                palette=PaletteController(self.services, self.actions),
                endings=RunEndings(self.services),
                pages=self._pages(),
            )
        )
        self.desk = QuestionDesk(self.fleet.questions, self.shell)

    def _pages(self) -> tuple[PageSpec, ...]:
        views = "app.views"
        return (
            PageSpec(
                key=HOME, title="Home", icon="home", module=f"{views}.home_page", build=self._home, shortcut="Ctrl+1"
            ),
            PageSpec(
                key=TRAIN,
                title="Train",
                icon="train",
                module=f"{views}.train_page",
                build=self._train,
                shortcut="Ctrl+2",
            ),
            PageSpec(
                key=RUNS, title="Runs", icon="runs", module=f"{views}.runs_page", build=self._runs, shortcut="Ctrl+3"
            ),
            PageSpec(key=RUN, title="Run", icon="runs", module=f"{views}.run_detail_page", build=self._run, rail=RUNS),
            PageSpec(
                key=HOSTS,
                title="Hosts",
                icon="hosts",
                module=f"{views}.hosts_page",
                build=self._hosts,
                shortcut="Ctrl+4",
            ),
            PageSpec(
                key=SETTINGS,
                title="Settings",
                icon="settings",
                module=f"{views}.settings_page",
                build=self._settings,
                shortcut="Ctrl+5",
                at_foot=True,
            ),
        )

    def _home(self) -> Page:
        from app.views.home_page import HomePage

        return HomePage(self.home_controller, self.telemetry, self.fleet, self.services.router)

    def _train(self) -> Page:
        from app.controllers.train_controller import TrainController
        from app.views.train_page import TrainPage

        return TrainPage(TrainController(self.services, self.services), self.fleet)

    def _runs(self) -> Page:
        from app.views.runs_page import RunsPage

        return RunsPage(self.services)

    def _run(self) -> Page:
        from app.views.run_detail_page import RunDetailPage

        return RunDetailPage(self.services, self.fleet)

    def _hosts(self) -> Page:
        from app.views.hosts_page import HostsPage

        return HostsPage(self.telemetry, self.fleet, self.services.router)

    def _settings(self) -> Page:
        from app.views.settings_page import SettingsPage

        return SettingsPage(self.settings_controller, self.actions)

    def show(self) -> None:
        """Show the window, then open the workspace behind it."""
        self.shell.show()
        QTimer.singleShot(0, self.services.open)

    def close(self) -> None:
        """Let go of everything; runs go on."""
        self.shell.hide()
        self.shell.stack.leave()
        self.telemetry.close()
        self.fleet.close()
        self.services.close()
        wait_for_ops()


def main(argv: Sequence[str] | None = None) -> int:
    """Start the window; return the exit status of the process."""
    options = _parse(sys.argv[1:] if argv is None else argv)
    try:
        check_binding()
        return _run(options)
    except PilothouseError as error:
        print(error, file=sys.stderr)
        return UNUSABLE


def has_display() -> bool:
    """Tell whether a window can be shown."""
    if sys.platform in {"win32", "darwin"}:
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def make_application() -> QApplication:
    """Return the QApplication, with C's number format kept."""
    app = QApplication(sys.argv[:1])
    # Qt takes the user's locale over; with a decimal comma in force the tokenizers and parsers of C libraries break.
    locale.setlocale(locale.LC_NUMERIC, "C")
    app.setApplicationName("Pilothouse")
    app.setDesktopFileName("pilothouse")
    app.setQuitOnLastWindowClosed(False)
    return app


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="pilothouse", description="Opens the Pilothouse window.")
    parser.add_argument(
        "--home", type=Path, default=None, help="data folder (default: PILOTHOUSE_HOME or the user's own)"
    )
    parser.add_argument("--quit-when-ready", action="store_true", help="quit as soon as the window can be used")
    parser.add_argument("--json", action="store_true", help="with --quit-when-ready: print how the start went as JSON")
    return parser.parse_args(argv)


def _run(options: argparse.Namespace) -> int:
    is_headless = not has_display()
    if is_headless:
        os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    home = Home(options.home or default_home())
    if is_headless:
        qInstallMessageHandler(_pass_on_message)
    app = make_application()
    instance = SingleInstance(home.path)
    claim = instance.claim()
    if claim is not Claim.FIRST:
        return _explain(claim)
    install_crash_hook(home.path / "crashes")
    settings, damaged = load_settings(home.settings_file)
    if damaged is not None:
        bridge().post(damaged)
    apply_theme(app, settings.theme)
    window = Window(home.path, settings)
    instance.show_wanted.connect(window.shell.bring_to_front)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: window.shell.quit())
    status = _drive(app, window, options, is_headless=is_headless)
    window.close()
    instance.release()
    return status


def _pass_on_message(_kind: QtMsgType, _context: QMessageLogContext, message: str) -> None:
    # The offscreen platform says for every window which hints it lacks; that helps nobody.
    if not message.startswith("This plugin does not support"):
        sys.stderr.write(f"{message}\n")


def _drive(app: QApplication, window: Window, options: argparse.Namespace, *, is_headless: bool) -> int:
    if is_headless and not options.quit_when_ready:
        from app.offscreen_tour import OffscreenTour

        tour = OffscreenTour(window.services, window.shell, lambda text: print(text, flush=True))
        window.show()
        app.exec()
        return tour.status
    watch = StartWatch(window.shell)
    window.shell.painted.connect(watch.note_painted)
    window.home_controller.loaded.connect(watch.note_data)
    watch.ready.connect(lambda report: _on_ready(report, options))
    window.show()
    return app.exec()


def _on_ready(report: StartReport, options: argparse.Namespace) -> None:
    if options.json:
        print(report.to_json(), flush=True)
    if options.quit_when_ready:
        QApplication.quit()
        return
    # Charts need pyqtgraph: half a second of importing that nobody should wait for when the first chart is opened.
    Op(_import_charts).start()


def _import_charts() -> None:
    importlib.import_module("pyqtgraph")


def _explain(claim: Claim) -> int:
    if claim is Claim.SHOWN_OTHER:
        print("Pilothouse is already open for this data folder; its window was brought to the front.")
        return OK
    print(
        "Pilothouse is already open for this data folder but does not answer. End it, then start again.",
        file=sys.stderr,
    )
    return FAILED


if __name__ == "__main__":
    sys.exit(main())
