"""The overview of a run: final metrics, a step's time, result tables and texts, lineage, and what happened on the way."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QFrame, QGridLayout, QHBoxLayout, QLabel, QPushButton, QScrollArea, QVBoxLayout, QWidget

from app.viewmodels.profile_table import fine_span_text
from app.viewmodels.stability_events import event_text
from app.viewmodels.training_facts import headline_values, is_text_table, text_samples, time_split, value_text_of
from app.viewmodels.wording import moment_text
from app.views.icons import icon, icon_pixmap
from app.views.theme import SPACE, set_kind, set_role
from app.views.widgets.card import Card
from app.views.widgets.elided_label import ElidedLabel
from app.views.widgets.empty_state import EmptyState
from app.views.widgets.flow_layout import FlowLayout
from app.views.widgets.result_table import ResultTable
from app.views.widgets.stacked_bar import BarPart, StackedBar
from app.views.widgets.text_samples import TextSamples
from core.contracts.ids import RunId
from core.contracts.runs import MarkerRecord, RunDetail, RunSummary

_MAX_METRICS = 60
_MAX_EVENTS = 12
_MAX_RELATED = 24
_METRIC_COLUMNS = 4
_EVENT_ICONS = {"checkpoint": "checkpoint", "restart": "resume", "stability": "warning"}


class RunOverview(QScrollArea):
    """Cards. Buttons that lead to related runs are called ``related_<run id>``.

    Signals:
        run_wanted: ``RunId`` of a parent or child.
    """

    run_wanted = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        inner = QWidget()
        inner.setObjectName("scroll_body")
        self._stack = QVBoxLayout(inner)
        self._stack.setContentsMargins(0, SPACE.s, SPACE.s, SPACE.s)
        self._stack.setSpacing(SPACE.m)
        self.setWidget(inner)
        self._shown: object = None
        self._values: dict[str, QLabel] = {}
        self._time_card: Card | None = None

    def show_detail(self, detail: RunDetail) -> None:
        """Show a run; nothing is rebuilt when nothing changed, so that the place in the page stays."""
        state = (detail.tables, detail.markers, detail.children, detail.summary.parent, tuple(detail.summary.final))
        if state == self._shown:
            self.show_summary(detail.summary)
            return
        self._shown = state
        place = self.verticalScrollBar().value()
        self._clear()
        if detail.summary.final:
            self._stack.addWidget(self._metrics_card(detail.summary))
        self._time_card = self._step_time_card()
        self._stack.addWidget(self._time_card)
        self._show_step_time(detail.summary)
        for table in detail.tables:
            card = Card(table.name)
            card.body.addWidget(TextSamples(text_samples(table)) if is_text_table(table) else ResultTable(table))
            self._stack.addWidget(card)
        if detail.summary.parent is not None or detail.children:
            self._stack.addWidget(self._lineage_card(detail))
        if detail.markers:
            self._stack.addWidget(_events_card(detail.markers))
        if self._stack.count() == 1 and self._time_card.isHidden():
            words = "Metrics, tables and results appear here as the run reports them."
            self._stack.addWidget(EmptyState("chart", "Nothing to show yet", words))
        self._stack.addStretch(1)
        self.verticalScrollBar().setValue(place)

    def show_summary(self, summary: RunSummary) -> None:
        """Show the latest values in place."""
        for key, label in self._values.items():
            if key in summary.final:
                label.setText(value_text_of(key, summary.final[key]))
        self._show_step_time(summary)

    def _step_time_card(self) -> Card:
        card = Card("Where a step's time goes")
        card.setObjectName("step_time")
        self._step_time = StackedBar(fine_span_text)
        card.body.addWidget(self._step_time)
        return card

    def _show_step_time(self, summary: RunSummary) -> None:
        """Show what the newest step's seconds were spent on; nothing where the run does not tell."""
        if self._time_card is not None:
            parts = [BarPart(name=name, size=seconds) for name, seconds in time_split(summary.final)]
            self._time_card.setVisible(bool(parts))
            if parts:
                self._step_time.show_parts(parts)

    def _clear(self) -> None:
        self._values.clear()
        self._time_card = None
        while (item := self._stack.takeAt(0)) is not None:
            widget = item.widget()
            if widget is not None:
                widget.hide()
                widget.deleteLater()

    def _metrics_card(self, summary: RunSummary) -> Card:
        card = Card("Results" if summary.state.is_terminal else "Latest values")
        grid = QGridLayout()
        grid.setHorizontalSpacing(SPACE.l)
        grid.setVerticalSpacing(SPACE.m)
        values = headline_values(summary.final)
        for n, (key, value) in enumerate(list(values.items())[:_MAX_METRICS]):
            cell = QVBoxLayout()
            cell.setSpacing(0)
            shown = QLabel(value_text_of(key, value))
            shown.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
            set_kind(shown, "value")
            self._values[key] = shown
            cell.addWidget(shown)
            cell.addWidget(ElidedLabel(key, "caption"))
            grid.addLayout(cell, n // _METRIC_COLUMNS, n % _METRIC_COLUMNS)
        for column in range(_METRIC_COLUMNS):
            grid.setColumnStretch(column, 1)
        card.body.addLayout(grid)
        if len(values) > _MAX_METRICS:
            more = QLabel(f"and {len(values) - _MAX_METRICS} more under Curves")
            set_kind(more, "caption")
            card.body.addWidget(more)
        return card

    def _lineage_card(self, detail: RunDetail) -> Card:
        card = Card("Lineage")
        if detail.summary.parent is not None:
            card.body.addWidget(self._related("Built on", (detail.summary.parent,)))
        if detail.children:
            card.body.addWidget(self._related("Led to", detail.children))
        return card

    def _related(self, caption: str, run_ids: tuple[RunId, ...]) -> QWidget:
        row = QWidget()
        layout = QHBoxLayout(row)
        layout.setContentsMargins(0, 0, 0, 0)
        label = QLabel(caption)
        label.setFixedWidth(64)
        set_kind(label, "caption")
        layout.addWidget(label, 0, Qt.AlignmentFlag.AlignVCenter)
        holder = QWidget()
        flow = FlowLayout(holder, spacing=SPACE.xs)
        for run_id in run_ids[:_MAX_RELATED]:
            button = QPushButton(run_id)
            button.setIcon(icon("lineage"))
            button.setObjectName(f"related_{run_id}")
            set_role(button, "ghost")
            button.clicked.connect(lambda _=False, run_id=run_id: self.run_wanted.emit(run_id))
            flow.addWidget(button)
        if len(run_ids) > _MAX_RELATED:
            more = QLabel(f"and {len(run_ids) - _MAX_RELATED} more")
            set_kind(more, "caption")
            flow.addWidget(more)
        layout.addWidget(holder, 1)
        return row


def _events_card(markers: tuple[MarkerRecord, ...]) -> Card:
    card = Card("What happened")
    newest = sorted(markers, key=lambda marker: -marker.ts)
    for marker in newest[:_MAX_EVENTS]:
        row = QHBoxLayout()
        row.setSpacing(SPACE.s)
        picture = QLabel()
        name = _EVENT_ICONS.get(marker.kind, "info")
        picture.setPixmap(icon_pixmap(name, 16, "danger" if marker.kind == "stability" else None))
        when = QLabel(moment_text(marker.ts))
        set_kind(when, "caption")
        step = QLabel("" if marker.step is None else f"step {marker.step:,}".replace(",", "\u202f"))
        set_kind(step, "caption")
        row.addWidget(picture)
        row.addWidget(ElidedLabel(event_text(marker) if marker.signal else marker.text or marker.kind.capitalize()), 1)
        row.addWidget(step)
        row.addWidget(when)
        card.body.addLayout(row)
    if len(newest) > _MAX_EVENTS:
        more = QLabel(f"and {len(newest) - _MAX_EVENTS} earlier ones; all are marked in the curves")
        set_kind(more, "caption")
        card.body.addWidget(more)
    return card
