"""The training loop of every kind that trains in our own process: steps, validation, checkpoints, stop and resume.

A task gives the batches of each step, the loss of a micro-batch and a validation; the loop does the rest. A resumed
run repeats the losses of an uninterrupted one bit for bit on the same machine and thread count. Thread: the worker's.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch

from core.contracts.errors import UserError
from core.contracts.worker import RunContext
from core.train.checkpoint import load_checkpoint, random_states, restore_random_states, save_checkpoint
from core.train.optim import build_average, build_optimizer, lr_at
from core.train.specs.checkpoints import CheckpointSpec
from core.train.specs.optimizer import OptimizerSpec

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn

Batch = TypeVar("Batch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What a validation found: values to plot, and a score whose greatest value marks the best weights."""

    values: dict[str, float]
    score: tuple[float, ...]


class LearningTask(Protocol[Batch]):
    """What the loop asks of a task.

    Attributes:
        unit: What ``amount`` counts, such as ``samples``; the rate is reported as ``train/<unit>_per_s``.
    """

    unit: str

    def from_step(self, step: int) -> Iterator[Sequence[Batch]]:
        """Yield the micro-batches of each step from ``step`` on, without end; a pure function of seed and step."""
        ...

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return the mean loss of a micro-batch."""
        ...

    def amount(self, batch: Batch) -> int:
        """Return how many samples or tokens a micro-batch holds."""
        ...

    def evaluate(self, model: nn.Module) -> Evaluation | None:
        """Validate a model in evaluation mode; None when a stop was asked for meanwhile. Draws no global randomness."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopPlan:
    """How long to train and how often to validate, in optimizer steps."""

    total_steps: int
    evaluate_every: int
    optimizer: OptimizerSpec
    checkpoints: CheckpointSpec


@dataclass(slots=True)
class _Position:
    """How far the training is; stored in a checkpoint."""

    step: int = 0
    evaluated_step: int = 0
    elapsed_s: float = 0.0
    best_step: int = 0
    best_score: tuple[float, ...] = ()
    best_values: dict[str, float] = field(default_factory=dict[str, float])
    best_weights: dict[str, torch.Tensor] = field(default_factory=dict[str, torch.Tensor])


