"""A user's file as a task of the training engine: their batches become ours, their means become sums.

Importing this module imports torch; ``core.train.models.custom_module`` loads the file.
"""

from __future__ import annotations

import math
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import nn
from torch.utils.data import default_collate

from core.contracts.errors import UserError
from core.contracts.worker import RunContext
from core.train.engine.contracts import Batch, DataPart, Evaluation, Mesh, Outcome, SampleKey
from core.train.engine.train import train
from core.train.models.custom_module import CustomModule, told_as_users

if TYPE_CHECKING:
    from core.train.tasks.custom import CustomTrainingSpec

_TENSOR, _ROW, _NAMED = "tensor", "row", "named"
_RETURN = "Return a tensor, a tuple or list of tensors, or a dictionary of tensors, with one row for each sample."


@dataclass(frozen=True, slots=True)
class _UserSamples:
    """A user's data set by sample key. Picklable where theirs is.

    Random changes that it makes are drawn from torch's, numpy's or Python's generator, seeded from seed, epoch and number.
    """

    dataset: Any
    path: Path
    seed: int

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: SampleKey) -> Any:
        draw = int(np.random.SeedSequence((self.seed, key.epoch, key.number)).generate_state(1, np.uint32)[0])
        python, numpys = random.getstate(), np.random.get_state()
        try:
            with torch.random.fork_rng(devices=[]), told_as_users(self.path, f"Sample {key.number}"):
                seed_all(draw)
                return self.dataset[key.number]
        finally:
            random.setstate(python)
            np.random.set_state(numpys)


