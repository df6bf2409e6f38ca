"""The report of a sweep: made from its study, written beside it as ``sweep.json``, published as table and results."""

from __future__ import annotations

import math
import time
from pathlib import Path

import msgspec
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as StudyState

from core.contracts.events import Cell
from core.contracts.sweeps import BEST_KEY, REPORT_NAME, SweepReport, SweepTrial, TrialState
from core.contracts.worker import RunContext
from core.pipeline.sweep.ranges import Domain
from core.pipeline.sweep.spec import SweepSpec
from core.pipeline.sweep.study import SweepStudy

REPORT_KIND = "sweep"
VALUE_KEY = "sweep/value"
_TABLE = "trials"
_STATES: dict[StudyState, TrialState] = {
    StudyState.WAITING: "waiting",
    StudyState.RUNNING: "running",
    StudyState.COMPLETE: "finished",
    StudyState.PRUNED: "pruned",
    StudyState.FAIL: "failed",
}
_WRITE_EVERY_S = 1.0
_TABLE_EVERY_S = 30.0
_IMPORTANCE_EVERY_S = 10.0


def _trial_record(study: SweepStudy, trial: FrozenTrial) -> SweepTrial:
    latest = max(trial.intermediate_values, default=None)
    on_the_way = None if latest is None else trial.intermediate_values[latest]
    value = trial.value if trial.value is not None else on_the_way
    return SweepTrial(
        number=trial.number,
        state=_STATES[trial.state],
        values=dict(trial.params),
        value=value if value is not None and math.isfinite(value) else None,
        step=latest,
        run_id=study.run_of(trial.number) or "",
        message=study.message_of(trial),
        started=None if trial.datetime_start is None else trial.datetime_start.timestamp(),
        ended=None if trial.datetime_complete is None else trial.datetime_complete.timestamp(),
    )


class Reporter:
    """Tells how a sweep stands. Thread: the worker's main thread."""

    def __init__(self, spec: SweepSpec, domains: tuple[Domain, ...], study: SweepStudy, context: RunContext) -> None:
        self._spec = spec
        self._parameters = tuple(domain.record() for domain in domains)
        self._study = study
        self._context = context
        self._importance: tuple[dict[str, float], str] = ({}, "")
        self._importance_of = -1
        self._due = {"write": 0.0, "table": 0.0, "importance": 0.0}

    @property
    def path(self) -> Path:
        """Where the report is."""
        return self._context.artifacts_dir / REPORT_NAME

    def report(self) -> SweepReport:
        """Return the sweep as it stands, with the importance last found."""
        shares, note = self._importance
        best = self._study.best()
        return SweepReport(
            metric=self._spec.metric,
            goal=self._spec.goal,
            sampler=self._spec.sampler,
            pruner=self._spec.pruner,
            planned=self._study.planned,
            parameters=tuple(msgspec.structs.replace(p, importance=shares.get(p.path)) for p in self._parameters),
            trials=tuple(_trial_record(self._study, trial) for trial in self._study.trials()),
            best=None if best is None else best.number,
            importance_note=note,
        )

    def begin(self) -> None:
        """Say where this attempt goes on, and show the trials that there are."""
        ended = [trial for trial in self._study.trials() if trial.datetime_complete is not None]
        # The last point is written again: a kill may have come between the study's note of a trial and its point.
        self._context.started_from(len(ended) - 1 if ended else None)
        if ended:
            self.ended(max(ended, key=lambda trial: (trial.datetime_complete, trial.number)).number)
        self._write()

    def tell(self, running: int) -> None:
        """Say how far the sweep is, and write the report; each as often as it is worth its cost."""
        ended, planned = self._study.ended(), self._study.planned
        best = self._study.best()
        words = f"{ended} of {planned} trials, {running} running"
        words += "" if best is None else f", best {best.value:.4g}"
        self._context.progress(min(ended / planned, 1.0), words, step=ended, total_steps=planned)
        if self._is_due("importance", _IMPORTANCE_EVERY_S):
            self._weigh()
        if self._is_due("write", _WRITE_EVERY_S):
            self._write()
        if self._is_due("table", _TABLE_EVERY_S):
            self._tabulate()

    def ended(self, number: int) -> None:
        """Add a trial that has ended to the curves of the sweep."""
        trial, best = self._study.trials()[number], self._study.best()
        values = {} if best is None or best.value is None else {BEST_KEY: best.value}
        if trial.value is not None and math.isfinite(trial.value):
            values[VALUE_KEY] = trial.value
        if values:
            self._context.metric(self._study.ended(), values)

    def settle(self) -> SweepReport:
        """Write the report and the table once more, with everything in them."""
        self._weigh()
        self._write()
        self._tabulate()
        return self.report()

    def _is_due(self, what: str, period_s: float) -> bool:
        now = time.monotonic()
        if now < self._due[what]:
            return False
        self._due[what] = now + period_s
        return True

    def _weigh(self) -> None:
        if self._importance_of != self._study.ended():
            self._importance_of = self._study.ended()
            self._importance = self._study.importance()

    def _write(self) -> None:
        partial = self.path.with_name(f".{REPORT_NAME}.partial")
        partial.write_bytes(msgspec.json.format(msgspec.json.encode(self.report()), indent=1))
        partial.replace(self.path)

    def _tabulate(self) -> None:
        paths = [parameter.path for parameter in self._parameters]
        rows: list[list[Cell]] = [
            [
                trial.number,
                f"{trial.state}: {trial.message}" if trial.message else trial.state,
                *(trial.values.get(path) for path in paths),
                trial.value,
                trial.step,
                trial.run_id,
            ]
            for trial in self.report().trials
        ]
        self._context.table(_TABLE, ("trial", "state", *paths, self._spec.metric, "step", "run"), rows)
