"""The stability tab of a run: how often the guard saw what, a time line, a table of its events, and its policies.

Widgets: ``stability_table``, ``stability_search``, ``stability_signal``, ``stability_action``, ``stability_jump``.
"""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QSignalBlocker, Qt, Signal
from PySide6.QtWidgets import (
    QComboBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from app.viewmodels.record_table import RecordTableModel
from app.viewmodels.stability_events import (
    COLUMNS,
    action_title,
    counts,
    filtered,
    has_guard,
    policies,
    signal_title,
    stability_events,
)
from app.views.icons import icon
from app.views.page import scroll_area
from app.views.theme import SPACE, set_kind
from app.views.widgets.card import Card
from app.views.widgets.empty_state import EmptyState
from app.views.widgets.event_strip import EventStrip
from app.views.widgets.record_table import RecordTable
from core.contracts.runs import MarkerRecord, RunDetail

_WIDTHS = (90, 120, 170, 190)
_TABLE_HEIGHT = 420
_EMPTY_HEIGHT = 220


class StabilityBoard(QWidget):
    """Shows the guard's events.

    Signals:
        marker_wanted: ``MarkerRecord`` to show on the curves.
    """

    marker_wanted = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._events: tuple[MarkerRecord, ...] = ()
        self._shown: object = None
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, SPACE.s, 0, 0)
        body = QVBoxLayout()
        body.setSpacing(SPACE.m)
        body.addWidget(self._build_events())
        body.addWidget(self._build_policies())
        body.addStretch(1)
        outer.addWidget(scroll_area(body, SPACE.s), 1)

    @staticmethod
    def concerns(detail: RunDetail) -> bool:
        """Tell whether a run has anything to show here."""
        return bool(stability_events(detail)) or has_guard(detail.spec_toml)

    def show_detail(self, detail: RunDetail) -> None:
        """Show a run; the filter and the place stay while nothing changed."""
        events = stability_events(detail)
        if self._shown == (detail.summary.run_id, events):
            return
        self._shown = (detail.summary.run_id, events)
        self._events = events
        self._show_policies(detail.spec_toml)
        _fill_choice(self.signal, "Every signal", [(signal_title(name), name) for name, _ in counts(events)])
        actions = dict.fromkeys(event.action for event in events)
        _fill_choice(self.action, "Every action", [(action_title(name), name) for name in actions])
        self._counts.setText(" · ".join(f"{signal_title(name)} {count}" for name, count in counts(events)))
        self._empty.setVisible(not events)
        self._filled.setVisible(bool(events))
        self._filter()

    def _build_events(self) -> Card:
        card = Card("What the guard saw and did")
        self._counts = QLabel()
        self._counts.setObjectName("stability_counts")
        self._counts.setTextFormat(Qt.TextFormat.PlainText)
        set_kind(self._counts, "caption")
        card.title_row.addWidget(self._counts)
        words = "Spikes, values that are not finite and slow steps are listed here, each with what was done about it."
        self._empty = EmptyState("shield", "Nothing out of the ordinary", words)
        self._empty.setMinimumHeight(_EMPTY_HEIGHT)
        self._filled = QWidget()
        column = QVBoxLayout(self._filled)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(SPACE.s)
        column.addLayout(self._build_filters())
        self.strip = EventStrip()
        self.strip.marker_wanted.connect(self.marker_wanted)
        column.addWidget(self.strip)
        self._model = RecordTableModel(COLUMNS, self)
        self.table = RecordTable(self._model, "stability_table", "Events of the stability guard")
        self.table.setToolTip("Enter or double click: show the step on the curves")
        self.table.setFixedHeight(_TABLE_HEIGHT)
        for n, width in enumerate(_WIDTHS):
            self.table.setColumnWidth(n, width)
        self.table.record_activated.connect(self.marker_wanted)
        self.table.selectionModel().currentRowChanged.connect(self._on_row)
        column.addWidget(self.table)
        self._filled.hide()
        card.body.addWidget(self._empty)
        card.body.addWidget(self._filled)
        return card

    def _build_filters(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setSpacing(SPACE.s)
        self.search = QLineEdit()
        self.search.setObjectName("stability_search")
        self.search.setPlaceholderText("Filter by step, reason, block…")
        self.search.setAccessibleName("Filter the events")
        self.search.setClearButtonEnabled(True)
        self.search.textChanged.connect(self._filter)
        self.signal = QComboBox()
        self.signal.setObjectName("stability_signal")
        self.signal.setAccessibleName("Signal")
        self.action = QComboBox()
        self.action.setObjectName("stability_action")
        self.action.setAccessibleName("Action")
        for choice in (self.signal, self.action):
            choice.currentIndexChanged.connect(self._filter)
        self._jump = QPushButton("Show on the curves")
        self._jump.setObjectName("stability_jump")
        self._jump.setIcon(icon("chart"))
        self._jump.setEnabled(False)
        self._jump.clicked.connect(self._on_jump)
        row.addWidget(self.search, 1)
        row.addWidget(self.signal)
        row.addWidget(self.action)
        row.addWidget(self._jump)
        return row

    def _build_policies(self) -> Card:
        self._policies = Card("Policies in force")
        self._no_guard = QLabel("The guard is off in this run's spec: nothing is watched.")
        set_kind(self._no_guard, "muted")
        self._policies.body.addWidget(self._no_guard)
        self._grid = QGridLayout()
        self._grid.setHorizontalSpacing(SPACE.l)
        self._grid.setVerticalSpacing(SPACE.xs)
        self._grid.setColumnStretch(3, 1)
        self._policies.body.addLayout(self._grid)
        return self._policies

    def _show_policies(self, spec_toml: str) -> None:
        while (item := self._grid.takeAt(0)) is not None:
            widget = item.widget()
            if widget is not None:
                widget.hide()
                widget.deleteLater()
        rows = policies(spec_toml)
        self._no_guard.setVisible(not rows)
        for n, row in enumerate(rows):
            signal, policy = QLabel(row.signal), QLabel(row.policy)
            set_kind(signal, "muted")
            self._grid.addWidget(signal, n // 2, 2 * (n % 2))
            self._grid.addWidget(policy, n // 2, 2 * (n % 2) + 1)

    def _filter(self) -> None:
        shown = filtered(
            self._events, self.search.text(), self.signal.currentData() or "", self.action.currentData() or ""
        )
        self._model.set_rows(shown)
        self.strip.show_events(shown)
        self._jump.setEnabled(False)

    def _on_row(self) -> None:
        self._jump.setEnabled(self.table.chosen() is not None)

    def _on_jump(self) -> None:
        chosen = self.table.chosen()
        if chosen is not None:
            self.marker_wanted.emit(chosen)


def _fill_choice(choice: QComboBox, anything: str, entries: Sequence[tuple[str, str]]) -> None:
    """Fill a choice anew; what was chosen stays where it still exists."""
    before = choice.currentData()
    with QSignalBlocker(choice):
        choice.clear()
        choice.addItem(anything, "")
        for title, name in entries:
            choice.addItem(title, name)
        choice.setCurrentIndex(max(choice.findData(before), 0))
