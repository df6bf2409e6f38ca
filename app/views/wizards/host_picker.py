"""Chooses the hosts of a run: a check list with how each stands, its free GPUs and who holds the others; the head first.

Widgets: ``pick_hosts`` (table), ``pick_filter``, ``pick_<host>`` (a host's box).
"""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QLineEdit,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from app.controllers.fleet_controller import FleetController
from app.viewmodels.host_wording import address_text, gpus_text, link_look
from app.viewmodels.wording import natural_key
from app.views.icons import icon
from app.views.theme import SPACE, set_kind
from app.views.widgets.chip import Chip
from core.contracts.hosts import HostGpu, HostRecord, HostStatus, LinkState

_TITLES = ("Host", "State", "GPUs", "Role")
_ROW_HEIGHT = 40
_SHOWN_ROWS = 8
_MANY = 8
_NAME_WIDTH = 168


class HostPicker(QWidget):
    """A check list of hosts, in the order in which they were checked.

    Signals:
        changed: The names chosen (list of str), the head first, by the user's hand.
    """

    changed = Signal(object)

    def __init__(self, fleet: FleetController, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._fleet = fleet
        self._chosen: list[str] = []
        self._rows: dict[str, int] = {}
        self._asked: set[str] = set()
        self._spans_nodes = True
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(SPACE.s)
        self._filter = QLineEdit()
        self._filter.setObjectName("pick_filter")
        self._filter.setPlaceholderText("Filter by name or address")
        self._filter.setAccessibleName("Filter the hosts")
        self._filter.setClearButtonEnabled(True)
        self._filter.addAction(icon("search"), QLineEdit.ActionPosition.LeadingPosition)
        self._filter.textChanged.connect(self._apply_filter)
        column.addWidget(self._filter)
        self.table = self._build_table()
        column.addWidget(self.table)
        self._note = QLabel()
        self._note.setObjectName("pick_note")
        self._note.setWordWrap(True)
        set_kind(self._note, "caption")
        column.addWidget(self._note)
        fleet.status_changed.connect(self._on_status)

    def set_hosts(self, hosts: tuple[HostRecord, ...]) -> None:
        """Show the hosts there are."""
        hosts = tuple(sorted(hosts, key=lambda record: natural_key(record.name)))
        self.table.setRowCount(0)
        self._rows = {record.name: row for row, record in enumerate(hosts)}
        self.table.setRowCount(len(hosts))
        for record in hosts:
            self._fill(record)
            self._show_status(self._fleet.status(record.name))
        self._filter.setVisible(len(hosts) > _MANY)
        rows = min(max(len(hosts), 2), _SHOWN_ROWS)
        self.table.setFixedHeight(rows * _ROW_HEIGHT + self.table.horizontalHeader().sizeHint().height() + 4)
        self._show_roles()

    def set_chosen(self, names: tuple[str, ...], *, spans_nodes: bool) -> None:
        """Show which hosts are chosen; a kind that does not span nodes takes one."""
        self._spans_nodes = spans_nodes
        self._chosen = list(names)
        self._show_roles()

    def chosen(self) -> list[str]:
        """Return the hosts chosen, the head first."""
        return list(self._chosen)

    def show_gpus(self, name: str, text: str) -> None:
        """Show what is known of a host's GPUs."""
        row = self._rows.get(name)
        if row is not None:
            self._item(row, 2).setText(text)
            self._item(row, 2).setToolTip(text)

    def ask_gpus(self) -> None:
        """Ask the hosts that answer for their GPUs, each once."""
        for name in self._rows:
            self._ask_gpus(name)

    def _build_table(self) -> QTableWidget:
        table = QTableWidget(0, len(_TITLES))
        table.setObjectName("pick_hosts")
        table.setAccessibleName("Hosts to run on")
        table.setHorizontalHeaderLabels(_TITLES)
        header = table.horizontalHeader()
        header.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        header.setSectionResizeMode(QHeaderView.ResizeMode.Interactive)
        header.setSectionResizeMode(2, QHeaderView.ResizeMode.Stretch)
        for column, width in ((0, 240), (1, 224), (3, 64)):
            table.setColumnWidth(column, width)
        table.verticalHeader().hide()
        table.verticalHeader().setDefaultSectionSize(_ROW_HEIGHT)
        table.setShowGrid(False)
        table.setWordWrap(False)
        table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        table.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        table.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        return table

    def _fill(self, record: HostRecord) -> None:
        row = self._rows[record.name]
        box = QCheckBox(self.fontMetrics().elidedText(record.name, Qt.TextElideMode.ElideMiddle, _NAME_WIDTH))
        box.setAccessibleName(record.name)
        box.setObjectName(f"pick_{record.name}")
        box.setToolTip(f"{record.name}: {address_text(record)}")
        box.clicked.connect(lambda checked, name=record.name: self._on_clicked(name, checked=checked))
        self.table.setCellWidget(row, 0, _padded(box))
        self.table.setCellWidget(row, 1, _padded(Chip()))
        for column in (0, 1, 2, 3):
            self.table.setItem(row, column, QTableWidgetItem())
        if record.runtime.kind == "none":
            self._item(row, 2).setText("Not set up yet; see Hosts")

    def _item(self, row: int, column: int) -> QTableWidgetItem:
        item = self.table.item(row, column)
        if item is None:
            raise IndexError(row, column)
        return item

    def _box(self, name: str) -> QCheckBox:
        found = self.table.findChild(QCheckBox, f"pick_{name}")
        if not isinstance(found, QCheckBox):
            raise KeyError(name)
        return found

    def _on_clicked(self, name: str, *, checked: bool) -> None:
        if not self._spans_nodes:
            self._chosen = [name] if checked else []
        elif checked:
            self._chosen.append(name)
        else:
            self._chosen.remove(name)
        self._show_roles()
        self.changed.emit(self.chosen())

    def _show_roles(self) -> None:
        for name, row in self._rows.items():
            self._box(name).setChecked(name in self._chosen)
            role = ""
            if len(self._chosen) > 1 and name in self._chosen:
                role = "Head" if name == self._chosen[0] else str(self._chosen.index(name))
            self._item(row, 3).setText(role)
        gone = [name for name in self._chosen if name not in self._rows]
        words = "" if self._spans_nodes else "This kind of run uses one host. "
        if len(self._chosen) > 1:
            words = f"{len(self._chosen)} hosts; the first one chosen leads. "
        if gone:
            words += f"Not among your hosts any more: {', '.join(gone)}. "
        self._note.setText(words.strip())
        self._note.setVisible(bool(words))

    def _on_status(self, status: HostStatus) -> None:
        if status.name in self._rows:
            self._show_status(status)
            if self.isVisible():
                self._ask_gpus(status.name)

    def _show_status(self, status: HostStatus) -> None:
        row = self._rows[status.name]
        holder = self.table.cellWidget(row, 1)
        chip = holder.findChild(Chip)
        if isinstance(chip, Chip):
            look = link_look(status)
            chip.set_content(look.word, look.colour, look.icon)
            chip.setToolTip(status.message)

    def _ask_gpus(self, name: str) -> None:
        record = self._fleet.record(name)
        ready = record is not None and record.runtime.kind != "none"
        if not ready or name in self._asked or self._fleet.status(name).state is not LinkState.ONLINE:
            return
        self._asked.add(name)

        def take(gpus: tuple[HostGpu, ...]) -> None:
            self.show_gpus(name, gpus_text(gpus))

        self._fleet.ask(lambda fleet: fleet.gpus(name)).succeeded(take).failed(
            lambda notice: self.show_gpus(name, notice.message)
        ).start(may_wait=True)

    def _apply_filter(self, text: str) -> None:
        words = text.lower().split()
        for record in self._fleet.hosts:
            row = self._rows.get(record.name)
            if row is not None:
                shown = all(word in f"{record.name} {address_text(record)}".lower() for word in words)
                self.table.setRowHidden(row, not shown)


def _padded(widget: QWidget) -> QWidget:
    holder = QWidget()
    row = QHBoxLayout(holder)
    row.setContentsMargins(SPACE.s, 0, SPACE.s, 0)
    row.addWidget(widget)
    row.addStretch(1)
    return holder
