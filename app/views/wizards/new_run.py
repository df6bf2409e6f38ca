"""The wizard for a new run: choose what, fill in, say where, review, launch.

Names of the widgets that tests and tools click (``objectName``):
``card_<kind>`` (such as ``card_train.image``), ``example_<file>``, ``field_<path>`` (such as ``field_optimizer.lr``),
``problem_<path>`` (sentence below a field), ``wizard_advanced``, ``wizard_back``, ``wizard_next``, ``wizard_launch``,
``review_verdict``, ``problem_<n>`` (go to the field of the n-th problem), ``copy_command``, ``copy_toml``, ``wizard_export``.
"""

from __future__ import annotations

from dataclasses import replace
from enum import IntEnum
from pathlib import Path

from PySide6.QtCore import QTimer, Signal
from PySide6.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from app.controllers.fleet_controller import FleetController
from app.controllers.launch_check import LaunchCheck
from app.controllers.tasks import Task
from app.controllers.train_controller import Prefill, Reviewed, TrainController
from app.viewmodels.form_state import FormState
from app.viewmodels.where import is_where_path, launch_command, place_text
from app.views.icons import icon
from app.views.theme import SPACE, set_kind, set_role
from app.views.widgets.card import Card
from app.views.widgets.spec_form import SpecForm
from app.views.widgets.step_bar import StepBar
from app.views.widgets.task_panel import TaskPanel
from app.views.wizards.choose_step import ChooseStep
from app.views.wizards.review_step import ReviewStep
from app.views.wizards.where_step import WhereStep
from core.contracts.forms import RunKindInfo
from core.contracts.hosts import CheckReport, FindingLevel
from core.contracts.notices import Notice


class Step(IntEnum):
    """Steps, in order."""

    CHOOSE = 0
    SETTINGS = 1
    WHERE = 2
    REVIEW = 3


_PREVIEW_MS = 350
_TITLES = ("Choose", "Settings", "Where", "Review and launch")


