"""The navigation rail: one button per page with icon and name, the palette's button, and the application's mark."""

from __future__ import annotations

from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QButtonGroup, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from app.views.icons import app_icon, icon
from app.views.theme import SPACE, set_kind, set_role, set_surface

_WIDTH = 208


class NavigationRail(QWidget):
    """The rail on the left.

    Signals:
        chosen: Key of the page to show.
        palette_wanted: Open the command palette.
    """

    chosen = Signal(str)
    palette_wanted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        set_surface(self, "rail")
        self.setFixedWidth(_WIDTH)
        self.setAccessibleName("Pages")
        self._buttons: dict[str, QPushButton] = {}
        self._group = QButtonGroup(self)
        self._group.setExclusive(True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(SPACE.s + 4, SPACE.m, SPACE.s + 4, SPACE.s + 4)
        layout.setSpacing(SPACE.xs)
        layout.addLayout(self._brand())
        layout.addSpacing(SPACE.s)
        layout.addWidget(self._search_button())
        layout.addSpacing(SPACE.s)
        self._pages = QVBoxLayout()
        self._pages.setSpacing(2)
        layout.addLayout(self._pages)
        layout.addStretch(1)
        self._foot = QVBoxLayout()
        self._foot.setSpacing(2)
        layout.addLayout(self._foot)

    def add_page(self, key: str, title: str, icon_name: str, shortcut: str, *, at_foot: bool = False) -> None:
        """Add the button of a page."""
        button = QPushButton(f"  {title}")
        button.setObjectName(f"nav_{key}")
        button.setProperty("rail", True)
        button.setCheckable(True)
        button.setIcon(icon(icon_name))
        button.setIconSize(QSize(20, 20))
        button.setToolTip(f"{title} ({shortcut})")
        button.setAccessibleName(title)
        button.clicked.connect(lambda: self.chosen.emit(key))
        self._group.addButton(button)
        self._buttons[key] = button
        (self._foot if at_foot else self._pages).addWidget(button)

    def mark(self, key: str) -> None:
        """Show which page is open; does not emit ``chosen``."""
        if key in self._buttons:
            self._buttons[key].setChecked(True)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Move between pages with the arrow keys."""
        order = list(self._buttons.values())
        focused = next((index for index, button in enumerate(order) if button.hasFocus()), None)
        step = {Qt.Key.Key_Down: 1, Qt.Key.Key_Up: -1}.get(Qt.Key(event.key()))
        if focused is None or step is None:
            super().keyPressEvent(event)
            return
        order[(focused + step) % len(order)].setFocus(Qt.FocusReason.TabFocusReason)

    def _brand(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setContentsMargins(SPACE.xs, 0, 0, 0)
        row.setSpacing(SPACE.s + 2)
        mark = QLabel()
        mark.setPixmap(app_icon().pixmap(QSize(26, 26), self.devicePixelRatioF()))
        name = QLabel("Pilothouse")
        set_kind(name, "h2")
        row.addWidget(mark)
        row.addWidget(name, 1)
        return row

    def _search_button(self) -> QPushButton:
        button = QPushButton("  Search")
        button.setObjectName("nav_search")
        button.setProperty("rail", "search")
        button.setIcon(icon("search"))
        button.setToolTip("Find a page, a command or a run (Ctrl+K)")
        button.setAccessibleName("Search commands, pages and runs")
        set_role(button, "secondary")
        row = QHBoxLayout(button)
        row.setContentsMargins(0, 0, SPACE.s + 2, 0)
        hint = QLabel("Ctrl K")
        set_kind(hint, "caption")
        hint.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        row.addStretch(1)
        row.addWidget(hint)
        button.clicked.connect(self.palette_wanted)
        return button
