"""The icon in the desktop's tray: keeps Pilothouse at hand while its window is closed, and shows desktop notifications."""

from __future__ import annotations

from PySide6.QtCore import QObject, Signal
from PySide6.QtWidgets import QMenu, QSystemTrayIcon, QWidget

from app.views.icons import app_icon
from core.contracts.notices import Notice, Severity

_ICONS = {
    Severity.INFO: QSystemTrayIcon.MessageIcon.Information,
    Severity.SUCCESS: QSystemTrayIcon.MessageIcon.Information,
    Severity.WARNING: QSystemTrayIcon.MessageIcon.Warning,
    Severity.ERROR: QSystemTrayIcon.MessageIcon.Critical,
}
_SHOWN_MS = 8000


class Tray(QObject):
    """The tray icon, where the desktop has a tray.

    Signals:
        show_wanted: Bring the window to front.
        quit_wanted: End Pilothouse; runs go on.
        run_wanted: Id of the run of the notification that was pressed.
    """

    show_wanted = Signal()
    quit_wanted = Signal()
    run_wanted = Signal(str)

    def __init__(self, window: QWidget) -> None:
        super().__init__(window)
        self._icon: QSystemTrayIcon | None = None
        self._run_id: str | None = None
        if not QSystemTrayIcon.isSystemTrayAvailable():
            return
        menu = QMenu(window)
        menu.addAction("Show Pilothouse").triggered.connect(self.show_wanted)
        menu.addSeparator()
        menu.addAction("Quit (runs go on)").triggered.connect(self.quit_wanted)
        self._icon = QSystemTrayIcon(app_icon(), self)
        self._icon.setToolTip("Pilothouse")
        self._icon.setContextMenu(menu)
        self._icon.activated.connect(self._on_activated)
        self._icon.messageClicked.connect(self._on_message_clicked)
        self._icon.show()

    @property
    def is_available(self) -> bool:
        """True when the desktop has a tray."""
        return self._icon is not None

    def set_tip(self, text: str) -> None:
        """Change what the icon's tooltip says."""
        if self._icon is not None:
            self._icon.setToolTip(text)

    def notify(self, notice: Notice) -> None:
        """Show a desktop notification, where there are any."""
        if self._icon is not None and self._icon.supportsMessages():
            self._run_id = notice.run_id
            self._icon.showMessage(notice.message, notice.hint, _ICONS[notice.severity], _SHOWN_MS)

    def _on_activated(self, reason: QSystemTrayIcon.ActivationReason) -> None:
        if reason is QSystemTrayIcon.ActivationReason.Trigger:
            self.show_wanted.emit()

    def _on_message_clicked(self) -> None:
        self.show_wanted.emit()
        if self._run_id is not None:
            self.run_wanted.emit(self._run_id)
