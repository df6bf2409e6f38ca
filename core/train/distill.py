"""Knowledge distillation: a task whose loss mixes its own with the distance to a teacher's answers.

Hinton, Vinyals, Dean (2015): loss = (1 - w) * task + w * T^2 * KL(softmax(teacher / T) || softmax(student / T)), summed
over the counted units. The teacher never learns. It is run by the student's own task, so it takes the same inputs and
must tell the same classes apart. Teachers are found by ``core.train.teachers``, kept answers are in
``core.train.teacher_cache``. Importing this module imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from core.contracts.errors import UserError
from core.contracts.worker import RunContext
from core.train.engine.contracts import (
    Batch,
    Collate,
    DataPart,
    Evaluation,
    Mesh,
    Outcome,
    SampleKey,
    Samples,
    TrainingTask,
)
from core.train.specs.distillation import DistillationSpec
from core.train.specs.training import TrainingSpec
from core.train.teacher_cache import NUMBERS, TeacherCache
from core.train.teachers import load_teacher

NOT_COUNTED = -100
_ROWS_AT_ONCE = 4096
_PROBED_SAMPLES = 8


def distillation_loss(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return T^2 * KL(teacher || student) at a temperature, summed over rows, float32, in nats.

    Rows are taken some thousand at a time, so that large vocabularies need no second copy of all logits in float32.

    Args:
        student: Logits, shape (rows, classes).
        teacher: Logits of the same shape; no gradient flows into them.
        temperature: Softens both.
    """
    total = student.new_zeros((), dtype=torch.float32)
    for own, target in zip(student.split(_ROWS_AT_ONCE), teacher.split(_ROWS_AT_ONCE), strict=True):
        total = total + functional.kl_div(
            functional.log_softmax(own.float() / temperature, dim=-1),
            functional.log_softmax(target.float() / temperature, dim=-1),
            reduction="sum",
            log_target=True,
        )
    return total * temperature**2


@dataclass(frozen=True, slots=True)
class _NumberedSamples:
    """Samples with their numbers, for finding kept answers again. Picklable."""

    samples: Samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: SampleKey) -> tuple[int, Any]:
        return key.number, self.samples[key]


@dataclass(frozen=True, slots=True)
class _NumberedCollate:
    """Collates the samples and adds their numbers. Picklable."""

    collate: Collate

    def __call__(self, samples: Sequence[Any]) -> Batch:
        numbers = torch.tensor([number for number, _ in samples], dtype=torch.int64)
        return {**self.collate([sample for _, sample in samples]), NUMBERS: numbers}


def _refuse_changing(part: DataPart) -> None:
    """Raise where samples differ from epoch to epoch, since an answer kept for one would be wrong for the next."""
    for number in range(min(_PROBED_SAMPLES, len(part.samples))):
        first, second = (part.collate([part.samples[SampleKey(number, epoch)]]) for epoch in (0, 1))
        if any(not torch.equal(first[name], second[name]) for name in first):
            raise UserError(
                "The teacher's answers cannot be kept: the training samples change from epoch to epoch.",
                "Turn the augmentation off, or distillation.cache_logits.",
            )


class DistillingTask:
    """A task that also learns from a teacher; everything but data and loss is the wrapped task's."""

    def __init__(
        self, task: TrainingTask, teacher: nn.Module, spec: DistillationSpec, cache: TeacherCache | None = None
    ) -> None:
        self.task = task
        self.unit = task.unit
        self._teacher = teacher.requires_grad_(False).eval()
        self._spec = spec
        self._cache = cache
        self._distance = torch.zeros(())
        self._units = 0

    def build_model(self) -> nn.Module:
        """Return the student."""
        return self.task.build_model()

    def training(self) -> DataPart:
        """Return the training part, with sample numbers where answers are kept."""
        part = self.task.training()
        if self._cache is None:
            return part
        return DataPart(samples=_NumberedSamples(part.samples), collate=_NumberedCollate(part.collate))

    def validation(self) -> DataPart | None:
        """Return the validation part; the teacher has no say in it."""
        return self.task.validation()

    def count(self, batch: Batch) -> int:
        """Return the counted units."""
        return self.task.count(batch)

    def forward(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return the student's logits."""
        return self.task.forward(model, batch)

    def _answers(self, batch: Batch) -> torch.Tensor:
        with torch.no_grad():
            return self.task.forward(self._teacher, batch)

    def _teacher_logits(self, batch: Batch) -> torch.Tensor:
        if self._cache is None:
            return self._answers(batch)
        return self._cache.get(batch, self._answers)

    def loss(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the mixed loss, summed over the counted units.

        Raises:
            UserError: The teacher has another number of classes.
        """
        teacher = self._teacher_logits(batch)
        if teacher.shape != output.shape:
            raise UserError(
                f"The teacher tells {teacher.shape[-1]} classes apart, this model {output.shape[-1]}.",
                "Choose a teacher with the same classes or vocabulary.",
            )
        counted = batch["labels"] != NOT_COUNTED
        distance = distillation_loss(output[counted], teacher[counted], self._spec.temperature)
        # Kept where it is computed: reading it here would make a GPU wait at every micro-batch.
        self._distance = self._distance.to(distance.device) + distance.detach()
        self._units += self.task.count(batch)
        weight = self._spec.weight
        return (1.0 - weight) * self.task.loss(output, batch) + weight * distance

    def step_values(self) -> dict[str, float]:
        """Return the mean distance to the teacher since the last call, in nats, over this rank's units."""
        units, self._units = self._units, 0
        if not units:
            return {}
        mean = float(self._distance) / units
        self._distance = torch.zeros_like(self._distance)
        return {"train/distillation_loss": mean}

    def score(self, output: torch.Tensor, batch: Batch) -> dict[str, float]:
        """Return the sums of the wrapped task."""
        return self.task.score(output, batch)

    def evaluation(self, sums: Mapping[str, float]) -> Evaluation:
        """Return the wrapped task's values."""
        return self.task.evaluation(sums)

    def training_flops(self, units: int) -> float:
        """Return the student's; the teacher's passes are not the model's."""
        return self.task.training_flops(units)

    def after_validation(self, model: nn.Module, step: int) -> None:
        """Show what the wrapped task shows."""
        self.task.after_validation(model, step)

    def finish(self, weights: Mapping[str, torch.Tensor], outcome: Outcome) -> None:
        """Leave behind what the wrapped task leaves."""
        self.task.finish(weights, outcome)


def distilling(task: TrainingTask, spec: TrainingSpec, mesh: Mesh, context: RunContext) -> TrainingTask:
    """Return the task with the teacher of the spec, or itself when there is none.

    Args:
        task: What the student learns; its ``forward`` runs the teacher too, its batches have ``labels``.
        spec: Names the teacher.
        mesh: Whose device the teacher is put on.
        context: The run; answers are kept in its scratch folder.

    Raises:
        UserError: There is no such teacher, it does not fit the task, or its answers cannot be kept.
        EnvironmentProblem: There is no room for the answers.
    """
    wanted = spec.distillation
    if not wanted.teacher:
        return task
    teacher = load_teacher(wanted.teacher, task, context).to(mesh.device)
    if mesh.is_main:
        weights = sum(weight.numel() for weight in teacher.parameters())
        context.log(f"Learns from {wanted.teacher} ({weights:,} weights) by {wanted.weight:.0%}.")
    if not wanted.cache_logits:
        return DistillingTask(task, teacher, wanted)
    part = task.training()
    _refuse_changing(part)
    cache = TeacherCache(context.scratch_dir / "teacher", len(part.samples))
    return DistillingTask(task, teacher, wanted, cache)
