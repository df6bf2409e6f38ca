"""The row over the run table: search box, states as toggles, kind of run; its answer is a ``RunQuery``."""

from __future__ import annotations

from dataclasses import replace

from PySide6.QtCore import QSignalBlocker, QTimer, Signal
from PySide6.QtGui import QWheelEvent
from PySide6.QtWidgets import QComboBox, QHBoxLayout, QLabel, QLineEdit, QPushButton, QWidget

from app.views.icons import icon
from app.views.theme import SPACE, set_kind, set_role
from core.contracts.forms import RunKindInfo
from core.contracts.runs import RunQuery
from core.contracts.states import TERMINAL_STATES, RunState

_SEARCH_DELAY_MS = 220
_OPEN = tuple(state for state in RunState if state not in TERMINAL_STATES)
_STATE_GROUPS: tuple[tuple[str, str, tuple[RunState, ...]], ...] = (
    ("all", "All", ()),
    ("open", "Going on", _OPEN),
    ("succeeded", "Succeeded", (RunState.SUCCEEDED,)),
    ("failed", "Failed", (RunState.FAILED, RunState.LOST)),
    ("stopped", "Stopped", (RunState.STOPPED,)),
)


class _KindBox(QComboBox):
    def wheelEvent(self, e: QWheelEvent) -> None:
        """Leave the wheel alone: a query must not change by accident."""
        e.ignore()


class RunFilters(QWidget):
    """Names: ``runs_search``, ``runs_state_<group>``, ``runs_kind``.

    Signals:
        changed: The ``RunQuery`` wanted now.
    """

    changed = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._query = RunQuery()
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(SPACE.s)
        row.addWidget(self._build_search(), 2)
        self._states: dict[str, QPushButton] = {}
        for key, label, states in _STATE_GROUPS:
            button = QPushButton(label)
            button.setCheckable(True)
            button.setChecked(not states)
            button.setObjectName(f"runs_state_{key}")
            button.setAccessibleName(f"Show runs: {label}")
            set_role(button, "ghost")
            button.clicked.connect(lambda _=False, key=key, states=states: self._choose_states(key, states))
            self._states[key] = button
            row.addWidget(button)
        self._kinds = _KindBox()
        self._kinds.setObjectName("runs_kind")
        self._kinds.setAccessibleName("Kind of run")
        self._kinds.addItem("All kinds", "")
        self._kinds.setMinimumWidth(170)
        self._kinds.activated.connect(self._on_kind_chosen)
        row.addWidget(self._kinds)
        row.addStretch(1)
        self._count = QLabel()
        set_kind(self._count, "caption")
        row.addWidget(self._count)

    @property
    def is_filtered(self) -> bool:
        """True when not all runs are asked for."""
        return bool(self._query.text or self._query.states or self._query.kinds)

    def set_kinds(self, kinds: tuple[RunKindInfo, ...]) -> None:
        """Offer these kinds."""
        chosen = self._kinds.currentData()
        with QSignalBlocker(self._kinds):
            self._kinds.clear()
            self._kinds.addItem("All kinds", "")
            for info in kinds:
                self._kinds.addItem(info.title, info.kind)
            self._kinds.setCurrentIndex(max(self._kinds.findData(chosen), 0))

    def set_count(self, total: int) -> None:
        """Show how many runs match."""
        words = "1 run" if total == 1 else f"{total:,} runs".replace(",", "\u202f")
        self._count.setText(words if total else "")

    def set_sort(self, sort: str, *, descending: bool) -> None:
        """Ask for another order."""
        self._emit(replace(self._query, sort=sort, descending=descending))

    def search(self, text: str) -> None:
        """Put a text into the search box and ask at once."""
        self.box.setText(text)
        self._delay.stop()
        self._on_searched()

    def clear(self) -> None:
        """Ask for all runs again."""
        with QSignalBlocker(self.box):
            self.box.clear()
        self._kinds.setCurrentIndex(0)
        self._mark("all")
        self._emit(replace(self._query, text="", states=(), kinds=()))

    def _build_search(self) -> QLineEdit:
        self.box = QLineEdit()
        self.box.setObjectName("runs_search")
        self.box.setPlaceholderText("Search name, id, tag or kind")
        self.box.setAccessibleName("Search runs")
        self.box.setClearButtonEnabled(True)
        self.box.addAction(icon("search"), QLineEdit.ActionPosition.LeadingPosition)
        self.box.setMinimumWidth(200)
        self._delay = QTimer(self, interval=_SEARCH_DELAY_MS, singleShot=True)
        self.box.textChanged.connect(lambda _: self._delay.start())
        self._delay.timeout.connect(self._on_searched)
        return self.box

    def _on_searched(self) -> None:
        self._emit(replace(self._query, text=self.box.text().strip()))

    def _choose_states(self, key: str, states: tuple[RunState, ...]) -> None:
        self._mark(key)
        self._emit(replace(self._query, states=states))

    def _mark(self, key: str) -> None:
        for name, button in self._states.items():
            button.setChecked(name == key)

    def _on_kind_chosen(self, _: int) -> None:
        kind = self._kinds.currentData()
        self._emit(replace(self._query, kinds=(kind,) if kind else ()))

    def _emit(self, query: RunQuery) -> None:
        if query != self._query:
            self._query = query
            self.changed.emit(query)
