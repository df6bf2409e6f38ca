"""Runs the trials of a sweep: launches them, reads their metric, ends those without prospects, survives their faults.

Trials are ordinary runs in the same home with the sweep as their guardian: whatever ends the sweep's supervisor ends
them. The study (``study``) knows which trials there are; this module knows which of them go on now. After a kill the
study still says which trials were begun: those that go on are followed again, those that were stopped with the sweep
go on from their checkpoints, one that was chosen and never launched is launched.

Following polls small files as all following here does (see ``core.workspace.follower``). Thread: the worker's main thread.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from core.contracts.errors import Cancelled, EnvironmentProblem, PilothouseError, UserError
from core.contracts.ids import RunId
from core.contracts.runs import Curve, RunQuery, RunSummary
from core.contracts.specs import RunSpec
from core.contracts.states import RunState
from core.contracts.worker import RunContext
from core.pipeline.sweep.base import Base
from core.pipeline.sweep.report import Reporter
from core.pipeline.sweep.spec import SweepSpec
from core.pipeline.sweep.study import SweepStudy
from core.runlog.lineage import children_of

if TYPE_CHECKING:
    from core.workspace.workspace import Workspace

POLL_S = 0.25
_STOP_WAIT_S = 120.0
"""How long trials may take to save and end after the sweep was asked to stop."""


@dataclass(slots=True, kw_only=True)
class _Live:
    """A trial that goes on.

    Attributes:
        number: Of the trial.
        run_id: Its run.
        carried: An earlier attempt of the sweep began it, and it has not been resumed since.
        step: Last step of the metric that was read.
        seen: What the summary said when the curve was last read.
        pruned_at: Step at which it was ended early.
    """

    number: int
    run_id: RunId
    carried: bool = False
    step: int = -1
    seen: tuple[int | None, float | None] | None = None
    pruned_at: int | None = None


def role_of(number: int) -> str:
    """Return the role of a trial's run in the lineage of its sweep."""
    return f"trial-{number:03d}"


