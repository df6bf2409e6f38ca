"""The head of a run's page: state, progress with time left, what it does or why it failed, and the remedy."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget

from app.viewmodels.wording import duration_text, hosts_text, moment_text, span_text
from app.views.theme import SPACE, set_kind, set_role
from app.views.widgets.card import Card
from app.views.widgets.chip import StateChip
from app.views.widgets.elided_label import ElidedLabel
from core.contracts.runs import RunSummary
from core.contracts.states import RunState

_SCALE = 1000
_MAX_MESSAGE = 600


class RunHeader(Card):
    """Shows a summary.

    Signals:
        log_wanted: The user asked to see the log.
        clone_wanted: The user asked to change the settings and try again.
    """

    log_wanted = Signal()
    clone_wanted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent=parent)
        self._build_line()
        self._bar = QProgressBar()
        self._bar.setRange(0, _SCALE)
        self._bar.setTextVisible(False)
        self._bar.setAccessibleName("Progress")
        self.body.addWidget(self._bar)
        self.body.addWidget(self._build_problem())

    def show_summary(self, summary: RunSummary, kind_title: str) -> None:
        """Show where the run stands."""
        self._chip.set_state(summary.state)
        self._stage.set_whole(_stage_of(summary))
        self._figures.setText(_figures_of(summary, kind_title))
        goes_on = not summary.state.is_terminal
        self._bar.setVisible(goes_on)
        known = summary.progress is not None
        self._bar.setRange(0, _SCALE if known or summary.state is RunState.QUEUED else 0)
        if known:
            self._bar.setValue(round(_SCALE * min(max(summary.progress or 0.0, 0.0), 1.0)))
        self._show_problem(summary)

    def _build_line(self) -> None:
        line = QHBoxLayout()
        line.setSpacing(SPACE.m)
        self._chip = StateChip(RunState.QUEUED)
        self._stage = ElidedLabel("", "body")
        self._figures = QLabel()
        self._figures.setObjectName("run_figures")
        self._figures.setTextFormat(Qt.TextFormat.PlainText)
        set_kind(self._figures, "muted")
        line.addWidget(self._chip)
        line.addWidget(self._stage, 1)
        line.addWidget(self._figures)
        self.body.addLayout(line)

    def _build_problem(self) -> QWidget:
        self._problem = QWidget()
        row = QHBoxLayout(self._problem)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(SPACE.s)
        self._remedies: list[QPushButton] = []
        words = QVBoxLayout()
        words.setSpacing(2)
        self._message = QLabel()
        self._message.setObjectName("run_message")
        self._hint = QLabel()
        self._hint.setObjectName("run_hint")
        set_kind(self._hint, "muted")
        for label in (self._message, self._hint):
            label.setTextFormat(Qt.TextFormat.PlainText)
            label.setWordWrap(True)
            label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
            words.addWidget(label)
        row.addLayout(words, 1)
        for text, name, signal in (
            ("See the log", "run_see_log", self.log_wanted),
            ("Change and try again", "run_retry", self.clone_wanted),
        ):
            button = QPushButton(text)
            button.setObjectName(name)
            set_role(button, "secondary")
            self._remedies.append(button)
            button.clicked.connect(signal)
            row.addWidget(button, 0, Qt.AlignmentFlag.AlignTop)
        return self._problem

    def _show_problem(self, summary: RunSummary) -> None:
        is_wrong = summary.state in {RunState.FAILED, RunState.LOST}
        self._remedies[-1].setVisible(is_wrong)
        silent = summary.silent_since is not None and not summary.state.is_terminal
        self._problem.setVisible(is_wrong or silent)
        set_kind(self._message, "error" if is_wrong else "body")
        if silent and summary.silent_since is not None:
            self._message.setText(f"Its last sign of life came {moment_text(summary.silent_since)}.")
            self._hint.setText("It may be busy or its host unreachable; it is not counted as failed.")
            return
        self._message.setText((summary.message or "The run ended without a word.")[:_MAX_MESSAGE])
        self._hint.setText(summary.hint[:_MAX_MESSAGE])
        self._hint.setVisible(bool(summary.hint))


def _stage_of(summary: RunSummary) -> str:
    if summary.state in {RunState.FAILED, RunState.LOST}:
        return summary.stage
    if summary.state is RunState.SUCCEEDED:
        return summary.message or summary.last_line
    return summary.stage or summary.message or summary.last_line


def _figures_of(summary: RunSummary, kind_title: str) -> str:
    parts: list[str] = []
    if not summary.state.is_terminal:
        if summary.progress is not None:
            parts.append(f"{summary.progress:.0%}")
        if summary.step is not None:
            total = f" of {summary.total_steps:,}" if summary.total_steps else ""
            parts.append(f"step {summary.step:,}{total}".replace(",", "\u202f"))
        if summary.eta_s is not None:
            parts.append(f"about {span_text(summary.eta_s)} left")
    duration = duration_text(summary)
    if duration:
        parts.append(duration if summary.state.is_terminal else f"running for {duration}")
    if summary.started is not None:
        parts.append(moment_text(summary.started))
    if summary.attempt > 1:
        parts.append(f"attempt {summary.attempt}")
    return "  ·  ".join([kind_title, *parts, hosts_text(summary.host)])
