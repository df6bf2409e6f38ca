"""The list of hosts with a filter, and how to get the first one.

Widgets: ``hosts_list``, ``hosts_filter`` (where there are many), ``hosts_first`` (where there is none yet).
"""

from __future__ import annotations

from PySide6.QtCore import QItemSelectionModel, QModelIndex, Signal
from PySide6.QtWidgets import QLabel, QLineEdit, QListView, QPushButton, QVBoxLayout, QWidget

from app.viewmodels.host_list import HostList
from app.views.icons import icon
from app.views.theme import SPACE, set_kind, set_role
from app.views.widgets.card import Card
from app.views.widgets.host_delegate import ROW_HEIGHT, HostDelegate

_MANY = 6
_NO_LIMIT = 16_777_215


class HostIndex(Card):
    """Chooses a host.

    Signals:
        chosen: Name of the host (str).
        add_wanted: Add a host.
    """

    chosen = Signal(str)
    add_wanted = Signal()

    def __init__(self, model: HostList, parent: QWidget | None = None) -> None:
        super().__init__(parent=parent)
        self._model = model
        self._name = ""
        self.filter = QLineEdit()
        self.filter.setObjectName("hosts_filter")
        self.filter.setPlaceholderText("Filter by name, address, state")
        self.filter.setAccessibleName("Filter the hosts")
        self.filter.setClearButtonEnabled(True)
        self.filter.addAction(icon("search"), QLineEdit.ActionPosition.LeadingPosition)
        self.filter.textChanged.connect(self._on_filter)
        self.list = QListView()
        self.list.setObjectName("hosts_list")
        self.list.setAccessibleName("Hosts")
        self.list.setProperty("bare", True)
        self.list.setUniformItemSizes(True)
        self.list.setMouseTracking(True)
        self.list.setVerticalScrollMode(QListView.ScrollMode.ScrollPerPixel)
        self.list.setItemDelegate(HostDelegate(self.list))
        self.list.setModel(model)
        self.list.selectionModel().currentChanged.connect(self._on_current)
        model.modelReset.connect(self._restore)
        self._none = QLabel("No host matches.")
        set_kind(self._none, "muted")
        self._none.hide()
        self.body.addWidget(self.filter)
        self.body.addWidget(self.list, 1)
        self.body.addWidget(self._none)
        self.body.addWidget(self._build_first())
        self.body.addStretch(0)
        self.show_total()

    def choose(self, name: str) -> None:
        """Mark a host as chosen; nobody is told."""
        self._name = name
        self._restore()

    def show_total(self) -> None:
        """Show the filter where there are many hosts, and the invitation where there is none."""
        self.filter.setVisible(self._model.total > _MANY)
        is_alone = self._model.total == 1
        self._first.setVisible(is_alone)
        self.list.setMaximumHeight(ROW_HEIGHT + 4 if is_alone else _NO_LIMIT)

    def _build_first(self) -> QWidget:
        self._first = QWidget()
        column = QVBoxLayout(self._first)
        column.setContentsMargins(0, SPACE.s, 0, SPACE.s)
        column.setSpacing(SPACE.s)
        words = QLabel("Train on other machines, too: any host that you reach by SSH, with nothing installed there.")
        words.setWordWrap(True)
        set_kind(words, "muted")
        button = QPushButton("Add a host…")
        button.setObjectName("hosts_first")
        set_role(button, "primary")
        button.clicked.connect(self.add_wanted)
        column.addWidget(words)
        column.addWidget(button)
        return self._first

    def _on_filter(self, text: str) -> None:
        self._model.set_filter(text)
        self._none.setVisible(self._model.rowCount() == 0)

    def _on_current(self, current: QModelIndex, _before: QModelIndex) -> None:
        name = self._model.host_at(current.row()) if current.isValid() else None
        if name is not None and name != self._name:
            self._name = name
            self.chosen.emit(name)

    def _restore(self) -> None:
        row = self._model.row_of(self._name)
        if row is not None:
            index = self._model.index(row)
            self.list.selectionModel().setCurrentIndex(index, QItemSelectionModel.SelectionFlag.ClearAndSelect)
            self.list.scrollTo(index)