class NewRunWizard(QWidget):
    """Four steps over one controller. Values survive going back and changing the kind.

    Signals:
        step_changed: The ``Step`` that is shown.
    """

    step_changed = Signal(object)

    def __init__(self, controller: TrainController, fleet: FleetController, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._controller = controller
        self._fleet = fleet
        self._check = LaunchCheck(fleet, self)
        self._reports: tuple[CheckReport, ...] | None = ()
        self._states: dict[str, FormState] = {}
        self._forms: dict[str, SpecForm] = {}
        self._kind: str | None = None
        self._wanted: Prefill | None = None
        self._is_ready = False
        self._preview_later = QTimer(self, interval=_PREVIEW_MS, singleShot=True)
        self._preview_later.timeout.connect(self._ask_preview)
        self._build()
        controller.previewed.connect(self._on_previewed)
        controller.kinds_loaded.connect(self._on_kinds_loaded)
        controller.prefilled.connect(self.prefill)
        controller.reviewed.connect(self._on_reviewed)
        controller.failed.connect(self._on_failed)
        controller.busy_changed.connect(self._on_busy_changed)
        controller.launching.connect(self._on_launching)
        self._check.check_started.connect(self._on_check_started)
        self._check.checked.connect(self._on_checked)
        self._check.check_failed.connect(self._on_check_failed)
        self._check.previewed.connect(self._review_step.show_plan)
        self._check.preview_failed.connect(lambda notice: self._review_step.show_plan(_words_of(notice)))
        self._go(Step.CHOOSE)

    @property
    def step(self) -> Step:
        """The step that is shown."""
        return Step(self._stack.currentIndex())

    @property
    def state(self) -> FormState | None:
        """The form of the kind that is chosen."""
        return self._states.get(self._kind) if self._kind else None

    def prefill(self, wanted: Prefill) -> None:
        """Choose a kind and take over values; waits for the kinds when they are not loaded yet."""
        if not self._states:
            self._wanted = wanted
            return
        if wanted.kind not in self._states:
            self._say("warning", f"There is no kind of run called {wanted.kind!r} here.")
            return
        self._states[wanted.kind].load(wanted.values)
        self._choose(wanted.kind)
        if wanted.source:
            self._say("info", f"Filled in from {wanted.source}.")

    def show_group(self, group: str) -> None:
        """Go to the first step, at a group of kinds (``train``, ``compress``, ``benchmark``, ``pipeline``)."""
        self._go(Step.CHOOSE)
        self._choose_step.show_group(group)

    def start_over(self) -> None:
        """Go to the first step; what was filled in stays."""
        self._go(Step.CHOOSE)

    def _build(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(SPACE.m)
        self._bar = StepBar(_TITLES)
        self._bar.step_wanted.connect(self._on_step_wanted)
        layout.addWidget(self._bar)
        self._stack = QStackedWidget()
        self._choose_step = ChooseStep()
        self._choose_step.kind_chosen.connect(self._choose)
        self._choose_step.example_chosen.connect(self._controller.open_example)
        self._settings = QStackedWidget()
        self.where_step = WhereStep(self._fleet)
        self.where_step.changed.connect(self._show_next)
        self.where_step.hosts_wanted.connect(self._controller.open_hosts)
        self._review_step = ReviewStep()
        self._review_step.check_wanted.connect(self._on_check_wanted)
        self._review_step.field_wanted.connect(self._on_field_wanted)
        self._review_step.export_wanted.connect(self._on_export_wanted)
        for page in (self._choose_step, self._settings, self.where_step, self._review_step):
            self._stack.addWidget(page)
        layout.addWidget(self._stack, 1)
        self._panel = TaskPanel(has_log=False)
        layout.addWidget(self._panel)
        layout.addWidget(self._build_foot())

    def _build_foot(self) -> QWidget:
        foot = Card()
        row = QHBoxLayout()
        row.setSpacing(SPACE.s)
        self._back = QPushButton("Back")
        self._back.setObjectName("wizard_back")
        self._back.setIcon(icon("back"))
        self._back.setShortcut("Alt+Left")
        self._back.setToolTip("Back (Alt+Left)")
        self._back.clicked.connect(lambda: self._go(Step(self.step - 1)))
        self._advanced = QCheckBox("Advanced settings")
        self._advanced.setObjectName("wizard_advanced")
        self._advanced.toggled.connect(self._on_advanced_toggled)
        self._note = QLabel()
        set_kind(self._note, "caption")
        self._note.setWordWrap(True)
        self._next = QPushButton("Next")
        self._next.setObjectName("wizard_next")
        self._next.setShortcut("Alt+Right")
        self._next.setToolTip("Next (Alt+Right)")
        set_role(self._next, "primary")
        self._next.clicked.connect(self._on_next)
        self._launch = QPushButton("Launch")
        self._launch.setObjectName("wizard_launch")
        self._launch.setIcon(icon("rocket", "on_accent"))
        self._launch.setShortcut("Ctrl+Return")
        self._launch.setToolTip("Launch (Ctrl+Enter)")
        set_role(self._launch, "primary")
        self._launch.clicked.connect(self._on_launch)
        row.addWidget(self._back)
        row.addWidget(self._advanced)
        row.addWidget(self._note, 1)
        row.addWidget(self._next)
        row.addWidget(self._launch)
        foot.body.addLayout(row)
        return foot

    def _on_kinds_loaded(self, kinds: tuple[RunKindInfo, ...]) -> None:
        for info in kinds:
            if info.kind not in self._states:
                self._states[info.kind] = FormState(info, self)
        self._choose_step.set_kinds(kinds)
        if self._wanted is not None:
            wanted, self._wanted = self._wanted, None
            self.prefill(wanted)

    def _choose(self, kind: str) -> None:
        self._kind = kind
        if kind not in self._forms:
            form = SpecForm(self._states[kind])
            form.set_advanced(advanced=self._advanced.isChecked())
            self._forms[kind] = form
            if form.layout_panel is not None:
                form.state.value_changed.connect(self._on_filled_in)
                form.state.loaded.connect(self._on_filled_in)
            self._settings.addWidget(form)
        self._settings.setCurrentWidget(self._forms[kind])
        self._choose_step.mark(kind)
        self._go(Step.SETTINGS)
        self._forms[kind].focus_first()

    def _go(self, step: Step) -> None:
        self._stack.setCurrentIndex(step)
        self._bar.set_step(step)
        self._back.setEnabled(step > Step.CHOOSE)
        self._advanced.setVisible(step in {Step.SETTINGS, Step.WHERE})
        self._next.setVisible(step is not Step.REVIEW)
        self._launch.setVisible(step is Step.REVIEW)
        self._say("info", "")
        if step is not Step.REVIEW:
            self._check.cancel()
        if step is Step.REVIEW:
            self._ask_review()
        elif step is Step.WHERE and self.state is not None:
            self._fleet.hold(self)
            self.where_step.show_form(self.state)
            self.where_step.focus_first()
        elif step is Step.SETTINGS:
            self._preview_later.start()
        elif step is Step.CHOOSE:
            self._fleet.release(self)
            self._choose_step.focus_first()
        self._show_next()
        self.step_changed.emit(step)

    def _show_next(self) -> None:
        problem = self.where_step.problem() if self.step is Step.WHERE else ""
        self._next.setEnabled(self._kind is not None and not problem)
        if self.step is Step.WHERE:
            self._say("info", problem)

    def _ask_review(self) -> None:
        state = self.state
        if state is None:
            return
        self._is_ready = False
        self._reports = ()
        self._show_launch()
        self._review_step.show_waiting(state.info)
        self._controller.review(state.info.kind, state.values())

    def _on_filled_in(self, *_: object) -> None:
        self._preview_later.start()

    def _ask_preview(self) -> None:
        """Let the layout's own check and the memory estimate follow what is being filled in."""
        state = self.state
        if state is not None and self.step is Step.SETTINGS and self._forms[state.info.kind].layout_panel is not None:
            self._controller.preview(state.info.kind, state.values())

    def _on_previewed(self, answer: Reviewed) -> None:
        form = self._forms.get(answer.kind)
        if form is not None and form.layout_panel is not None:
            form.layout_panel.show_review(answer.review)

    def _on_reviewed(self, answer: Reviewed) -> None:
        state = self._states.get(answer.kind)
        if state is None:
            return
        state.take_review(answer.review)
        if answer.kind == self._kind and self.step is Step.REVIEW:
            values = state.values()
            command = launch_command(values, answer.review.command)
            self._review_step.show_review(replace(answer.review, command=command))
            self._is_ready = not answer.review.problems
            if self._is_ready and self._check.begin(values, answer.review.toml):
                self._review_step.show_remote(place_text(values))
            self._show_launch()
            if self._launch.isEnabled():
                self._launch.setFocus()

    def _on_check_started(self, task: Task) -> None:
        self._reports = None
        self._review_step.show_checking(task)
        self._show_launch()

    def _on_checked(self, reports: tuple[CheckReport, ...]) -> None:
        self._reports = reports
        self._review_step.show_checks(reports)
        self._show_launch()
        if self._launch.isEnabled():
            self._launch.setFocus()

    def _on_check_failed(self, notice: Notice) -> None:
        self._review_step.show_check_problem(notice)

    def _on_check_wanted(self) -> None:
        if self.state is not None:
            self._check.again(self.state.values())

    def _show_launch(self, *, is_busy: bool = False) -> None:
        """Allow the launch once nothing stands against it; warnings are named on the button."""
        reports = self._reports
        has_errors = reports is None or any(not report.ok for report in reports)
        self._launch.setEnabled(self._is_ready and not has_errors and not is_busy)
        warned = any(finding.level is FindingLevel.WARNING for report in reports or () for finding in report.findings)
        self._launch.setText("Launching…" if is_busy else ("Launch anyway" if warned and not has_errors else "Launch"))

    def _on_launching(self, task: Task) -> None:
        self._panel.follow(task)

    def _on_next(self) -> None:
        if self._kind is not None and self._next.isEnabled():
            self._go(Step(self.step + 1))

    def _on_step_wanted(self, index: int) -> None:
        if index == Step.CHOOSE or self._kind is not None:
            self._go(Step(index))

    def _on_launch(self) -> None:
        state = self.state
        if state is not None and self._launch.isEnabled():
            self._controller.launch(state.info.kind, state.values())

    def _on_field_wanted(self, path: str) -> None:
        if self._kind is None:
            return
        if is_where_path(path):
            self._go(Step.WHERE)
            self.where_step.focus_field(path)
            return
        self._go(Step.SETTINGS)
        self._forms[self._kind].focus_field(path)

    def _on_advanced_toggled(self, on: bool) -> None:
        for form in self._forms.values():
            form.set_advanced(advanced=on)
        self.where_step.set_advanced(advanced=on)

    def _on_busy_changed(self, busy: bool) -> None:
        self._show_launch(is_busy=busy)

    def _on_failed(self, notice: Notice) -> None:
        self._say("error", _words_of(notice))

    def _on_export_wanted(self) -> None:
        chosen, _ = QFileDialog.getSaveFileName(self, "Save the spec", "spec.toml", "TOML (*.toml)")
        if chosen:
            self._controller.save_toml(self._review_step.toml(), Path(chosen))

    def _say(self, weight: str, text: str) -> None:
        set_kind(self._note, "error" if weight == "error" else "caption")
        self._note.setText(text)


def _words_of(notice: Notice) -> str:
    return f"{notice.message} {notice.hint}".strip()
