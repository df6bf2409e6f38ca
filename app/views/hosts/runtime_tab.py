"""The Python environment of a host: what is there, and what can be done about it: set up, repair, remove.

Widgets: ``runtime_install``, ``runtime_repair``, ``runtime_remove``.
"""

from __future__ import annotations

import time

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QGridLayout, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from app.controllers.fleet_controller import HostBook
from app.viewmodels.host_wording import age_text, runtime_text
from app.views.icons import icon
from app.views.page import scroll_area
from app.views.theme import SPACE, set_kind, set_role
from app.views.widgets.card import Card
from app.views.widgets.empty_state import EmptyState
from app.views.widgets.task_panel import TaskPanel
from core.contracts.hosts import LOCAL_HOST, HostRecord, RuntimeRecord


class RuntimeTab(QWidget):
    """Shows the runtime of one host.

    Signals:
        install_wanted: Choose a runtime and set it up.
        repair_wanted: Do the same set-up again.
        remove_wanted: Remove it.
    """

    install_wanted = Signal()
    repair_wanted = Signal()
    remove_wanted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, SPACE.m, 0, 0)
        column.setSpacing(SPACE.m)
        self._empty = EmptyState("script", "", "", "Set up…")
        self._empty.button.setObjectName("runtime_first")
        self._empty.triggered.connect(self.install_wanted)
        self._card = Card("What runs use here")
        self._facts = QGridLayout()
        self._facts.setHorizontalSpacing(SPACE.l)
        self._facts.setVerticalSpacing(SPACE.s)
        self._facts.setColumnStretch(1, 1)
        self._card.body.addLayout(self._facts)
        self._card.body.addLayout(self._build_buttons())
        self._work = Card()
        self.panel = TaskPanel()
        self._work.body.addWidget(self.panel)
        body = QVBoxLayout()
        body.setSpacing(SPACE.m)
        for widget in (self._empty, self._card):
            body.addWidget(widget)
        body.addWidget(self._work)
        body.addStretch(1)
        column.addWidget(scroll_area(body, SPACE.s), 1)

    def show_book(self, name: str, record: HostRecord | None, book: HostBook) -> None:
        """Show what is known of a host's runtime."""
        if book.setting_up is not None:
            self.panel.follow(book.setting_up)
        self._work.setVisible(not self.panel.isHidden())
        is_busy = book.setting_up is not None
        runtime = record.runtime if record is not None else RuntimeRecord()
        is_set = runtime.kind != "none"
        for button in self._buttons:
            button.setEnabled(not is_busy)
        self._card.setVisible(is_set)
        self._empty.setVisible(not is_set and not is_busy)
        if name == LOCAL_HOST:
            self._empty.set_content(
                "success", "Nothing to set up", "Runs on this computer use the environment that Pilothouse runs in."
            )
        else:
            self._empty.set_content(
                "script",
                "Runs need a Python environment there",
                "Pilothouse makes one with torch that fits the host's driver, or uses one of yours.",
                "Set up…",
            )
        if is_set:
            self._show_facts(runtime)

    def forget(self) -> None:
        """Another host is shown: its work is not that of the last one."""
        self.panel.follow(None)

    def _build_buttons(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setContentsMargins(0, SPACE.s, 0, 0)
        row.setSpacing(SPACE.s)
        self._buttons: list[QPushButton] = []
        for name, text, icon_name, signal in (
            ("runtime_repair", "Check and repair", "refresh", self.repair_wanted),
            ("runtime_install", "Change…", "settings", self.install_wanted),
            ("runtime_remove", "Remove…", "trash", self.remove_wanted),
        ):
            button = QPushButton(text)
            button.setObjectName(name)
            button.setIcon(icon(icon_name))
            if name == "runtime_remove":
                set_role(button, "danger")
            button.clicked.connect(signal)
            self._buttons.append(button)
            row.addWidget(button)
        row.addStretch(1)
        return row

    def _show_facts(self, runtime: RuntimeRecord) -> None:
        while (item := self._facts.takeAt(0)) is not None:
            widget = item.widget()
            if widget is not None:
                widget.hide()
                widget.deleteLater()
        passed = "never" if runtime.checked is None else age_text(max(time.time() - runtime.checked, 0.0))
        facts = (
            ("Kind", runtime_text(runtime)),
            ("Interpreter", runtime.python),
            ("Prelude", "\n".join(runtime.prelude)),
            ("Wrapper", " ".join(runtime.wrapper)),
            ("Worker package", runtime.worker_version),
            ("Self-test passed", passed),
        )
        shown = [fact for fact in facts if fact[1]]
        for row, (name, text) in enumerate(shown):
            label, value = QLabel(name), QLabel(text)
            set_kind(label, "muted")
            value.setWordWrap(True)
            value.setTextFormat(Qt.TextFormat.PlainText)
            value.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
            self._facts.addWidget(label, row, 0, Qt.AlignmentFlag.AlignTop)
            self._facts.addWidget(value, row, 1)
