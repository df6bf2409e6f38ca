"""What a sweep found: its parameters, its trials, and which parameters mattered; the records of ``sweep.json``.

The sweep's worker writes the report with every change, and computes the importance; the window, the command line and
scripts only read it.
"""

from __future__ import annotations

from typing import Literal

import msgspec

SWEEP_KIND = "sweep"
"""Kind of run that tries values."""
REPORT_NAME = "sweep.json"
"""Name of the report below the ``artifacts`` of a sweep."""
BEST_KEY = "sweep/best"
"""Metric of a sweep: the best value so far, over the number of trials that have ended."""

ParameterValue = bool | int | float | str
ParameterKind = Literal["integer", "number", "choice"]
TrialState = Literal["waiting", "running", "finished", "pruned", "failed"]
Goal = Literal["minimize", "maximize"]


class SweepParameter(msgspec.Struct, frozen=True, kw_only=True):
    """One parameter that is varied.

    Attributes:
        path: Dotted path in the spec of the trials, such as ``optimizer.lr``.
        label: Its name in the user's words.
        kind: What its values are; the values of a ``choice`` have no order.
        text: The range as it was asked for.
        low: Smallest value of a range; None for a choice.
        high: Largest value of a range; None for a choice.
        log: Its range is meant on a logarithmic scale.
        choices: Values of a choice, in the order asked.
        importance: Share of the metric's variance that it explains, 0 to 1; None until two trials have ended.
    """

    path: str
    label: str
    kind: ParameterKind
    text: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[ParameterValue, ...] = ()
    importance: float | None = None


class SweepTrial(msgspec.Struct, frozen=True, kw_only=True):
    """One trial: an ordinary run with one value of each parameter.

    Attributes:
        number: Counts from 0 in the order begun.
        state: ``pruned`` was stopped early because it did not look promising.
        values: Value of each parameter by its path.
        value: Its value of the metric: the final one, or the latest while it runs; None before there is one.
        step: Training step of that value; None where the metric is not recorded over steps.
        run_id: Its run; empty before it was launched.
        message: Why it failed, or when it was pruned.
        started: Unix seconds; None before it began.
        ended: Unix seconds; None until it has ended.
    """

    number: int
    state: TrialState
    values: dict[str, ParameterValue]
    value: float | None = None
    step: int | None = None
    run_id: str = ""
    message: str = ""
    started: float | None = None
    ended: float | None = None


class SweepReport(msgspec.Struct, frozen=True, kw_only=True):
    """A sweep as it stands.

    Attributes:
        metric: Name of the metric that is sought, such as ``val/loss``.
        goal: Whether small or large values are good.
        sampler: How values are chosen.
        pruner: How trials are ended early.
        planned: How many trials there are to be in all.
        parameters: What is varied.
        trials: In the order of their numbers.
        best: Number of the finished trial with the best value; None while there is none.
        importance_note: Why importance is not told, as a sentence; empty where it is.
    """

    metric: str
    goal: Goal
    sampler: str
    pruner: str
    planned: int
    parameters: tuple[SweepParameter, ...]
    trials: tuple[SweepTrial, ...] = ()
    best: int | None = None
    importance_note: str = ""

    @property
    def best_trial(self) -> SweepTrial | None:
        """The finished trial with the best value."""
        return next((trial for trial in self.trials if trial.number == self.best), None)

    def count(self, *states: TrialState) -> int:
        """Return how many trials are in one of the states."""
        return sum(trial.state in states for trial in self.trials)