def seed_all(seed: int) -> None:
    """Seed Python's, numpy's and torch's CPU generator."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)


def _form_of(collated: object) -> str:
    if isinstance(collated, torch.Tensor):
        return _TENSOR
    return _NAMED if isinstance(collated, Mapping) else _ROW


def as_batch(collated: object, path: Path) -> Batch:
    """Return what a user's collation gave as named tensors: those of a row by their place.

    Raises:
        UserError: It is something else than tensors.
    """
    form = _form_of(collated)
    if form == _TENSOR:
        named: dict[str, object] = {"0": collated}
    elif form == _NAMED:
        named = {str(name): value for name, value in cast("Mapping[Any, object]", collated).items()}
    else:
        values = cast("Sequence[object]", collated) if isinstance(collated, list | tuple) else ()
        named = {str(place): value for place, value in enumerate(values)}
    if not named or any(not isinstance(value, torch.Tensor) or value.ndim == 0 for value in named.values()):
        raise UserError(f"A batch of {path} is not made of tensors.", _RETURN)
    return cast("Batch", named)


@dataclass(frozen=True, slots=True)
class _UserCollate:
    """Collates by the user's function, or torch's default. Picklable where theirs is."""

    collate: Callable[[list[Any]], Any]
    path: Path

    def __call__(self, samples: Sequence[Any]) -> Batch:
        with told_as_users(self.path, "Making a batch"):
            collated = self.collate(list(samples))
        return as_batch(collated, self.path)


class CustomTask:
    """The task of ``train.custom``; see ``core.train.engine.contracts.TrainingTask``."""

    unit = "samples"

    def __init__(self, spec: CustomTrainingSpec, context: RunContext) -> None:
        self._spec = spec
        self._context = context
        self._user = CustomModule(Path(spec.file).expanduser(), spec.settings)
        path = self._user.path
        with torch.random.fork_rng(devices=[]):
            seed_all(spec.seed)
            parts = self._user.data()
        self._training, self._validation = (
            None if part is None else _UserSamples(part, path, spec.seed) for part in parts
        )
        has_own = self._user.has("collate")
        self._collate: Callable[[list[Any]], Any] = self._user.function("collate") if has_own else default_collate
        assert self._training is not None
        first = self._training[SampleKey(0, 0)]
        with told_as_users(path, "Making a batch"):
            self._form = _form_of(self._collate([first]))

    def _part(self, samples: _UserSamples) -> DataPart:
        return DataPart(samples=samples, collate=_UserCollate(self._collate, self._user.path))

    def _as_users(self, batch: Batch) -> Any:
        """Return a batch in the form that the user's code gave it."""
        if self._form == _TENSOR:
            return batch["0"]
        return tuple(batch[str(place)] for place in range(len(batch))) if self._form == _ROW else dict(batch)

    def build_model(self) -> nn.Module:
        """Return the user's model, its weights drawn from the spec's seed."""
        with torch.random.fork_rng(devices=[]):
            seed_all(self._spec.seed)
            return self._user.model()

    def training(self) -> DataPart:
        """Return the user's training part."""
        assert self._training is not None
        return self._part(self._training)

    def validation(self) -> DataPart | None:
        """Return the user's validation part; None without one."""
        return None if self._validation is None else self._part(self._validation)

    def count(self, batch: Batch) -> int:
        """Return what the file's ``count`` says, else the samples.

        Raises:
            UserError: It is no whole number.
        """
        if not self._user.has("count"):
            return len(next(iter(batch.values())))
        counted = self._user.call("count", self._as_users(batch))
        try:
            return int(counted)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"count() in {self._user.path} returned no whole number.", "Return an int.") from error

    def forward(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return the outputs: the file's ``forward``, else the model of the batch or of its first tensor.

        Raises:
            UserError: The user's code failed or gave no tensor.
        """
        given = self._as_users(batch)
        if self._user.has("forward"):
            found = self._user.call("forward", model, given)
        else:
            with told_as_users(self._user.path, "The model"):
                found = model(given[0] if self._form == _ROW else given)
        if not isinstance(found, torch.Tensor):
            raise UserError(
                f"The model of {self._user.path} gave a {type(found).__name__} instead of a tensor.",
                "Define forward(model, batch) that returns one tensor; several can be joined by torch.cat.",
            )
        return found

    def loss(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the sum: the file's ``loss`` itself where it counts units, else its mean times the samples.

        Raises:
            UserError: It is no single number.
        """
        found = self._user.call("loss", output, self._as_users(batch))
        if not isinstance(found, torch.Tensor) or found.numel() != 1:
            raise UserError(f"loss() in {self._user.path} returned no single number.", "Return a tensor of one value.")
        total = found.reshape(()).float()
        return total if self._user.has("count") else total * self.count(batch)

    def score(self, output: torch.Tensor, batch: Batch) -> dict[str, float]:
        """Return the sums of loss and of the file's ``evaluate``, which gives means over the batch's samples."""
        samples = len(next(iter(batch.values())))
        sums = {"samples": float(samples), "units": float(self.count(batch)), "loss": float(self.loss(output, batch))}
        if self._user.has("evaluate"):
            found = self._user.call("evaluate", output, self._as_users(batch))
            with told_as_users(self._user.path, "evaluate()"):
                sums |= {f"val/{name}": float(value) * samples for name, value in found.items()}
        return sums

    def evaluation(self, sums: Mapping[str, float]) -> Evaluation:
        """Return the means; the best has the greatest ``score(values)`` of the file, else the lowest loss."""
        values = {name: total / sums["samples"] for name, total in sums.items() if name.startswith("val/")}
        values["val/loss"] = sums["loss"] / max(sums["units"], 1.0)
        if not self._user.has("score"):
            return Evaluation(values=values, score=(-values["val/loss"],))
        told = {name.removeprefix("val/"): value for name, value in values.items()}
        best = self._user.call("score", told)
        if not isinstance(best, int | float) or math.isnan(best):
            raise UserError(
                f"score() in {self._user.path} returned no number.", "Return one that is greater when better."
            )
        return Evaluation(values=values, score=(float(best),))

    def training_flops(self, units: int) -> float:
        """Return 0: what the user's code computes is not known."""
        del units
        return 0.0

    def after_validation(self, model: nn.Module, step: int) -> None:
        """Show nothing of the model."""
        del model, step

    def finish(self, weights: Mapping[str, torch.Tensor], outcome: Outcome) -> None:
        """Write the weights and a copy of the file that they belong to."""
        from safetensors.torch import save_file

        folder = self._context.artifacts_dir
        path = folder / "model.safetensors"
        # A weight with two names shares its memory, which safetensors refuses: each name gets its own.
        save_file({name: weight.detach().clone().contiguous() for name, weight in weights.items()}, path)
        shutil.copyfile(self._user.path, folder / self._user.path.name)
        count = sum(weight.numel() for weight in weights.values())
        meta = {"parameters": count, "step": outcome.best_step, "file": self._user.path.name}
        self._context.artifact(path, kind="model.weights", meta=meta)
        self._context.artifact(folder / self._user.path.name, kind="model.code")
        values = {name.replace("val/", "best/", 1): value for name, value in outcome.best_values.items()}
        self._context.result({**values, "train_seconds": outcome.train_seconds})
        self._context.progress(1.0, "Done")
        self._context.log(f"Wrote {count:,} weights of step {outcome.best_step} after {outcome.train_seconds:.1f} s.")


def train_custom(spec: CustomTrainingSpec, context: RunContext) -> None:
    """Train as one rank; see ``core.train.engine.train``."""

    def make_task(mesh: Mesh, own: RunContext) -> CustomTask:
        del mesh
        return CustomTask(spec, own)

    train(spec, context, make_task)
