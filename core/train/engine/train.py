"""One rank's part of a training, from the spec to what the run leaves behind.

``train`` joins the ranks, lets the task build model and data, lays the model out, and runs the loop; with one rank it is
the same code without exchanges. Every kind that trains with our engine calls it from its ``rank_run``.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from core.contracts.errors import UserError
from core.contracts.worker import RunContext
from core.train.data.advice import loading_advice
from core.train.data.batches import make_batches
from core.train.distill import distilling
from core.train.engine import checkpoint_files as files
from core.train.engine.agreement import Agreement
from core.train.engine.average import WeightAverage
from core.train.engine.checkpointing import CheckpointStore
from core.train.engine.contracts import Batches, Guard, Mesh, Outcome, ParallelModel, TrainingTask
from core.train.engine.export import full_weights
from core.train.engine.find_lr import find_lr
from core.train.engine.find_micro_batch import find_micro_batch
from core.train.engine.keeping import Keeper, Kept, seed_rank
from core.train.engine.loop import LoopParts, TrainingLoop
from core.train.engine.measures import StepMeasures
from core.train.engine.naming import changing_tensors, local
from core.train.engine.optim import Optimizers, build_optimizer
from core.train.engine.passes import Passes
from core.train.engine.position import Position
from core.train.engine.precision import make_arithmetic
from core.train.engine.update import Updater
from core.train.engine.validation import Validator
from core.train.parallel.build import parallelize
from core.train.parallel.mesh import build_mesh, close_mesh
from core.train.penalty import report_near_zero
from core.train.profile.recorder import ProfileRecorder
from core.train.specs.training import TrainingSpec
from core.train.stability.guard import make_guard

MakeTask = Callable[[Mesh, RunContext], TrainingTask]


def train(spec: TrainingSpec, context: RunContext, make_task: MakeTask) -> None:
    """Do this rank's part of a training; called once in a process, in its main thread.

    Args:
        spec: What was asked.
        context: This rank's handle on the run.
        make_task: Makes the task, on every rank.

    Raises:
        UserError, EnvironmentProblem: As the sentence says; also where another rank failed to save.
    """
    mesh = build_mesh(spec)
    try:
        _Training(spec, context, mesh).run(make_task)
    finally:
        close_mesh()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Built:
    """What the loop trains, and the guard that watches it."""

    passes: Passes
    batches: Batches
    optimizers: Optimizers
    average: WeightAverage | None
    guard: Guard | None


class _Training:
    """Puts the parts of a training together on one rank."""

    def __init__(self, spec: TrainingSpec, context: RunContext, mesh: Mesh) -> None:
        self._spec = spec
        self._context = context
        self._mesh = mesh
        self._agreement = Agreement(mesh, spec.parallel.timeout_s)
        self._store = CheckpointStore(context, mesh, self._agreement, spec)

    def run(self, make_task: MakeTask) -> None:
        """Build, resume, train and finish."""
        try:
            self._run(make_task)
        finally:
            self._store.close()

    def _run(self, make_task: MakeTask) -> None:
        self._progress("Building the model")
        arithmetic = make_arithmetic(self._spec, self._mesh.device, self._log)
        set_seed(self._spec.seed)
        task = distilling(make_task(self._mesh, self._context), self._spec, self._mesh, self._context)
        model = parallelize(task.build_model(), task, self._mesh, self._spec, arithmetic)
        l1 = self._spec.distillation.l1
        passes = Passes(task=task, model=model, arithmetic=arithmetic, agreement=self._agreement, l1=l1)
        self._progress("Preparing the data")
        resumed_from = self._store.newest()
        at = self._begin(passes, resumed_from)
        built = self._build(passes, at)
        keeper = self._keeper(built, at)
        if resumed_from is not None:
            keeper.restore(resumed_from)
        self._say_start(model, at, resumed_from)
        profiler = ProfileRecorder(self._context, self._mesh, self._spec.tuning)
        try:
            parts = self._loop_parts(built, keeper, profiler, at)
            if resumed_from is not None:
                self._refuse_nothing_left(resumed_from, at.step, parts.total_steps)
            is_done = TrainingLoop(parts, at).run()
        finally:
            profiler.close()
            built.batches.close()
        if is_done:
            self._finish(built, keeper, at)

    def _progress(self, stage: str) -> None:
        if self._mesh.is_main:
            self._context.progress(0.0, stage)

    def _log(self, message: str, level: str = "info") -> None:
        """Write into the log of the run: rank 0's words, and warnings of every rank."""
        if self._mesh.is_main or level != "info":
            self._context.log(message, level)

    # -- putting together --------------------------------------------------------------------------------------------

    def _begin(self, passes: Passes, resumed_from: Path | None) -> Position:
        """Return where the training begins; what is found by trying is found once, at the first start."""
        spec, own_accum = self._spec, self._spec.optimizer.grad_accum_steps
        if resumed_from is not None:
            found = Position.from_values(files.load_training(resumed_from)["position"])
            micro_batch, accum = found.micro_batch, found.accum // found.accum_factor
            is_found = spec.tuning.find_micro_batch and micro_batch * accum == spec.micro_batch * own_accum
            if not is_found:
                micro_batch, accum = spec.micro_batch, own_accum
            lr = found.lr if spec.tuning.find_lr else spec.optimizer.lr
            return Position(lr=lr, micro_batch=micro_batch, accum=accum)
        at = Position(lr=spec.optimizer.lr, micro_batch=spec.micro_batch, accum=own_accum)
        for part in passes.model.parts:
            part.train()
        if spec.tuning.find_micro_batch:
            self._progress("Finding the micro-batch")
            at.micro_batch, at.accum = find_micro_batch(spec, self._context, passes, passes.task.training())
        if spec.tuning.find_lr:
            self._progress("Finding the learning rate")
            batches = self._batches(passes.task, at)
            try:
                at.lr = find_lr(spec, self._context, passes, batches, at.accum)
            finally:
                batches.close()
        return at

    def _batches(self, task: TrainingTask, at: Position) -> Batches:
        return make_batches(
            task.training(),
            self._mesh,
            micro_batch=at.micro_batch,
            seed=self._spec.seed,
            loading=self._spec.loading,
            grad_accum_steps=at.accum,
        )

    def _build(self, passes: Passes, at: Position) -> _Built:
        spec = self._spec
        parts = passes.model.parts
        tensors = changing_tensors(parts)
        built = _Built(
            passes=passes,
            batches=self._batches(passes.task, at),
            optimizers=build_optimizer(parts, spec.optimizer),
            average=WeightAverage(tensors, spec.optimizer.ema_decay) if spec.optimizer.ema_decay else None,
            guard=make_guard(spec.stability, self._mesh.world, self._advise) if spec.stability.guard else None,
        )
        # What is random from here on (dropout) differs between ranks with different samples.
        seed_rank(spec.seed, self._mesh)
        return built

    def _advise(self, wait_fraction: float) -> str:
        """Say what to change when this share of the time is spent waiting for data."""
        cores = (os.cpu_count() or 1) // self._spec.parallel.processes
        return loading_advice(wait_fraction, self._spec.loading, cores)

    def _keeper(self, built: _Built, at: Position) -> Keeper:
        kept = Kept(
            model=built.passes.model,
            optimizers=built.optimizers,
            average=built.average,
            arithmetic=built.passes.arithmetic,
            batches=built.batches,
            guard=built.guard,
        )
        return Keeper(self._context, self._store, kept, at, self._spec)

    def _loop_parts(self, built: _Built, keeper: Keeper, profiler: ProfileRecorder, at: Position) -> LoopParts:
        spec = self._spec
        total_steps, evaluate_every = plan_steps(spec, built.batches.steps_per_epoch)
        passes = built.passes
        validation = passes.task.validation()
        validator = None
        if validation is not None:
            validator = Validator(
                passes.task, passes.model, validation, micro_batch=at.micro_batch, agreement=self._agreement
            )
        return LoopParts(
            spec=spec,
            context=self._context,
            passes=passes,
            batches=built.batches,
            updater=Updater(passes.model, built.optimizers, built.average, spec.optimizer.max_grad_norm),
            keeper=keeper,
            measures=StepMeasures(self._context, self._mesh, passes.task, spec),
            observer=profiler,
            validator=validator,
            guard=built.guard,
            total_steps=total_steps,
            evaluate_every=evaluate_every,
        )

    def _refuse_nothing_left(self, start: Path, step: int, total_steps: int) -> None:
        """Refuse another run's checkpoint that is as far as this run is to go."""
        if step >= total_steps and files.load_training(start)["run"] != self._context.run_id:
            raise UserError(
                f"The checkpoint {start} is of step {step:,}, and this run ends at step {total_steps:,}.",
                "Give more steps or epochs: those that the checkpoint has seen count.",
            )

    def _say_start(self, model: ParallelModel, at: Position, resumed_from: Path | None) -> None:
        weights = sum(local(p).numel() * model.share(p) for part in model.parts for p in part.parameters())
        weights = sum(row[0] for row in self._agreement.gather([weights]))
        if not self._mesh.is_main:
            return
        self._context.started_from(None if resumed_from is None else at.step)
        if resumed_from is not None:
            self._context.log(f"Goes on from the checkpoint of step {at.step}.")
        ranks = "1 process" if self._mesh.world == 1 else f"{self._mesh.world} processes"
        self._context.log(f"{round(weights):,} parameters on {ranks} ({self._mesh.device.type}).")

    # -- the end -----------------------------------------------------------------------------------------------------

    def _finish(self, built: _Built, keeper: Keeper, at: Position) -> None:
        """Hand the best weights, or the last where none are kept, to the task."""
        self._progress("Writing the model")
        step, values = at.step, at.last_values
        if self._spec.checkpoints.keep_best and at.best_step not in (0, at.step):
            folder = self._store.of_step(at.best_step)
            if folder is None:
                self._log(
                    f"The checkpoint of the best step {at.best_step} is gone or damaged; the last weights are kept.",
                    "warning",
                )
            else:
                keeper.load_best(folder)
                step, values = at.best_step, at.best_values
        with keeper.averaged_weights():
            weights = full_weights(built.passes.model, self._agreement)
        if self._mesh.is_main:
            outcome = Outcome(steps=at.step, best_step=step, best_values=values, train_seconds=at.elapsed_s)
            built.passes.task.finish(weights, outcome)
            report_near_zero(self._context, weights, self._spec.distillation.l1)


def set_seed(seed: int) -> None:
    """Seed every generator alike on every rank: what is drawn for the model's weights must be the same."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def plan_steps(spec: TrainingSpec, steps_per_epoch: float) -> tuple[int, int]:
    """Return the optimizer steps of a training and those between two validations.

    Steps go on from one epoch into the next, so only the last one of all epochs is rounded up.

    Raises:
        UserError: Epochs are asked for of a stream, whose length is not known.
    """
    if not spec.steps and not steps_per_epoch:
        raise UserError("The length of a stream is not known, so epochs cannot be counted.", "Give the steps instead.")
    total = spec.steps or max(1, math.ceil(spec.epochs * steps_per_epoch - 1e-9))
    every = spec.evaluate_every or (max(1, total // 10) if spec.steps else math.ceil(steps_per_epoch - 1e-9))
    return total, every
