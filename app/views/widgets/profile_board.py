"""The profile tab of a run: record one, time by category and phase, operators, memory over time, and the trace.

Widgets: ``profile_record``, ``profile_steps``, ``profile_search``, ``profile_operators``, ``profile_trace_open``,
``profile_trace_save``.
"""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import (
    QFileDialog,
    QGridLayout,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from app.viewmodels.profile_table import (
    DEVICE_COLUMNS,
    OPERATOR_COLUMNS,
    fine_span_text,
    has_device_times,
    heading,
    operators_of,
    phase_shares,
)
from app.viewmodels.record_table import RecordTableModel
from app.views.icons import icon
from app.views.page import scroll_area
from app.views.theme import SPACE, set_kind, set_role
from app.views.widgets.card import Card
from app.views.widgets.empty_state import EmptyState
from app.views.widgets.memory_timeline import MemoryTimeline
from app.views.widgets.meter import FillBar
from app.views.widgets.record_table import RecordTable
from app.views.widgets.run_menu import open_path
from app.views.widgets.stacked_bar import BarPart, StackedBar
from core.contracts.notices import Notice
from core.contracts.profiles import MOST_STEPS, ProfileReport
from core.contracts.runs import RunSummary
from core.contracts.states import RunState

_STEPS = 3
_TABLE_HEIGHT = 420


class ProfileBoard(QWidget):
    """Shows the newest profile.

    Signals:
        profile_wanted: Number of steps (int) to record.
        copy_wanted: ``(source, target)`` paths: save the trace there.
    """

    profile_wanted = Signal(int)
    copy_wanted = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._report: ProfileReport | None = None
        self._can_record = False
        self._is_waiting = False
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, SPACE.s, 0, 0)
        body = QVBoxLayout()
        body.setSpacing(SPACE.m)
        body.addWidget(self._build_record())
        self._empty = EmptyState("clock", "No profile yet", "")
        body.addWidget(self._empty)
        self._cards = [self._build_times(), self._build_operators(), self._build_memory()]
        for card in self._cards:
            body.addWidget(card)
        body.addStretch(1)
        outer.addWidget(scroll_area(body, SPACE.s), 1)
        self.show_report(None)

    def clear(self) -> None:
        """Show nothing of any run."""
        self._can_record = False
        self.show_waiting(waiting=False)
        self.show_report(None)

    def show_summary(self, summary: RunSummary) -> None:
        """Offer a recording while the run computes."""
        self._can_record = summary.state is RunState.RUNNING
        self._show_buttons()

    def show_waiting(self, *, waiting: bool) -> None:
        """Say whether a profile is being recorded."""
        self._is_waiting = waiting
        self._show_buttons()

    def show_problem(self, notice: Notice) -> None:
        """Say why there is no profile."""
        set_kind(self._note, "error")
        self._note.setText(f"{notice.message} {notice.hint}".strip())

    def show_report(self, report: ProfileReport | None) -> None:
        """Show a profile; None says that there is none yet."""
        self._report = report
        self._show_buttons()
        for card in self._cards:
            card.setVisible(report is not None)
        self._empty.setVisible(report is None)
        if report is None:
            return
        self._heading.setText(heading(report))
        seconds = [
            BarPart(name=one.name.capitalize(), size=one.seconds) for one in report.categories if one.seconds > 0
        ]
        self._categories.show_parts(seconds)
        self._show_phases(report)
        for column in DEVICE_COLUMNS:
            self.table.setColumnHidden(column, not has_device_times(report))
        self._filter()
        self._memory.show_curves(report.memory)
        self._cards[-1].setVisible(bool(report.memory))

    def _build_record(self) -> Card:
        card = Card("Record a profile")
        row = QHBoxLayout()
        row.setSpacing(SPACE.s)
        words = QLabel("Steps")
        self._steps = QSpinBox()
        self._steps.setObjectName("profile_steps")
        self._steps.setAccessibleName("Steps to record")
        self._steps.setRange(1, MOST_STEPS)
        self._steps.setValue(_STEPS)
        words.setBuddy(self._steps)
        self._record = QPushButton("Record a profile")
        self._record.setObjectName("profile_record")
        self._record.setIcon(icon("clock", "on_accent"))
        set_role(self._record, "primary")
        self._record.clicked.connect(lambda: self.profile_wanted.emit(self._steps.value()))
        self._busy = QProgressBar()
        self._busy.setRange(0, 0)
        self._busy.setFixedWidth(120)
        self._busy.setTextVisible(False)
        self._note = QLabel()
        self._note.setObjectName("profile_note")
        self._note.setTextFormat(Qt.TextFormat.PlainText)
        self._note.setWordWrap(True)
        set_kind(self._note, "caption")
        for widget in (words, self._steps, self._record, self._busy):
            row.addWidget(widget)
        row.addWidget(self._note, 1)
        card.body.addLayout(row)
        return card

    def _build_times(self) -> Card:
        card = Card("Where the time went")
        self._heading = QLabel()
        self._heading.setObjectName("profile_heading")
        self._heading.setTextFormat(Qt.TextFormat.PlainText)
        self._heading.setWordWrap(True)
        set_kind(self._heading, "muted")
        self._categories = StackedBar(fine_span_text)
        self._phases = QWidget()
        self._phase_grid = QGridLayout(self._phases)
        self._phase_grid.setContentsMargins(0, SPACE.s, 0, SPACE.s)
        self._phase_grid.setHorizontalSpacing(SPACE.m)
        self._phase_grid.setVerticalSpacing(SPACE.xs)
        self._phase_grid.setColumnStretch(2, 1)
        for widget in (self._heading, self._categories, self._phases):
            card.body.addWidget(widget)
        row = QHBoxLayout()
        row.setSpacing(SPACE.s)
        self._open = QPushButton("Open trace")
        self._open.setObjectName("profile_trace_open")
        self._open.setIcon(icon("open"))
        self._open.clicked.connect(self._on_open)
        save = QPushButton("Save trace…")
        save.setObjectName("profile_trace_save")
        save.setIcon(icon("export"))
        save.clicked.connect(self._on_save)
        self._trace_hint = QLabel()
        self._trace_hint.setWordWrap(True)
        set_kind(self._trace_hint, "caption")
        row.addWidget(self._open)
        row.addWidget(save)
        row.addWidget(self._trace_hint, 1)
        self._trace_row = QWidget()
        row.setContentsMargins(0, 0, 0, 0)
        self._trace_row.setLayout(row)
        card.body.addWidget(self._trace_row)
        return card

    def _build_operators(self) -> Card:
        card = Card("Operators")
        self.search = QLineEdit()
        self.search.setObjectName("profile_search")
        self.search.setPlaceholderText("Filter by name")
        self.search.setAccessibleName("Filter the operators")
        self.search.setClearButtonEnabled(True)
        self.search.textChanged.connect(self._filter)
        card.body.addWidget(self.search)
        self._model = RecordTableModel(OPERATOR_COLUMNS, self)
        self.table = RecordTable(self._model, "profile_operators", "Operators by time")
        header = self.table.horizontalHeader()
        header.setStretchLastSection(False)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        for column in range(1, len(OPERATOR_COLUMNS)):
            self.table.setColumnWidth(column, 130)
        self.table.setFixedHeight(_TABLE_HEIGHT)
        card.body.addWidget(self.table)
        return card

    def _build_memory(self) -> Card:
        card = Card("Memory")
        self._memory = MemoryTimeline()
        card.body.addWidget(self._memory)
        return card

    def _show_phases(self, report: ProfileReport) -> None:
        """Show phases as bars of their own: one may lie within another, so that they do not add up."""
        while (item := self._phase_grid.takeAt(0)) is not None:
            widget = item.widget()
            if widget is not None:
                widget.hide()
                widget.deleteLater()
        shares = phase_shares(report)
        self._phases.setVisible(bool(shares))
        for row, (name, seconds, share) in enumerate(shares):
            label, time, bar = QLabel(name), QLabel(fine_span_text(seconds)), FillBar(warns=False)
            label.setTextFormat(Qt.TextFormat.PlainText)
            set_kind(label, "caption")
            bar.set_share(share)
            bar.setAccessibleName(f"{name}: {share:.0%} of the time")
            for column, widget in enumerate((label, time, bar)):
                self._phase_grid.addWidget(widget, row, column, Qt.AlignmentFlag.AlignVCenter)

    def _filter(self) -> None:
        self._model.set_rows(() if self._report is None else operators_of(self._report, self.search.text()))

    def _show_buttons(self) -> None:
        self._record.setEnabled(self._can_record and not self._is_waiting)
        self._steps.setEnabled(self._can_record and not self._is_waiting)
        self._busy.setVisible(self._is_waiting)
        set_kind(self._note, "caption")
        if self._is_waiting:
            self._note.setText("Asked for: it begins with the next step and is shown here once it is written.")
        elif self._can_record:
            self._note.setText("Steps are a little slower while they are recorded.")
        else:
            self._note.setText("A profile can be recorded while the run computes.")
        waits = "Record one above, or give a step in the spec (Found by trying, Profile at step)."
        ended = (
            "The run records none any more. Give a step in the spec of the next one (Found by trying, Profile at step)."
        )
        self._empty.set_content("clock", "No profile yet", waits if self._can_record else ended)
        trace = None if self._report is None else self._report.trace_path
        self._trace_row.setVisible(bool(trace))
        self._trace_hint.setText(_opened_by(trace or ""))

    def _on_open(self) -> None:
        if self._report is not None:
            open_path(Path(self._report.trace_path))

    def _on_save(self) -> None:
        if self._report is None:
            return
        source = Path(self._report.trace_path)
        chosen, _ = QFileDialog.getSaveFileName(self, "Save the trace", source.name)
        if chosen:
            self.copy_wanted.emit((source, Path(chosen)))


def _opened_by(trace: str) -> str:
    """Return which program opens a trace."""
    if trace.endswith(".nsys-rep"):
        return "NVIDIA Nsight Systems opens it."
    return "Perfetto (ui.perfetto.dev) and chrome://tracing open it; nothing is sent anywhere."
