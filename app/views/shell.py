"""The window: navigation rail, pages, status bar, toasts, command palette and tray, held together.

It paints before the workspace is open; until then the pages' place shows a busy state. Closing it stops no run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from PySide6.QtCore import QByteArray, Qt, QTimer, Signal
from PySide6.QtGui import QCloseEvent, QKeySequence, QPaintEvent, QShortcut
from PySide6.QtWidgets import QApplication, QHBoxLayout, QMainWindow, QVBoxLayout, QWidget

from app.controllers.actions import Action, ActionList
from app.controllers.notices import bridge
from app.controllers.palette_controller import PaletteController
from app.controllers.routes import HOME, HOSTS, Route
from app.controllers.run_endings import RunEndings
from app.controllers.services import Services
from app.controllers.telemetry_controller import TelemetryController
from app.viewmodels.reading_history import TelemetrySample
from app.views.icons import app_icon
from app.views.navigation import NavigationRail
from app.views.page_stack import PageSpec, PageStack
from app.views.palette import CommandPalette
from app.views.status_bar import StatusBar
from app.views.theme import apply_theme
from app.views.toast import ToastStack
from app.views.tray import Tray
from core.contracts.ids import RunId
from core.contracts.notices import Notice, Severity
from core.contracts.settings import Settings

_DEFAULT_SIZE = (1360, 860)
_MIN_SIZE = (920, 600)
_MESSAGE_PAUSE_MS = 150


@dataclass(frozen=True, slots=True, kw_only=True)
class ShellParts:
    """What the shell is made of, built by the composition root."""

    services: Services
    telemetry: TelemetryController
    actions: ActionList
    palette: PaletteController
    endings: RunEndings
    pages: tuple[PageSpec, ...]


class Shell(QMainWindow):
    """The window.

    Attributes:
        stack: Its pages.
        toasts: Its notices.
        palette_view: Its command palette.

    Signals:
        painted: The window was painted for the first time.
    """

    painted = Signal()

    def __init__(self, parts: ShellParts) -> None:
        super().__init__()
        self._services = parts.services
        self._telemetry = parts.telemetry
        self._actions = parts.actions
        self._specs = {spec.key: spec for spec in parts.pages}
        self._is_quitting = False
        self._is_painted = False
        self._wanted: Route | None = None
        self.setWindowTitle("Pilothouse")
        self.setWindowIcon(app_icon())
        self.setMinimumSize(*_MIN_SIZE)
        self._build(parts)
        self._build_tray()
        self._message_pause = QTimer(self, singleShot=True, interval=_MESSAGE_PAUSE_MS)
        self._message_pause.timeout.connect(self._show_message)
        self._register_actions(parts.pages)
        self._connect(parts)
        self._restore(parts.services.settings)

    def _build(self, parts: ShellParts) -> None:
        central = QWidget()
        whole = QHBoxLayout(central)
        whole.setContentsMargins(0, 0, 0, 0)
        whole.setSpacing(0)
        self.rail = NavigationRail()
        for spec in parts.pages:
            if not spec.rail:
                self.rail.add_page(spec.key, spec.title, spec.icon, spec.shortcut, at_foot=spec.at_foot)
        right = QVBoxLayout()
        right.setContentsMargins(0, 0, 0, 0)
        right.setSpacing(0)
        self.stack = PageStack(parts.pages)
        self.status = StatusBar()
        right.addWidget(self.stack, 1)
        right.addWidget(self.status)
        whole.addWidget(self.rail)
        whole.addLayout(right, 1)
        self.setCentralWidget(central)
        self.toasts = ToastStack(self, self.status.height())
        self.palette_view = CommandPalette(parts.palette, self)

    def _build_tray(self) -> None:
        self.tray = Tray(self)
        self.tray.show_wanted.connect(self.bring_to_front)
        self.tray.quit_wanted.connect(self.quit)
        self.tray.run_wanted.connect(self._open_run)

    def _register_actions(self, pages: tuple[PageSpec, ...]) -> None:
        for spec in pages:
            if not spec.rail:
                self._actions.add(
                    Action(
                        key=f"go.{spec.key}",
                        title=f"Go to {spec.title}",
                        icon=spec.icon,
                        shortcut=spec.shortcut,
                        run=self._goer(spec.key),
                    )
                )
        self._actions.add(
            Action(
                key="palette",
                title="Search commands, pages and runs",
                icon="search",
                shortcut="Ctrl+K",
                run=self.palette_view.open,
            )
        )
        self._actions.add(
            Action(
                key="quit",
                title="Quit Pilothouse (runs go on)",
                icon="close",
                shortcut="Ctrl+Q",
                run=self.quit,
                words="exit close",
            )
        )
        for action in self._actions.with_shortcut():
            shortcut = QShortcut(QKeySequence(action.shortcut), self)
            shortcut.activated.connect(action.run)

    def _goer(self, key: str) -> Callable[[], None]:
        return lambda: self.go(Route(page=key))

    def _connect(self, parts: ShellParts) -> None:
        self.rail.chosen.connect(lambda key: self.go(Route(page=key)))
        self.rail.palette_wanted.connect(self.palette_view.open)
        self.stack.shown.connect(self._on_page_shown)
        self.status.hosts_wanted.connect(lambda: self.go(Route(page=HOSTS)))
        self.toasts.run_wanted.connect(self._open_run)
        services = parts.services
        services.router.requested.connect(self.go)
        services.opened.connect(self._on_opened)
        services.open_failed.connect(self._on_open_failed)
        services.runs_changed.connect(self._message_pause.start)
        services.settings_changed.connect(self._on_settings_changed)
        parts.endings.ended.connect(self._on_run_ended)
        parts.telemetry.sampled.connect(self._on_sampled)
        bridge().posted.connect(self.toasts.show_notice)
        bridge().connect_window()

    def go(self, route: Route) -> None:
        """Show a page, once the workspace is open; until then the last wish is kept."""
        self.rail.mark(self._specs[route.page].rail or route.page)
        if self._services.is_open:
            self.stack.go(route)
        else:
            self._wanted = route

    def bring_to_front(self) -> None:
        """Show the window above others."""
        if self.isMinimized():
            self.showNormal()
        self.show()
        self.raise_()
        self.activateWindow()
        self._telemetry.resume()

    def quit(self) -> None:
        """End the program; runs go on."""
        self._is_quitting = True
        self.close()
        QApplication.quit()

    def _open_run(self, run_id: str) -> None:
        self._services.router.open_run(RunId(run_id))

    def _on_opened(self, _workspace: object) -> None:
        last = self._services.settings.last_page
        known = last in self._specs and not self._specs[last].rail
        self.go(self._wanted or Route(page=last if known else HOME))
        self._show_message()

    def _on_open_failed(self, notice: Notice) -> None:
        self.stack.show_problem(notice)
        self.status.set_message("The data folder could not be opened")

    def _on_page_shown(self, key: str) -> None:
        spec = self._specs[key]
        self.rail.mark(spec.rail or key)
        self.setWindowTitle(f"{spec.title} - Pilothouse")
        page = self.stack.page(key)
        if page is not None and not page.isAncestorOf(QApplication.focusWidget() or self):
            page.setFocus(Qt.FocusReason.OtherFocusReason)

    def _on_sampled(self, sample: TelemetrySample) -> None:
        if self.isVisible():
            self.status.show_sample(sample, self._telemetry.history)

    def _on_run_ended(self, notice: Notice) -> None:
        self.toasts.show_notice(notice)
        if self._services.settings.notify_on_end and not self.isActiveWindow():
            self.tray.notify(notice)

    def _show_message(self) -> None:
        live = self._services.live_count()
        text = "Ready" if live == 0 else ("1 run goes on" if live == 1 else f"{live} runs go on")
        self.status.set_message(text)
        self.tray.set_tip(f"Pilothouse: {text}")

    def _on_settings_changed(self, settings: Settings) -> None:
        app = QApplication.instance()
        if isinstance(app, QApplication):
            apply_theme(app, settings.theme)

    def _restore(self, settings: Settings) -> None:
        self.resize(*_DEFAULT_SIZE)
        if settings.window_geometry:
            self.restoreGeometry(QByteArray.fromBase64(settings.window_geometry.encode()))

    def _remember(self) -> None:
        geometry = bytes(self.saveGeometry().toBase64().data()).decode()
        page = self.stack.current_key()
        spec = self._specs.get(page)
        self._services.change_settings(window_geometry=geometry, last_page=(spec.rail or page) if spec else "")

    def paintEvent(self, event: QPaintEvent) -> None:
        """Tell of the first paint."""
        super().paintEvent(event)
        if not self._is_painted:
            self._is_painted = True
            self.painted.emit()

    def closeEvent(self, event: QCloseEvent) -> None:
        """Go to the tray while runs go on, where there is a tray; else end. Runs go on in either case."""
        if self._services.is_open:
            self._remember()
        live = self._services.live_count()
        if live and self.tray.is_available and not self._is_quitting:
            event.ignore()
            self.hide()
            self._telemetry.pause()
            runs = "One run goes on" if live == 1 else f"{live} runs go on"
            self.tray.notify(
                Notice(severity=Severity.INFO, message=f"{runs}.", hint="Pilothouse stays in the tray; quit it there.")
            )
            return
        bridge().disconnect_window()
        event.accept()
        if not self._is_quitting:
            QApplication.quit()
        super().closeEvent(event)
