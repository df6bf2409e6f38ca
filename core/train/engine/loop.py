"""The training loop: steps, validations, checkpoints, and what the stability guard decides. All ranks go through it in step.

Everything that steers it is agreed on: a small exchange before the passes carries counted units, waits and requests of all
ranks, one after them the losses. A step's samples depend on its number alone, and a step that goes wrong is dropped before
it touches a weight. Thread: the main one.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from core.contracts.errors import UserError
from core.contracts.worker import RunContext
from core.train.data.advice import WaitTally
from core.train.engine.agreement import Agreement
from core.train.engine.contracts import (
    Batches,
    Decision,
    GradientNorms,
    Guard,
    Observation,
    ParallelModel,
    TrainingTask,
)
from core.train.engine.keeping import Keeper
from core.train.engine.measures import StepMeasures
from core.train.engine.meters import Stopwatch, marked
from core.train.engine.optim import lr_at
from core.train.engine.passes import Passes
from core.train.engine.position import Position
from core.train.engine.precision import LossScaler
from core.train.engine.remedies import Remedies
from core.train.engine.update import Updater
from core.train.engine.validation import Validator
from core.train.specs.training import TrainingSpec


class StepObserver(Protocol):
    """What is told of each step, such as the profiler."""

    def before_step(self, step: int) -> None:
        """Called before a step, with its number."""
        ...

    def after_step(self, step: int) -> None:
        """Called after a step."""
        ...


@runtime_checkable
class _ReportsValues(Protocol):
    """A task that has further values of each step."""

    def step_values(self) -> dict[str, float]: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoopParts:
    """All that the loop works with, on one rank.

    Attributes:
        validator: None: there is no validation.
        guard: None: it is off.
        total_steps: Optimizer steps of the whole training.
        evaluate_every: Steps between two validations.
    """

    spec: TrainingSpec
    context: RunContext
    passes: Passes
    batches: Batches
    updater: Updater
    keeper: Keeper
    measures: StepMeasures
    observer: StepObserver
    validator: Validator | None
    guard: Guard | None
    total_steps: int
    evaluate_every: int

    @property
    def task(self) -> TrainingTask:
        """What is trained."""
        return self.passes.task

    @property
    def model(self) -> ParallelModel:
        """The model as laid out."""
        return self.passes.model

    @property
    def agreement(self) -> Agreement:
        """Exchanges between the ranks."""
        return self.passes.agreement

    @property
    def scaler(self) -> LossScaler | None:
        """The loss scale (fp16)."""
        return self.passes.arithmetic.scaler


@dataclass(slots=True, kw_only=True)
class _Step:
    """What is known of the step under way, the same on every rank.

    Attributes:
        units: Counted units of all data ranks.
        loss: Mean loss per unit.
        is_taken: The weights were updated.
    """

    number: int
    lr: float
    units: float = 0.0
    loss: float = math.nan
    waits_s: tuple[float, ...] = ()
    norms: GradientNorms
    is_taken: bool = False
    measured_ratio: float | None = None


class TrainingLoop:
    """Trains one model.

    Args:
        parts: What it works with.
        at: Where the training stands; changed in place.
    """

    def __init__(self, parts: LoopParts, at: Position) -> None:
        self._parts = parts
        self._at = at
        self._mesh = parts.model.mesh
        self._watch = Stopwatch()
        self._remedies = Remedies(parts, at)
        self._busy_s = 0.0
        self._busy_times_s: tuple[float, ...] = ()
        self._must_stop = False
        self._waits = WaitTally()

    def run(self) -> bool:
        """Train to the end; False when stopped or paused before (a checkpoint was saved).

        Raises:
            UserError: The loss became infinite or not a number, or the guard stopped the run.
            EnvironmentProblem: A checkpoint could not be saved.
        """
        parts, at = self._parts, self._at
        for part in parts.model.parts:
            part.train()
        while not self._must_stop:
            self._validate_if_due()
            if at.step >= parts.total_steps and not self._must_stop:
                parts.keeper.save(wait=True)
                self._advise()
                return True
            if not self._must_stop:
                self._save_if_due()
                self._timed_step()
        parts.keeper.save(wait=True)
        return False

    def _advise(self) -> None:
        """Say what to change where the training has waited for its data."""
        parts = self._parts
        advice = self._waits.advice(parts.spec.loading, parts.spec.parallel.processes)
        if advice and self._mesh.is_main:
            parts.context.log(advice, "warning")

    # -- one step ----------------------------------------------------------------------------------------------------

    def _timed_step(self) -> None:
        parts = self._parts
        number = self._at.step + 1
        parts.observer.before_step(number)
        self._watch.restart()
        parts.agreement.seconds = 0.0
        step = self._passes(number)
        decision = self._decide(step)
        with self._watch.measure("optimizer"):
            rolled_back = self._carry_out(step, decision)
        self._watch.seconds["communication"] = parts.agreement.seconds
        seconds = self._watch.total()
        self._busy_s = seconds - parts.agreement.seconds
        self._at.elapsed_s += seconds
        self._waits.add(parts.batches.last_wait_s, seconds)
        parts.observer.after_step(number)
        if not rolled_back:
            self._at.step = number
            self._report(step, seconds)

    def _passes(self, number: int) -> _Step:
        """Do the passes of a step; gradients, unscaled and with penalties, are left in place."""
        parts, at = self._parts, self._at
        for _ in range(at.skips.get(number, 0)):
            parts.batches.skip(at.accum)
        with marked("data_wait"):
            micro_batches = parts.batches.next_step(at.accum)
        own = [parts.batches.last_wait_s, self._busy_s]
        own += [float(parts.context.should_stop()), float(parts.keeper.failed)]
        found = parts.passes.run(micro_batches, own, by_block=parts.guard is not None)
        self._watch.seconds["forward_backward"] = found.seconds
        self._heed(found.told)
        spec = parts.spec.optimizer
        return _Step(
            number=number,
            lr=lr_at(number - 1, parts.total_steps, spec) * at.lr_factor * at.lr / spec.lr,
            units=found.units,
            loss=found.loss,
            waits_s=tuple(row[0] for row in found.told),
            norms=found.norms,
        )

    def _heed(self, told: tuple[tuple[float, ...], ...]) -> None:
        """Take in what the ranks told each other: waits, step times, requests to stop, failed saves."""
        self._busy_times_s = tuple(row[1] for row in told)
        self._must_stop = any(row[2] > 0 for row in told)
        if any(row[3] > 0 for row in told):
            self._parts.keeper.wait()

    def _decide(self, step: _Step) -> Decision:
        guard, scaler = self._parts.guard, self._parts.scaler
        if guard is None:
            return Decision()
        overflowed = scaler is not None and not math.isfinite(step.norms.total)
        seen = Observation(
            step=step.number,
            loss=step.loss,
            norms=step.norms,
            lr=step.lr,
            loss_scale=None if scaler is None else scaler.scale,
            overflowed=overflowed,
            step_times_s=self._busy_times_s,
            data_waits_s=step.waits_s,
            update_ratio=self._parts.updater.ratio,
        )
        return guard.observe(seen)

    def _carry_out(self, step: _Step, decision: Decision) -> bool:
        """Take the step, or do what the guard decided; return whether the training was put back to a checkpoint."""
        parts = self._parts
        act = self._remedies.carry_out(step.number, decision)
        self._must_stop = self._must_stop or act.must_stop
        scaler = parts.scaler
        is_finite = math.isfinite(step.norms.total) and math.isfinite(step.loss)
        if scaler is not None and not act.rolled_back:
            scaler.update(overflowed=not math.isfinite(step.norms.total))
        if is_finite and act.takes_step:
            step.is_taken = True
            lr = step.lr * act.lr_factor
            if parts.updater.update(step.number, lr, norm=step.norms.total, clip_to=act.clip_to):
                step.measured_ratio = parts.updater.ratio
        parts.updater.drop()
        return act.rolled_back

    def _report(self, step: _Step, seconds: float) -> None:
        parts = self._parts
        scaler = parts.scaler
        values = {"train/loss": step.loss, "train/lr": step.lr, "train/grad_norm": step.norms.total}
        if scaler is not None:
            values["train/loss_scale"] = scaler.scale
        if step.measured_ratio is not None:
            values["train/update_ratio"] = step.measured_ratio
        values["train/epoch"] = parts.batches.epoch()
        if isinstance(parts.task, _ReportsValues):
            values |= parts.task.step_values()
        self._watch.seconds["data_wait"] = parts.batches.last_wait_s
        parts.measures.report(step.number, values, self._watch.seconds, seconds=seconds, units=step.units)
        if self._mesh.is_main:
            done = step.number / parts.total_steps
            parts.context.progress(done, "Training", step=step.number, total_steps=parts.total_steps)
        self._end_if_broken(step)

    def _end_if_broken(self, step: _Step) -> None:
        """Without the guard, end the run at a loss or gradient that is not finite; fp16 overflows are the scaler's."""
        if self._parts.guard is not None:
            return
        broken = "" if math.isfinite(step.loss) else f"training loss became {step.loss}"
        if not broken and self._parts.scaler is None and not math.isfinite(step.norms.total):
            broken = f"gradient became {step.norms.total}"
        if broken:
            raise UserError(
                f"The {broken} at step {step.number}.",
                "Lower the learning rate, lengthen the warm-up, clip the gradient, or switch the stability guard on.",
            )

    # -- validation and checkpoints ----------------------------------------------------------------------------------

    def _validate_if_due(self) -> None:
        parts, at = self._parts, self._at
        due = at.step % parts.evaluate_every == 0 or at.step >= parts.total_steps
        if parts.validator is None or at.step == 0 or not due or at.evaluated_step == at.step:
            return
        started = time.perf_counter()
        with parts.keeper.averaged_weights():
            found = parts.validator.run(at.step, parts.context.should_stop)
        at.elapsed_s += time.perf_counter() - started
        if found is None:
            self._must_stop = True
            return
        if self._mesh.is_main:
            parts.context.metric(at.step, found.values)
        at.evaluated_step, at.last_values = at.step, found.values
        if found.score > at.best_score:
            at.best_score, at.best_step, at.best_values = found.score, at.step, found.values
            if parts.spec.checkpoints.keep_best:
                parts.keeper.save()

    def _save_if_due(self) -> None:
        at = self._at
        every = self._parts.spec.checkpoints.every_steps or self._parts.evaluate_every
        if at.step > 0 and at.step % every == 0:
            self._parts.keeper.save()
