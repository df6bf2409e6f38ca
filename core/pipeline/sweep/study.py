"""The search itself: Optuna's study in a journal file in the sweep's own directory, without pickles.

The journal is the truth about which trials there are; a resume goes on with it. The values of a trial depend on the seed,
its number and the trials before it only, so a sweep that was interrupted chooses as one that was not. Methods of Optuna:
Tree-structured Parzen Estimator (Bergstra et al. 2011; Watanabe 2023), asynchronous successive halving (Li et al. 2018),
median stopping (Golovin et al. 2017), importance by functional ANOVA (Hutter et al. 2014).

Not here: what a trial does, and when; see ``runner``. Thread: the worker's main thread.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from core.contracts.ids import RunId
from core.contracts.sweeps import ParameterValue
from core.pipeline.sweep.ranges import Domain
from core.pipeline.sweep.spec import SweepSpec

_NAME = "sweep"
_RUN, _MESSAGE = "run_id", "message"
ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def _distribution(domain: Domain) -> BaseDistribution:
    if domain.choices:
        return CategoricalDistribution(domain.choices)
    if domain.is_integer:
        return IntDistribution(round(domain.low), round(domain.high), log=domain.log, step=round(domain.step or 1))
    return FloatDistribution(domain.low, domain.high, log=domain.log, step=domain.step)


def _pruner(spec: SweepSpec) -> BasePruner:
    if spec.pruner == "asha":
        return SuccessiveHalvingPruner(min_resource=spec.min_steps, reduction_factor=spec.reduction_factor)
    if spec.pruner == "median":
        return MedianPruner(n_startup_trials=spec.median_trials, n_warmup_steps=spec.min_steps)
    return NopPruner()


def _repair(journal: Path) -> None:
    """Make the journal of a killed worker usable: no lock without an owner, no half line at the end.

    A sweep has one worker, so a lock found before the journal is opened belongs to nobody.
    """
    for left in journal.parent.glob(f"{journal.name}.lock*"):
        left.unlink()
    if journal.exists():
        data = journal.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            journal.write_bytes(data[:whole])


class SweepStudy:
    """The trials of one sweep, kept on disk with every call."""

    def __init__(self, spec: SweepSpec, domains: tuple[Domain, ...], journal: Path) -> None:
        """Open the study, or begin it.

        Raises:
            OSError: The journal cannot be read or written.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        _repair(journal)
        self._spec = spec
        self._open: dict[int, Trial] = {}
        self._is_grid = spec.sampler == "grid"
        self._grid = [domain.grid() or () for domain in domains] if self._is_grid else []
        self._space = {
            domain.field.dotted: CategoricalDistribution(self._grid[number]) if self._is_grid else _distribution(domain)
            for number, domain in enumerate(domains)
        }
        self._study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(journal))),
            study_name=_NAME,
            direction=spec.goal,
            pruner=_pruner(spec),
            load_if_exists=True,
        )

    @property
    def planned(self) -> int:
        """How many trials there are to be in all."""
        return math.prod(len(values) for values in self._grid) if self._is_grid else self._spec.trials

    def trials(self) -> list[FrozenTrial]:
        """Return all trials in the order of their numbers; not to be changed."""
        return self._study.get_trials(deepcopy=False)

    def ended(self) -> int:
        """Return how many trials have ended."""
        return sum(trial.state in ENDED for trial in self.trials())

    def _sampler(self, number: int) -> BaseSampler:
        seed = (self._spec.seed + number) % 2**32
        if self._spec.sampler == "tpe":
            # A running trial counts as a bad one, so that trials at the same time do not try the same.
            return TPESampler(seed=seed, n_startup_trials=self._spec.startup_trials, constant_liar=True)
        return RandomSampler(seed=seed)

    def ask(self) -> int | None:
        """Begin a trial and choose its values; return its number, or None when all were begun."""
        trials = self.trials()
        waiting = [trial for trial in trials if trial.state is TrialState.WAITING]
        if len(trials) - len(waiting) >= self.planned:
            return None
        if self._is_grid and not waiting:
            combination = next(itertools.islice(itertools.product(*self._grid), len(trials), None))
            self._study.enqueue_trial(dict(zip(self._space, combination, strict=True)))
        number = waiting[0].number if waiting else len(trials)
        self._study.sampler = self._sampler(number)
        trial = self._study.ask()
        self._open[trial.number] = trial
        self._choose(trial)
        return trial.number

    def _choose(self, trial: Trial) -> None:
        """Choose the values that a trial lacks."""
        for path, space in self._space.items():
            if isinstance(space, CategoricalDistribution):
                trial.suggest_categorical(path, space.choices)
            elif isinstance(space, IntDistribution):
                trial.suggest_int(path, space.low, space.high, step=space.step, log=space.log)
            elif isinstance(space, FloatDistribution):
                trial.suggest_float(path, space.low, space.high, step=space.step, log=space.log)

    def values_of(self, number: int) -> dict[str, ParameterValue]:
        """Return the values of a trial."""
        return dict(self.trials()[number].params)

    def reopen(self) -> list[int]:
        """Return the numbers of the trials that an earlier attempt began and that have not ended.

        One whose worker was killed while it chose values gets those that it lacks.
        """
        begun = [trial for trial in self.trials() if trial.state is TrialState.RUNNING]
        for frozen in begun:
            self._study.sampler = self._sampler(frozen.number)
            trial = Trial(self._study, frozen._trial_id)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - the only way to take a trial up again
            self._open[frozen.number] = trial
            self._choose(trial)
        return [trial.number for trial in begun]

    def run_of(self, number: int) -> RunId | None:
        """Return the run of a trial; None before it was launched."""
        run_id = self.trials()[number].user_attrs.get(_RUN)
        return None if run_id is None else RunId(run_id)

    def message_of(self, trial: FrozenTrial) -> str:
        """Return what is to be said of a trial."""
        return str(trial.user_attrs.get(_MESSAGE, ""))

    def launched(self, number: int, run_id: RunId) -> None:
        """Keep which run a trial is."""
        self._open[number].set_user_attr(_RUN, run_id)

    def report(self, number: int, step: int, value: float) -> bool:
        """Keep a value of the metric on the way; return whether the trial should be ended. NaN counts as worst."""
        if step in self.trials()[number].intermediate_values:
            return False
        trial = self._open[number]
        trial.report(value, step)
        return trial.should_prune()

    def finish(self, number: int, value: float) -> None:
        """End a trial with its value."""
        self._study.tell(number, value)

    def prune(self, number: int, message: str) -> None:
        """End a trial that was stopped early."""
        self._open[number].set_user_attr(_MESSAGE, message)
        self._study.tell(number, state=TrialState.PRUNED)

    def fail(self, number: int, message: str) -> None:
        """End a trial without a value."""
        self._open[number].set_user_attr(_MESSAGE, message)
        self._study.tell(number, state=TrialState.FAIL)

    def best(self) -> FrozenTrial | None:
        """Return the finished trial with the best value; the earliest of equals."""
        finished = [trial for trial in self.trials() if trial.state is TrialState.COMPLETE]
        sign = 1 if self._spec.goal == "minimize" else -1
        return min(finished, key=lambda trial: sign * _value(trial), default=None)

    def importance(self) -> tuple[dict[str, float], str]:
        """Return the share of the variance that each parameter explains, by path; or why that cannot be told.

        Takes part: every finished trial. Some 0.1 to 1 s of one core.
        """
        finished = [trial for trial in self.trials() if trial.state is TrialState.COMPLETE]
        if len(finished) < 2:
            return {}, "Importance is told once two trials have finished."
        if len({_value(trial) for trial in finished}) < 2:
            return {}, "All finished trials have the same value, so no parameter matters."
        found = get_param_importances(self._study, evaluator=FanovaImportanceEvaluator(seed=self._spec.seed))
        return {path: float(found.get(path, 0.0)) for path in self._space}, ""


def _value(trial: FrozenTrial) -> float:
    assert trial.value is not None
    return trial.value
