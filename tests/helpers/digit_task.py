"""A small training task for tests of the engine: rows of numbers to classes, with faults that a test can ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import torch
from torch import nn
from torch.nn import functional

from core.contracts.worker import RunContext
from core.train.engine.contracts import Batch, DataPart, Evaluation, Mesh, Outcome, SampleKey
from core.train.specs.training import TrainingSpec

FEATURES = 12
CLASSES = 4


class RowSpec(TrainingSpec, frozen=True, kw_only=True, tag="test.rows"):
    """What a training on rows is asked."""


@dataclass(frozen=True)
class Rows:
    """Rows drawn around one centre per class; row ``i`` is the same for everyone."""

    count: int
    offset: int = 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: SampleKey) -> tuple[torch.Tensor, int, int]:
        number = key.number + self.offset
        generator = torch.Generator().manual_seed(number)
        label = number % CLASSES
        centre = torch.zeros(FEATURES)
        centre[label * 3 : label * 3 + 3] = 1.5
        return centre + torch.randn(FEATURES, generator=generator), label, number


def collate(rows: Sequence[tuple[torch.Tensor, int, int]]) -> Batch:
    """Stack rows; every seventh is not counted, so that counts differ between micro-batches."""
    labels = torch.tensor([label if number % 7 else -100 for _, label, number in rows])
    return {"rows": torch.stack([row for row, _, _ in rows]), "labels": labels}


class Network(nn.Module):
    """Two blocks in a ``ModuleList``, so that layouts find them, with norms and dropout."""

    def __init__(self, dropout: float, *, running: bool = False) -> None:
        super().__init__()
        self.inner = nn.Linear(FEATURES, 16)
        self.blocks = nn.ModuleList(Block(dropout, running=running) for _ in range(2))
        self.outer = nn.Linear(16, CLASSES)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        hidden = self.inner(rows)
        for block in self.blocks:
            hidden = block(hidden)
        return self.outer(hidden)


class Block(nn.Module):
    """A residual layer."""

    def __init__(self, dropout: float, *, running: bool = False) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(16) if running else nn.LayerNorm(16)
        self.up = nn.Linear(16, 32)
        self.down = nn.Linear(32, 16)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden + self.dropout(self.down(torch.relu(self.up(self.norm(hidden)))))


@dataclass
class RowTask:
    """The task.

    Attributes:
        running: The network has batch norms, with running statistics.
        loss_scale: Called with the number of the loss (from 1); what it returns multiplies that loss. Faults go in here.
        finished: The weights and the outcome that the engine handed over.
    """

    dropout: float = 0.0
    running: bool = False
    count_rows: int = 64
    unit: str = "samples"
    loss_scale: Callable[[int], float] = lambda number: 1.0
    finished: dict[str, torch.Tensor] = field(default_factory=dict[str, torch.Tensor])
    outcome: Outcome | None = None
    losses: int = 0

    def build_model(self) -> nn.Module:
        return Network(self.dropout, running=self.running)

    def training(self) -> DataPart:
        return DataPart(samples=Rows(self.count_rows), collate=collate)

    def validation(self) -> DataPart:
        return DataPart(samples=Rows(30, offset=10_000), collate=collate)

    def count(self, batch: Batch) -> int:
        return int((batch["labels"] >= 0).sum())

    def forward(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        return model(batch["rows"])

    def loss(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        self.losses += 1
        loss = functional.cross_entropy(output.float(), batch["labels"], ignore_index=-100, reduction="sum")
        return loss * self.loss_scale(self.losses)

    def score(self, output: torch.Tensor, batch: Batch) -> dict[str, float]:
        counted = batch["labels"] >= 0
        right = (output.argmax(-1) == batch["labels"]) & counted
        loss = functional.cross_entropy(output.float(), batch["labels"], ignore_index=-100, reduction="sum")
        return {"right": float(right.sum()), "count": float(counted.sum()), "loss": float(loss.detach())}

    def evaluation(self, sums: Mapping[str, float]) -> Evaluation:
        loss = sums["loss"] / sums["count"]
        return Evaluation(values={"val/loss": loss, "val/accuracy": sums["right"] / sums["count"]}, score=(-loss,))

    def training_flops(self, units: int) -> float:
        return 6.0 * units * 1500

    def after_validation(self, model: nn.Module, step: int) -> None:
        del model, step

    def finish(self, weights: Mapping[str, torch.Tensor], outcome: Outcome) -> None:
        self.finished = dict(weights)
        self.outcome = outcome


def maker(task: RowTask) -> Callable[[Mesh, RunContext], RowTask]:
    """Return the ``make_task`` that gives this task."""
    return lambda mesh, context: task


def row_spec(**fields: Any) -> RowSpec:
    """Return a short training on the CPU; fields replace its own."""
    return msgspec.convert({"kind": "test.rows", "steps": 12, "micro_batch": 8, "device": "cpu", **fields}, RowSpec)