class SweepRunner:
    """One attempt of one sweep."""

    def __init__(self, spec: SweepSpec, context: RunContext, workspace: Workspace, base: Base) -> None:
        self._spec = spec
        self._context = context
        self._workspace = workspace
        self._base = base
        self.study = SweepStudy(spec, base.domains, context.artifacts_dir / "study.journal")
        self.reporter = Reporter(spec, base.domains, self.study, context)
        self._live: list[_Live] = []
        self._failures = 0
        self._last_failure = ""
        self._deadline = time.monotonic() + (spec.timeout_minutes * 60 or math.inf)
        self._tag = f"sweep-{context.run_id[-6:]}"

    def run(self) -> None:
        """Run trials until all have ended.

        Raises:
            Cancelled: The sweep was asked to stop; its trials were stopped with it and go on with a resume.
            UserError: Too many trials in a row failed; those that went on were stopped.
        """
        try:
            self._take_up()
            while True:
                if self._context.should_stop():
                    raise Cancelled
                self._begin()
                if not self._live:
                    return
                self._look()
                self.reporter.tell(len(self._live))
                time.sleep(POLL_S)
        except (Cancelled, UserError):
            self._stop_all()
            raise

    # -- beginning -------------------------------------------------------------------------------------------------

    def _take_up(self) -> None:
        """Go on with the trials that an earlier attempt began."""
        numbers = self.study.reopen()
        if not numbers:
            return
        self._workspace.sync()
        children = children_of(self._context.run_dir)
        for number in numbers:
            run_id = self.study.run_of(number) or children.get(role_of(number)) or self._stray(number)
            if run_id is None:
                self._launch(number)
                continue
            self.study.launched(number, run_id)
            self._live.append(_Live(number=number, run_id=run_id, carried=True))
            self._context.log(f"Trial {number} goes on as {run_id}.")

    def _stray(self, number: int) -> RunId | None:
        """Return the run of a trial that was launched just before the worker was killed."""
        found = self._workspace.runs(RunQuery(tags=(self._tag, role_of(number)), limit=1)).rows
        return found[0].run_id if found else None

    def _begin(self) -> None:
        """Launch trials until as many go on as may."""
        while len(self._live) < self._spec.parallel_trials and time.monotonic() < self._deadline:
            number = self.study.ask()
            if number is None:
                return
            self._launch(number)

    def _launch(self, number: int) -> None:
        values = self.study.values_of(number)
        try:
            spec = self._dressed(number, self._base.trial_spec(values))
            run_id = self._workspace.launch_spec(spec, guardian=self._context.run_dir)
        except PilothouseError as error:
            self._fail(number, f"It could not be launched: {error}")
            return
        self._context.child(run_id, role_of(number))
        self.study.launched(number, run_id)
        self._follow_elsewhere(run_id)
        self._live.append(_Live(number=number, run_id=run_id))
        told = ", ".join(f"{path} = {value}" for path, value in values.items())
        self._context.log(f"Trial {number} is {run_id}: {told}.")

    def _dressed(self, number: int, spec: RunSpec) -> RunSpec:
        """Return the spec of a trial with its name, its labels and its place in the lineage."""
        name = spec.name or self._spec.name or str(spec.__struct_config__.tag)
        tags = tuple(dict.fromkeys((*spec.tags, self._tag, role_of(number))))
        return msgspec.structs.replace(
            spec, name=f"{name} #{number}", tags=tags, parent=spec.parent or self._context.run_id
        )

    def _follow_elsewhere(self, run_id: RunId) -> None:
        self._workspace.fleet.following.follow(run_id)

    # -- following -------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        for trial in list(self._live):
            try:
                summary = self._workspace.updated(trial.run_id)
            except UserError:
                self._end(trial, lambda number: self._fail(number, "Its run was deleted."))
                continue
            if trial.pruned_at is None:
                self._read(trial, summary)
            if summary.state.is_terminal:
                self._conclude(trial, summary)

    def _read(self, trial: _Live, summary: RunSummary) -> None:
        """Hand the newest value of the metric to the pruner, and stop the trial if it says so."""
        seen = (summary.step, summary.final.get(self._spec.metric))
        if seen == trial.seen or seen[1] is None:
            return
        trial.seen = seen
        curve = self._curve(trial.run_id, trial.step + 1)
        if curve is None or not len(curve.step):
            return
        trial.step = int(curve.step[-1])
        if not self.study.report(trial.number, trial.step, float(curve.value[-1])) or summary.state.is_terminal:
            return
        trial.pruned_at = trial.step
        self._context.log(f"Trial {trial.number} is ended early at step {trial.step}.")
        self._stop(trial)

    def _curve(self, run_id: RunId, first_step: int = 0) -> Curve | None:
        try:
            return self._workspace.curve(run_id, self._spec.metric, first_step=first_step)
        except UserError:  # it has recorded none yet, or tells it with its results only
            return None

    def _conclude(self, trial: _Live, summary: RunSummary) -> None:
        """Take the end of a trial's run as the end of the trial, or resume what was stopped with the sweep."""
        state = summary.state
        if state is RunState.SUCCEEDED:
            self._end(trial, lambda number: self._score(number, summary))
        elif trial.pruned_at is not None:
            self._end(trial, lambda number: self.study.prune(number, f"pruned at step {trial.pruned_at}"))
        elif trial.carried and state in (RunState.STOPPED, RunState.LOST):
            trial.carried = False
            try:
                self._workspace.resume(trial.run_id, guardian=self._context.run_dir)
            except PilothouseError as error:
                why = str(error)
                self._end(trial, lambda number: self._fail(number, f"It could not be resumed: {why}"))
        elif state is RunState.STOPPED:
            self._end(trial, lambda number: self._fail(number, "Its run was stopped by hand."))
        else:
            self._end(trial, lambda number: self._fail(number, summary.message or f"Its run {state.value}."))

    def _score(self, number: int, summary: RunSummary) -> None:
        value = self._value(summary)
        if value is None:
            known = ", ".join(sorted(summary.final)[:12]) or "none"
            self._fail(number, f"It recorded no {self._spec.metric}; its metrics: {known}.")
        elif not math.isfinite(value):
            self._fail(number, f"Its {self._spec.metric} is {value}.")
        else:
            self._failures = 0
            self.study.finish(number, value)

    def _value(self, summary: RunSummary) -> float | None:
        """Return the value of the metric that a run counts with."""
        curve = self._curve(summary.run_id) if self._spec.aggregate == "best" else None
        if curve is None:
            return summary.final.get(self._spec.metric)
        finite = curve.value[np.isfinite(curve.value)]
        if not len(finite):
            return math.nan
        return float(finite.min() if self._spec.goal == "minimize" else finite.max())

    # -- ending ----------------------------------------------------------------------------------------------------

    def _end(self, trial: _Live, tell: Callable[[int], None]) -> None:
        self._live.remove(trial)
        tell(trial.number)
        self.reporter.ended(trial.number)

    def _fail(self, number: int, message: str) -> None:
        self.study.fail(number, message)
        self._context.log(f"Trial {number} failed: {message}", "warning")
        self._failures += 1
        self._last_failure = message
        if self._failures == self._spec.stop_after_failures:
            raise UserError(
                f"{self._failures} trials in a row failed, the last so: {message}",
                "Correct the ranges or the spec, or raise the number of failures in a row, and resume.",
            )

    def _stop(self, trial: _Live) -> None:
        try:
            with contextlib.suppress(UserError):  # it ended just now
                self._workspace.stop(trial.run_id)
        except EnvironmentProblem as error:
            self._context.log(f"The run {trial.run_id} could not be asked to stop: {error}", "warning")

    def _stop_all(self) -> None:
        """Stop the trials that go on, and wait until they have saved; the study keeps them as begun.

        One that does not end, such as on a host that does not answer, is left to itself: a resume follows it again.
        """
        for trial in self._live:
            self._stop(trial)
        deadline = time.monotonic() + _STOP_WAIT_S
        while self._live and time.monotonic() < deadline:
            self._live = [trial for trial in self._live if not self._has_ended(trial)]
            time.sleep(POLL_S)
        for trial in self._live:
            self._context.log(f"The run {trial.run_id} was asked to stop and has not ended yet.", "warning")

    def _has_ended(self, trial: _Live) -> bool:
        try:
            return self._workspace.updated(trial.run_id).state.is_terminal
        except UserError:
            return True
