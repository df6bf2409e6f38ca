"""The wizard for a new run: choose what, fill in, review, launch.

Names of the widgets that tests and tools click (``objectName``):
``card_<kind>`` (such as ``card_train.image``), ``example_<file>``, ``field_<path>`` (such as ``field_optimizer.lr``),
``problem_<path>`` (sentence below a field), ``wizard_advanced``, ``wizard_back``, ``wizard_next``, ``wizard_launch``,
``review_verdict``, ``problem_<n>`` (go to the field of the n-th problem), ``copy_command``, ``copy_toml``, ``wizard_export``.
"""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path

from PySide6.QtCore import Signal
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

from app.controllers.train_controller import Prefill, Reviewed, TrainController
from app.viewmodels.form_state import FormState
from app.views.icons import icon
from app.views.theme import SPACE, set_kind, set_role
from app.views.widgets.card import Card
from app.views.widgets.spec_form import SpecForm
from app.views.widgets.step_bar import StepBar
from app.views.wizards.choose_step import ChooseStep
from app.views.wizards.review_step import ReviewStep
from core.contracts.forms import RunKindInfo
from core.contracts.notices import Notice


class Step(IntEnum):
    """Steps, in order."""

    CHOOSE = 0
    SETTINGS = 1
    REVIEW = 2


_TITLES = ("Choose", "Settings", "Review and launch")


class NewRunWizard(QWidget):
    """Three steps over one controller. Values survive going back and changing the kind.

    Signals:
        step_changed: The ``Step`` that is shown.
    """

    step_changed = Signal(object)

    def __init__(self, controller: TrainController, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._controller = controller
        self._states: dict[str, FormState] = {}
        self._forms: dict[str, SpecForm] = {}
        self._kind: str | None = None
        self._wanted: Prefill | None = None
        self._is_ready = False
        self._build()
        controller.kinds_loaded.connect(self._on_kinds_loaded)
        controller.prefilled.connect(self.prefill)
        controller.reviewed.connect(self._on_reviewed)
        controller.failed.connect(self._on_failed)
        controller.busy_changed.connect(self._on_busy_changed)
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
        self._review_step = ReviewStep()
        self._review_step.field_wanted.connect(self._on_field_wanted)
        self._review_step.export_wanted.connect(self._on_export_wanted)
        for page in (self._choose_step, self._settings, self._review_step):
            self._stack.addWidget(page)
        layout.addWidget(self._stack, 1)
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
            self._settings.addWidget(form)
        self._settings.setCurrentWidget(self._forms[kind])
        self._choose_step.mark(kind)
        self._go(Step.SETTINGS)
        self._forms[kind].focus_first()

    def _go(self, step: Step) -> None:
        self._stack.setCurrentIndex(step)
        self._bar.set_step(step)
        self._back.setEnabled(step > Step.CHOOSE)
        self._advanced.setVisible(step is Step.SETTINGS)
        self._next.setVisible(step is not Step.REVIEW)
        self._next.setEnabled(self._kind is not None)
        self._launch.setVisible(step is Step.REVIEW)
        self._say("info", "")
        if step is Step.REVIEW:
            self._ask_review()
        elif step is Step.CHOOSE:
            self._choose_step.focus_first()
        self.step_changed.emit(step)

    def _ask_review(self) -> None:
        state = self.state
        if state is None:
            return
        self._is_ready = False
        self._launch.setEnabled(False)
        self._review_step.show_waiting(state.info)
        self._controller.review(state.info.kind, state.values())

    def _on_reviewed(self, answer: Reviewed) -> None:
        state = self._states.get(answer.kind)
        if state is None:
            return
        state.take_review(answer.review)
        if answer.kind == self._kind and self.step is Step.REVIEW:
            self._review_step.show_review(answer.review)
            self._is_ready = not answer.review.problems
            self._launch.setEnabled(self._is_ready)
            if self._is_ready:
                self._launch.setFocus()

    def _on_next(self) -> None:
        if self._kind is not None:
            self._go(Step(self.step + 1))

    def _on_step_wanted(self, index: int) -> None:
        if index == Step.CHOOSE or self._kind is not None:
            self._go(Step(index))

    def _on_launch(self) -> None:
        state = self.state
        if state is not None and self._is_ready:
            self._controller.launch(state.info.kind, state.values())

    def _on_field_wanted(self, path: str) -> None:
        if self._kind is None:
            return
        self._go(Step.SETTINGS)
        self._forms[self._kind].focus_field(path)

    def _on_advanced_toggled(self, on: bool) -> None:
        for form in self._forms.values():
            form.set_advanced(advanced=on)

    def _on_busy_changed(self, busy: bool) -> None:
        self._launch.setEnabled(self._is_ready and not busy)
        self._launch.setText("Launching…" if busy else "Launch")

    def _on_failed(self, notice: Notice) -> None:
        self._say("error", f"{notice.message} {notice.hint}".strip())

    def _on_export_wanted(self) -> None:
        chosen, _ = QFileDialog.getSaveFileName(self, "Save the spec", "spec.toml", "TOML (*.toml)")
        if chosen:
            self._controller.save_toml(self._review_step.toml(), Path(chosen))

    def _say(self, weight: str, text: str) -> None:
        set_kind(self._note, "error" if weight == "error" else "caption")
        self._note.setText(text)
