"""What of a training goes into a checkpoint, and how it comes back; files and ranks are ``checkpointing``'s part.

On the same layout a resumed run repeats the uninterrupted one bit for bit: random generators of every rank are part of the
checkpoint. On another layout the tensors are resharded and the generators seeded anew, which the log says.
"""

from __future__ import annotations

import random
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core.contracts.errors import UserError
from core.contracts.worker import RunContext
from core.train.engine import checkpoint_files as files
from core.train.engine.average import WeightAverage
from core.train.engine.checkpointing import CheckpointStore, Snapshot
from core.train.engine.contracts import Batches, Guard, Mesh, ParallelModel
from core.train.engine.naming import changing_tensors, optimizer_tensors, put_numbers
from core.train.engine.optim import Optimizers
from core.train.engine.position import Position
from core.train.engine.precision import Arithmetic
from core.train.specs.training import TrainingSpec

_SEED_STRIDE = 1_000_003


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Kept:
    """The parts of a training whose state is kept.

    Attributes:
        average: None: no average of the weights is kept.
        guard: None: it is off.
    """

    model: ParallelModel
    optimizers: Optimizers
    average: WeightAverage | None
    arithmetic: Arithmetic
    batches: Batches
    guard: Guard | None


class Keeper:
    """Saves and restores a training. Thread: the main one, on every rank.

    Args:
        context: The run.
        store: Its checkpoints.
        kept: What is saved.
        at: Where the training stands; restored in place.
        spec: Gives the seed and the layout.
    """

    def __init__(
        self, context: RunContext, store: CheckpointStore, kept: Kept, at: Position, spec: TrainingSpec
    ) -> None:
        self._context = context
        self._store = store
        self._kept = kept
        self._at = at
        self._spec = spec
        self._saved_step = -1
        self._gone_back_to: int | None = None
        self._mesh = kept.model.mesh

    @property
    def failed(self) -> bool:
        """True when a save beside the training failed on this rank."""
        return self._store.failed

    def wait(self) -> None:
        """Wait for the save under way; raises EnvironmentProblem when it failed."""
        self._store.wait()

    def save(self, *, wait: bool = False) -> None:
        """Save a checkpoint of this step, unless it is saved already; optionally wait until it is in its place.

        Raises:
            EnvironmentProblem: It, or the one before it, could not be saved.
        """
        if self._saved_step != self._at.step:
            own = {"random": files.random_states()}
            snapshot = Snapshot(step=self._at.step, tensors=self._tensors(), training=self._training(), own=own)
            keeps_best = self._spec.checkpoints.keep_best and self._at.best_step > 0
            self._store.save(snapshot, keep_steps=(self._at.best_step,) if keeps_best else ())
            self._saved_step = self._at.step
            self._gone_back_to = None
        if wait:
            self._store.wait()

    def _training(self) -> dict[str, Any]:
        kept = self._kept
        return {
            "position": self._at.as_values(),
            "scaler": kept.arithmetic.state_dict(),
            "guard": None if kept.guard is None else kept.guard.state_dict(),
            "batches": kept.batches.state_dict(),
            "average_updates": 0 if kept.average is None else kept.average.updates,
            "algorithm": self._spec.optimizer.algorithm,
            "run": str(self._context.run_id),
            "layout": layout_of(self._mesh, self._spec),
        }

    def _tensors(self) -> dict[str, torch.Tensor]:
        kept = self._kept
        found = {f"model.{name}": tensor for name, tensor in changing_tensors(kept.model.parts).items()}
        moments = optimizer_tensors(kept.optimizers.members, kept.optimizers.parameters)
        found |= {f"optimizer.{name}": tensor for name, tensor in moments.items()}
        if kept.average is not None:
            found |= {f"average.{name}": tensor for name, tensor in kept.average.average.items()}
        return {name: tensor.detach() for name, tensor in found.items()}

    def roll_back(self) -> bool:
        """Go back to the newest checkpoint, or one before that of the last roll-back when none was saved since.

        Returns:
            False when there is none.

        Raises:
            UserError: It is of another model or optimizer.
            EnvironmentProblem: It is damaged, or an earlier save failed.
        """
        self._store.wait()
        folder = None if self._gone_back_to is None else self._store.before(self._gone_back_to)
        folder = folder or self._store.newest()
        if folder is None:
            return False
        self.restore(folder)
        self._gone_back_to = self._at.step
        return True

    def restore(self, folder: Path) -> None:
        """Put the training where a checkpoint says.

        Raises:
            UserError: It is of another model or optimizer.
            EnvironmentProblem: It is damaged.
        """
        kept = self._kept
        state = files.load_training(folder)
        algorithm = self._spec.optimizer.algorithm
        if state["algorithm"] != algorithm:
            raise UserError(
                f"The checkpoint {folder} holds the state of {state['algorithm']}, but the run uses {algorithm}.",
                f"Choose the algorithm {state['algorithm']}.",
            )
        tensors = self._tensors()
        if not state["average_updates"]:
            # A run that begins to average goes on from the weights.
            tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("average.")}
        self._store.load(folder, tensors)
        moments = {n.removeprefix("optimizer."): t for n, t in tensors.items() if n.startswith("optimizer.")}
        put_numbers(kept.optimizers.members, kept.optimizers.parameters, moments)
        if kept.average is not None:
            kept.average.updates = state["average_updates"]
            if not kept.average.updates:
                kept.average.restart()
        kept.arithmetic.load_state_dict(state["scaler"])
        kept.batches.load_state_dict(state["batches"])
        saved = Position.from_values(state["position"])
        saved.keep_own(self._at)
        self._at.take(saved)
        if state["run"] != self._context.run_id:
            self._at.forget_other_run()
        elif kept.guard is not None and state["guard"] is not None:
            kept.guard.load_state_dict(state["guard"])
        self._restore_random(folder, state["layout"])
        self._saved_step = self._at.step

    def _restore_random(self, folder: Path, layout: str) -> None:
        own = layout_of(self._mesh, self._spec)
        path = folder / files.rank_file(self._mesh.rank)
        if layout == own and path.is_file():
            files.restore_random_states(files.load_small(path)["random"])
            return
        seed_rank(self._spec.seed + self._at.step, self._mesh)
        if self._mesh.is_main:
            self._context.log(
                f"The checkpoint was saved as {layout} and is read as {own}: what is random in the model (dropout) is "
                "drawn anew.",
                "warning",
            )

    @contextmanager
    def averaged_weights(self) -> Generator[None]:
        """Put the average of the weights into the model for a while, where one is kept."""
        average = self._kept.average
        with nullcontext() if average is None else average.swapped_in():
            yield

    def load_best(self, folder: Path) -> None:
        """Put the weights of a checkpoint into the model, averaged ones where they are kept; for the end of a run.

        Raises:
            EnvironmentProblem: It is damaged.
        """
        average = self._kept.average
        prefix = "model" if average is None else "average"
        named = changing_tensors(self._kept.model.parts) if average is None else average.average
        self._store.load(
            folder, {f"{prefix}.{name}": tensor.detach() for name, tensor in named.items()}, weights=prefix
        )


def layout_of(mesh: Mesh, spec: TrainingSpec) -> str:
    """Return the layout in words, such as ``data 2 (zero3) x tensor 2 x pipeline 1 x context 1``."""
    sharding = "" if spec.parallel.sharding == "none" else f" ({spec.parallel.sharding}, {mesh.replicas} replicas)"
    return (
        f"data {mesh.data_size}{sharding} x tensor {mesh.tensor_size} x pipeline {mesh.pipeline_size} x "
        f"context {mesh.context_size}"
    )


def seed_rank(seed: int, mesh: Mesh) -> None:
    """Seed this rank's generators: ranks with the same samples and layers draw the same, others do not."""
    place = 1 + mesh.data_rank + mesh.data_size * (mesh.pipeline_rank + mesh.pipeline_size * mesh.context_rank)
    mixed = (seed + _SEED_STRIDE * place) % 2**32
    torch.manual_seed(mixed)
    np.random.seed(mixed)
    random.seed(mixed)