class TrainingLoop:
    """Trains one model.

    Args:
        context: The run.
        accelerator: Device, precision and accumulation.
        model: The network on the CPU; moved to the device.
        task: Data, loss and validation.
        plan: Length and rhythm.
    """

    def __init__(
        self, context: RunContext, accelerator: Accelerator, model: nn.Module, task: LearningTask[Any], plan: LoopPlan
    ) -> None:
        self._context = context
        self._accelerator = accelerator
        self._task = task
        self._plan = plan
        self._raw = model.to(accelerator.device)
        self._average = build_average(self._raw, plan.optimizer.ema_decay)
        self._optimizer = build_optimizer(self._raw, plan.optimizer)
        self._model, self._prepared = accelerator.prepare(self._raw, self._optimizer)
        self._at = _Position()
        self._saved_step = -1

    @property
    def train_seconds(self) -> float:
        """Seconds spent in steps and validations, over all attempts."""
        return self._at.elapsed_s

    @property
    def best_step(self) -> int:
        """Step of the weights that ``load_best`` gives."""
        return self._at.best_step

    @property
    def best_values(self) -> dict[str, float]:
        """What the validation of those weights found."""
        return self._at.best_values

    def load_best(self) -> nn.Module:
        """Return the model with the weights that validated best, in evaluation mode."""
        self._raw.load_state_dict(self._at.best_weights)
        return self._raw.eval()

    def run(self) -> bool:
        """Train to the end; False when stopped before (a checkpoint was saved).

        Raises:
            UserError: The loss became infinite or not a number.
            EnvironmentProblem: A checkpoint could not be saved.
        """
        self._resume()
        steps = self._task.from_step(self._at.step)
        while True:
            self._evaluate_if_due()
            if self._at.step == self._plan.total_steps and self._at.evaluated_step == self._at.step:
                self._save()
                return True
            if self._context.should_stop():
                self._save()
                return False
            self._save_if_due()
            self._timed_step(steps)

    def _resume(self) -> None:
        found = self._context.latest_checkpoint()
        if found is None:
            self._context.started_from(None)
            return
        self._restore(load_checkpoint(Path(found.path)))
        self._saved_step = self._at.step
        self._context.started_from(self._at.step)
        self._context.log(f"Goes on from the checkpoint of step {self._at.step}.")

    def _timed_step(self, steps: Iterator[Sequence[Any]]) -> None:
        """Do one optimizer step and report it."""
        started = time.perf_counter()
        lr = lr_at(self._at.step, self._plan.total_steps, self._plan.optimizer)
        for group in self._prepared.param_groups:
            group["lr"] = lr
        loss, grad_norm, amount = self._optimize(next(steps))
        seconds = time.perf_counter() - started
        self._at.step += 1
        self._at.elapsed_s += seconds
        values = {
            "train/loss": loss,
            "train/lr": lr,
            "train/grad_norm": grad_norm,
            "train/step_time_s": seconds,
            f"train/{self._task.unit}_per_s": amount / seconds,
        }
        self._context.metric(self._at.step, values)
        total = self._plan.total_steps
        self._context.progress(self._at.step / total, "Training", step=self._at.step, total_steps=total)
        if not math.isfinite(loss):
            raise UserError(
                f"The training loss became {loss} at step {self._at.step}.",
                "Lower the learning rate, lengthen the warm-up, or clip the gradient.",
            )

    def _optimize(self, micro_batches: Sequence[Any]) -> tuple[float, float, int]:
        """Return mean loss, gradient norm before clipping, and the amount of data of the step."""
        self._model.train()
        losses: list[torch.Tensor] = []
        norm = torch.zeros(())
        for batch in micro_batches:
            with self._accelerator.accumulate(self._model):
                loss = self._task.loss(self._model, batch)
                self._accelerator.backward(loss)
                if self._accelerator.sync_gradients:
                    limit = self._plan.optimizer.max_grad_norm or math.inf
                    clipped = self._accelerator.clip_grad_norm_(self._raw.parameters(), limit)
                    norm = norm if clipped is None else clipped
                self._prepared.step()
                self._prepared.zero_grad()
                losses.append(loss.detach())
        if self._average is not None:
            self._average.update_parameters(self._raw)
        return float(torch.stack(losses).mean()), float(norm), sum(self._task.amount(batch) for batch in micro_batches)

    def _evaluate_if_due(self) -> None:
        at = self._at
        due = at.step % self._plan.evaluate_every == 0 or at.step == self._plan.total_steps
        if at.step == 0 or not due or at.evaluated_step == at.step:
            return
        started = time.perf_counter()
        model = self._raw if self._average is None else self._average.module
        model.eval()
        with torch.inference_mode():
            found = self._task.evaluate(model)
        at.elapsed_s += time.perf_counter() - started
        if found is None:
            return
        self._context.metric(at.step, found.values)
        at.evaluated_step = at.step
        if found.score > at.best_score:
            at.best_score, at.best_step, at.best_values = found.score, at.step, found.values
            at.best_weights = {name: value.detach().clone() for name, value in model.state_dict().items()}

    def _save_if_due(self) -> None:
        every = self._plan.checkpoints.every_steps or self._plan.evaluate_every
        if self._at.step > 0 and self._at.step % every == 0:
            self._save()

    def _save(self) -> None:
        if self._saved_step == self._at.step:
            return
        at = self._at
        scaler = self._accelerator.scaler
        state = {
            "model": self._raw.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "average": None if self._average is None else self._average.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "random": random_states(),
            "position": {name: getattr(at, name) for name in at.__slots__},
        }
        save_checkpoint(self._context, at.step, state, self._plan.checkpoints.keep_last)
        self._saved_step = at.step

    def _restore(self, state: dict[str, Any]) -> None:
        self._raw.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        if self._accelerator.scaler is not None and state["scaler"] is not None:
            self._accelerator.scaler.load_state_dict(state["scaler"])
        self._at = _Position(**state["position"])
        restore_random_states(state["random"])
