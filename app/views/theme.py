"""The one place of the look: sizes, colours of light and dark, the curve palette, and how they reach the application.

``apply_theme`` sets palette, font and style sheet; ``theme`` returns the tokens in force; ``theme_host().changed``
tells widgets that paint for themselves (plots, chips, icons) to paint anew. The style sheet stands in ``theme_qss``.
Roles are dynamic properties: ``role="primary|secondary|danger|ghost"`` on buttons, ``kind="h1|h2|h3|caption|muted|mono"``
on labels, ``surface="card|sunken|rail"`` on frames; set them with ``set_role``, ``set_kind`` and ``set_surface``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from PySide6.QtCore import QObject, Qt, Signal
from PySide6.QtGui import QColor, QFont, QFontDatabase, QPalette
from PySide6.QtWidgets import QAbstractButton, QApplication, QFrame, QLabel, QWidget

from app.viewmodels.resource_files import font_files
from app.views.theme_qss import style_sheet
from app.views.theme_tokens import DARK, LIGHT, MONO_FAMILIES, SPACE, UI_FAMILIES, Theme
from core.contracts.states import RunState

ThemeMode = Literal["system", "light", "dark"]
ButtonRole = Literal["primary", "secondary", "danger", "ghost"]
LabelKind = Literal["h1", "h2", "h3", "body", "caption", "muted", "mono", "value", "error"]
SurfaceKind = Literal["card", "sunken", "rail", "bar", "hero"]

__all__ = [
    "DARK",
    "LIGHT",
    "SPACE",
    "Theme",
    "ThemeHost",
    "apply_theme",
    "mono_font",
    "set_kind",
    "set_role",
    "set_surface",
    "state_colour",
    "state_icon",
    "theme",
    "theme_host",
]


@dataclass(frozen=True, slots=True)
class _StateLook:
    colour: str
    icon: str


class ThemeHost(QObject):
    """Holds the theme in force; follows the system while the mode is ``system``.

    Signals:
        changed: The new ``Theme``; emitted on the UI thread after the application has taken it on.
    """

    changed = Signal(object)

    def __init__(self, app: QApplication) -> None:
        super().__init__(app)
        self._app = app
        self.theme = LIGHT
        self.mode: ThemeMode = "system"
        self._is_dressed = False
        app.styleHints().colorSchemeChanged.connect(self._on_system_scheme_changed)

    def set_mode(self, mode: ThemeMode) -> None:
        """Choose light, dark or the system's, and repaint everything when that changes something."""
        self.mode = mode
        if not self._is_dressed:
            self._app.setStyle("fusion")
            _load_fonts(self._app)
            self._is_dressed = True
        self._take(self._wanted())

    def _wanted(self) -> Theme:
        if self.mode == "system":
            dark = self._app.styleHints().colorScheme() is Qt.ColorScheme.Dark
            return DARK if dark else LIGHT
        return DARK if self.mode == "dark" else LIGHT

    def _take(self, wanted: Theme) -> None:
        if wanted is self.theme and self._app.styleSheet():
            return
        self.theme = wanted
        self._app.setPalette(_palette(wanted))
        self._app.setStyleSheet(style_sheet(wanted))
        self.changed.emit(wanted)

    def _on_system_scheme_changed(self) -> None:
        if self.mode == "system":
            self._take(self._wanted())


_host: ThemeHost | None = None


def theme_host() -> ThemeHost:
    """Return the application's theme host, made on first use; needs a QApplication."""
    global _host  # noqa: PLW0603 - as global as the QApplication it belongs to
    app = QApplication.instance()
    if not isinstance(app, QApplication):
        raise TypeError("The theme needs a QApplication.")
    if _host is None or _host.parent() is not app:
        _host = ThemeHost(app)
    return _host


def apply_theme(app: QApplication, mode: ThemeMode = "system") -> None:
    """Give the application its style, font and colours; call again to change the mode. UI thread."""
    del app  # taken as an argument to say that there must be one
    theme_host().set_mode(mode)


def theme() -> Theme:
    """Return the tokens in force."""
    return theme_host().theme


