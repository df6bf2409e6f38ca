"""Runs that hold devices of a host or wait for some; the order of those that wait can be changed.

Widgets: ``queue_table``, ``queue_up``, ``queue_down``, ``queue_open``.
"""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QHeaderView,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from app.controllers.fleet_controller import HostBook
from app.viewmodels.host_wording import queue_text
from app.viewmodels.wording import moment_text
from app.views.icons import icon
from app.views.theme import SPACE
from app.views.widgets.empty_state import EmptyState
from core.contracts.hosts import QueueEntry

_TITLES = ("Place", "Run", "Since", "Id")


class QueueTab(QWidget):
    """Shows the queue of one host.

    Signals:
        move_wanted: Run id (str) and the new place (int), from 1.
        open_wanted: Run id (str).
        read_wanted: Read the queue anew.
    """

    move_wanted = Signal(str, int)
    open_wanted = Signal(str)
    read_wanted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._entries: tuple[QueueEntry, ...] = ()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, SPACE.m, 0, SPACE.m)
        column.setSpacing(SPACE.s)
        column.addLayout(self._build_bar())
        self.table = self._build_table()
        column.addWidget(self.table, 1)
        self.state = EmptyState("inbox", "", "")
        self.state.triggered.connect(self.read_wanted)
        column.addWidget(self.state, 1)
        self._show_buttons()

    def show_book(self, book: HostBook) -> None:
        """Show what is known of a host's queue."""
        problem, entries = book.queue_problem, book.queue
        if problem is not None:
            self.state.set_content("warning", problem.message, problem.hint, "Try again")
        elif entries is None:
            self.state.set_content("clock", "Reading the queue…", "")
        else:
            self.state.set_content(
                "inbox",
                "Nothing runs or waits here",
                "Runs launched with “Wait for free devices” queue up on the host itself and go on without this window.",
            )
        has_rows = bool(entries) and problem is None
        self.table.setVisible(has_rows)
        self.state.setVisible(not has_rows)
        self._show_entries(entries or ())

    def _build_bar(self) -> QHBoxLayout:
        bar = QHBoxLayout()
        bar.setSpacing(SPACE.s)
        self._buttons: dict[str, QPushButton] = {}
        for name, text, icon_name, slot in (
            ("queue_up", "Move up", "", lambda: self._move(-1)),
            ("queue_down", "Move down", "", lambda: self._move(1)),
            ("queue_open", "Open run", "open", self._open),
            ("queue_read", "Read again", "refresh", self.read_wanted.emit),
        ):
            button = QPushButton(text)
            button.setObjectName(name)
            if icon_name:
                button.setIcon(icon(icon_name))
            button.clicked.connect(lambda _=False, slot=slot: slot())
            self._buttons[name] = button
            bar.addWidget(button)
        bar.addStretch(1)
        return bar

    def _build_table(self) -> QTableWidget:
        table = QTableWidget(0, len(_TITLES))
        table.setObjectName("queue_table")
        table.setAccessibleName("Queue of this host")
        table.setHorizontalHeaderLabels(_TITLES)
        table.horizontalHeader().setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        table.horizontalHeader().setSectionResizeMode(1, QHeaderView.ResizeMode.Stretch)
        table.verticalHeader().hide()
        table.verticalHeader().setDefaultSectionSize(36)
        table.setShowGrid(False)
        table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        table.itemSelectionChanged.connect(self._show_buttons)
        table.itemActivated.connect(lambda _: self._open())
        return table

    def _show_entries(self, entries: tuple[QueueEntry, ...]) -> None:
        chosen = self._chosen()
        self._entries = tuple(sorted(entries, key=lambda entry: (entry.position, entry.since)))
        self.table.setRowCount(len(self._entries))
        for row, entry in enumerate(self._entries):
            since = moment_text(entry.since) if entry.since else ""
            for column, text in enumerate((queue_text(entry), entry.name or entry.run_id, since, entry.run_id)):
                item = self.table.item(row, column)
                if item is None:
                    item = QTableWidgetItem()
                    self.table.setItem(row, column, item)
                item.setText(text)
                item.setToolTip(text)
        if chosen is not None:
            place = next((n for n, entry in enumerate(self._entries) if entry.run_id == chosen.run_id), None)
            if place is not None:
                self.table.selectRow(place)
        self._show_buttons()

    def _chosen(self) -> QueueEntry | None:
        rows = self.table.selectionModel().selectedRows()
        return self._entries[rows[0].row()] if rows and rows[0].row() < len(self._entries) else None

    def _show_buttons(self) -> None:
        chosen = self._chosen()
        waits = chosen is not None and chosen.position > 0
        last = max((entry.position for entry in self._entries), default=0)
        self._buttons["queue_up"].setEnabled(waits and chosen is not None and chosen.position > 1)
        self._buttons["queue_down"].setEnabled(waits and chosen is not None and chosen.position < last)
        self._buttons["queue_open"].setEnabled(chosen is not None)

    def _move(self, by: int) -> None:
        chosen = self._chosen()
        if chosen is not None:
            self.move_wanted.emit(chosen.run_id, chosen.position + by)

    def _open(self) -> None:
        chosen = self._chosen()
        if chosen is not None:
            self.open_wanted.emit(chosen.run_id)
