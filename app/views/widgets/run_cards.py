"""The runs of Home: a card for one that goes on, a row for one that ended or needs the user."""

from __future__ import annotations

from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget

from app.viewmodels.wording import (
    duration_text,
    hosts_text,
    metric_text,
    moment_text,
    number_text,
    progress_text,
    span_text,
)
from app.views.icons import icon
from app.views.theme import SPACE, set_kind, set_role
from app.views.widgets.card import Card
from app.views.widgets.chip import StateChip
from app.views.widgets.elided_label import ElidedLabel
from app.views.widgets.sparkline import Sparkline
from core.contracts.runs import RunSummary
from core.contracts.states import RESUMABLE_STATES, RunState

_PROGRESS_STEPS = 1000
_METRIC_WIDTH = 168
_DURATION_WIDTH = 84


class LiveRunCard(Card):
    """A run that goes on: state, progress, time left, small curve, Stop.

    Signals:
        opened: The run's id: show its page.
        stop_wanted: The run's id.
    """

    opened = Signal(str)
    stop_wanted = Signal(str)

    def __init__(self, summary: RunSummary, kind_title: str, parent: QWidget | None = None) -> None:
        super().__init__(clickable=True, parent=parent)
        self._kind_title = kind_title
        self.run_id = summary.run_id
        self.setObjectName(f"live_run_{summary.run_id}")
        self._name = ElidedLabel(kind="h3")
        self._chip = StateChip(summary.state)
        self.title_row.addWidget(self._name, 1)
        self.title_row.addWidget(self._chip)
        self._where = ElidedLabel(kind="caption")
        self._spark = Sparkline(size=QSize(200, 44))
        self._metric = ElidedLabel(kind="caption")
        self._bar = QProgressBar()
        self._bar.setTextVisible(False)
        self._bar.setAccessibleName("Progress")
        self._progress = ElidedLabel(kind="body")
        self._eta = ElidedLabel(kind="caption")
        self._stop = QPushButton("Stop")
        self._stop.setIcon(icon("stop"))
        self._stop.setAccessibleName(f"Stop {summary.name}")
        self._stop.clicked.connect(lambda: self.stop_wanted.emit(self.run_id))
        self.clicked.connect(lambda: self.opened.emit(self.run_id))
        self._lay_out()
        self.show_summary(summary)

    def _lay_out(self) -> None:
        self.body.addWidget(self._where)
        self.body.addWidget(self._spark)
        self.body.addWidget(self._metric)
        self.body.addWidget(self._bar)
        foot = QHBoxLayout()
        foot.setSpacing(SPACE.s)
        words = QVBoxLayout()
        words.setSpacing(2)
        words.addWidget(self._progress)
        words.addWidget(self._eta)
        foot.addLayout(words, 1)
        foot.addWidget(self._stop, 0, Qt.AlignmentFlag.AlignBottom)
        self.body.addLayout(foot)

    def show_summary(self, summary: RunSummary) -> None:
        """Show how the run stands."""
        self._name.set_whole(summary.name or summary.run_id)
        self.setAccessibleName(f"{summary.name or summary.run_id}, {summary.state}")
        self._chip.set_state(summary.state)
        started = f" · for {duration_text(summary)}" if summary.started is not None else ""
        self._where.set_whole(f"{self._kind_title} on {_host_text(summary)}{started}")
        if summary.progress is None:
            self._bar.setRange(0, _PROGRESS_STEPS)
            self._bar.setValue(0)
        else:
            self._bar.setRange(0, _PROGRESS_STEPS)
            self._bar.setValue(round(summary.progress * _PROGRESS_STEPS))
        self._progress.set_whole(progress_text(summary) or "Waiting for the first sign of progress")
        self._eta.set_whole(_eta_text(summary))
        self._stop.setEnabled(not summary.state.is_terminal and summary.state is not RunState.STOPPING)

    def show_spark(self, key: str, values: tuple[float, ...]) -> None:
        """Show the small curve and the newest value of its metric."""
        self._spark.set_values(values)
        self._metric.set_whole(f"{key} {number_text(values[-1])}" if values else "")


class RunRow(QWidget):
    """A run on one line.

    Signals:
        opened: The run's id: show its page.
        resume_wanted: The run's id.
    """

    opened = Signal(str)
    resume_wanted = Signal(str)

    def __init__(
        self, summary: RunSummary, kind_title: str, *, explains: bool = False, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._run_id = summary.run_id
        row = QHBoxLayout(self)
        row.setContentsMargins(0, SPACE.xs, 0, SPACE.xs)
        row.setSpacing(SPACE.m)
        chip = StateChip(summary.state)
        holder = QHBoxLayout()
        holder.addWidget(chip)
        holder.addStretch(1)
        box = QWidget()
        box.setLayout(holder)
        holder.setContentsMargins(0, 0, 0, 0)
        box.setFixedWidth(104)
        row.addWidget(box)
        words = QVBoxLayout()
        words.setSpacing(1)
        words.addWidget(ElidedLabel(summary.name or summary.run_id, "h3" if explains else "body"))
        second = _reason(summary) if explains else f"{kind_title} · {moment_text(summary.ended or summary.created)}"
        words.addWidget(ElidedLabel(second, "caption"))
        row.addLayout(words, 1)
        if not explains:
            for figure in _figures(summary):
                row.addWidget(figure)
        self._add_buttons(row, summary, explains=explains)

    def _add_buttons(self, row: QHBoxLayout, summary: RunSummary, *, explains: bool) -> None:
        name = summary.name or summary.run_id
        if explains and summary.state in RESUMABLE_STATES:
            resume = QPushButton("Resume")
            resume.setIcon(icon("resume"))
            resume.setToolTip("Starts the run again from its last checkpoint.")
            resume.setAccessibleName(f"Resume {name}")
            resume.clicked.connect(lambda: self.resume_wanted.emit(self._run_id))
            row.addWidget(resume)
        opener = QPushButton("Open")
        set_role(opener, "secondary" if explains else "ghost")
        opener.setAccessibleName(f"Open {name}")
        opener.clicked.connect(lambda: self.opened.emit(self._run_id))
        row.addWidget(opener)


def _host_text(summary: RunSummary) -> str:
    return "this computer" if summary.host == "local" else hosts_text(summary.host)


def _reason(summary: RunSummary) -> str:
    said = f"{summary.message} {summary.hint}".strip()
    return said or summary.last_line or "It left no message; its log may tell more."


def _figures(summary: RunSummary) -> tuple[ElidedLabel, QLabel]:
    metric = ElidedLabel(metric_text(summary), "caption")
    metric.setFixedWidth(_METRIC_WIDTH)
    took = QLabel(span_text(summary.duration_s) if summary.duration_s is not None else "")
    took.setFixedWidth(_DURATION_WIDTH)
    set_kind(took, "caption")
    return metric, took


def _eta_text(summary: RunSummary) -> str:
    parts: list[str] = []
    if summary.step is not None:
        parts.append(f"step {summary.step}" + (f" of {summary.total_steps}" if summary.total_steps else ""))
    if summary.eta_s is not None:
        parts.append(f"about {span_text(summary.eta_s)} left (estimated)")
    if summary.silent_since is not None:
        parts.append(f"no sign of life since {moment_text(summary.silent_since)}")
    return " · ".join(parts)