def mono_font(pixel_size: int = 12) -> QFont:
    """Return the fixed-pitch font for logs, specs and code."""
    font = QFont(MONO_FAMILIES)
    font.setStyleHint(QFont.StyleHint.Monospace)
    font.setPixelSize(pixel_size)
    return font


def set_role(button: QAbstractButton, role: ButtonRole) -> None:
    """Give a button its role."""
    _set_property(button, "role", role)


def set_kind(label: QLabel, kind: LabelKind) -> None:
    """Give a label its kind."""
    _set_property(label, "kind", kind)


def set_surface(frame: QFrame | QWidget, surface: SurfaceKind) -> None:
    """Give a frame its surface."""
    frame.setAttribute(Qt.WidgetAttribute.WA_StyledBackground, on=True)
    _set_property(frame, "surface", surface)


def state_colour(state: RunState, tokens: Theme | None = None) -> str:
    """Return the colour that stands for a run's state."""
    return getattr(tokens or theme(), _STATE_LOOKS[state].colour)


def state_icon(state: RunState) -> str:
    """Return the name of the icon that stands for a run's state: colour is never the only sign."""
    return _STATE_LOOKS[state].icon


_STATE_LOOKS = {
    RunState.QUEUED: _StateLook("text_muted", "clock"),
    RunState.PREPARING: _StateLook("info", "clock"),
    RunState.RUNNING: _StateLook("accent", "play"),
    RunState.PAUSING: _StateLook("warning", "pause"),
    RunState.PAUSED: _StateLook("warning", "pause"),
    RunState.STOPPING: _StateLook("warning", "stop"),
    RunState.SUCCEEDED: _StateLook("success", "success"),
    RunState.FAILED: _StateLook("danger", "error"),
    RunState.STOPPED: _StateLook("text_muted", "stop"),
    RunState.LOST: _StateLook("warning", "lost"),
}


def _set_property(widget: QWidget, name: str, value: str) -> None:
    if widget.property(name) == value:
        return
    widget.setProperty(name, value)
    # A style sheet looks at properties only when a widget is polished; a later change needs this.
    widget.style().unpolish(widget)
    widget.style().polish(widget)


def _load_fonts(app: QApplication) -> None:
    for path in font_files():
        QFontDatabase.addApplicationFont(str(path))
    font = QFont(UI_FAMILIES)
    font.setPixelSize(13)
    font.setHintingPreference(QFont.HintingPreference.PreferNoHinting)
    app.setFont(font)


def _palette(tokens: Theme) -> QPalette:
    palette = QPalette()
    roles = {
        QPalette.ColorRole.Window: tokens.background,
        QPalette.ColorRole.WindowText: tokens.text,
        QPalette.ColorRole.Base: tokens.surface,
        QPalette.ColorRole.AlternateBase: tokens.sunken,
        QPalette.ColorRole.Text: tokens.text,
        QPalette.ColorRole.PlaceholderText: tokens.text_faint,
        QPalette.ColorRole.Button: tokens.surface,
        QPalette.ColorRole.ButtonText: tokens.text,
        QPalette.ColorRole.BrightText: tokens.danger,
        QPalette.ColorRole.Highlight: tokens.accent,
        QPalette.ColorRole.HighlightedText: tokens.on_accent,
        QPalette.ColorRole.Link: tokens.accent,
        QPalette.ColorRole.LinkVisited: tokens.accent,
        QPalette.ColorRole.ToolTipBase: tokens.raised,
        QPalette.ColorRole.ToolTipText: tokens.text,
        QPalette.ColorRole.Light: tokens.surface,
        QPalette.ColorRole.Midlight: tokens.border,
        QPalette.ColorRole.Mid: tokens.border,
        QPalette.ColorRole.Dark: tokens.border_strong,
        QPalette.ColorRole.Shadow: tokens.border_strong,
        QPalette.ColorRole.Accent: tokens.accent,
    }
    for role, colour in roles.items():
        palette.setColor(role, QColor(colour))
    for role in (QPalette.ColorRole.Text, QPalette.ColorRole.WindowText, QPalette.ColorRole.ButtonText):
        palette.setColor(QPalette.ColorGroup.Disabled, role, QColor(tokens.text_faint))
    return palette
