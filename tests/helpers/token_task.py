"""A small causal language model over rows of made-up tokens, for tests of the engine in every layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn import functional

from core.train.engine.contracts import Batch, DataPart, Evaluation, Outcome, SampleKey
from core.train.parallel.decoder import DecoderLM
from core.train.parallel.equality import small_causal

VOCABULARY = 64
LENGTH = 16


@dataclass(frozen=True)
class TokenRows:
    """Rows of tokens, every other of which follows from the one before; the counted part of a row differs."""

    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: SampleKey) -> tuple[torch.Tensor, int]:
        generator = torch.Generator().manual_seed(key.number)
        tokens = torch.randint(0, VOCABULARY, (LENGTH + 1,), generator=generator)
        tokens[1::2] = (tokens[0:-1:2] * 7 + 3) % VOCABULARY
        return tokens, 4 + key.number % (LENGTH - 4)


def collate(rows: Sequence[tuple[torch.Tensor, int]]) -> Batch:
    """Return input ids and labels, (rows, LENGTH)."""
    tokens = torch.stack([row for row, _ in rows])
    labels = tokens[:, 1:].clone()
    for number, (_, counted) in enumerate(rows):
        labels[number, counted:] = -100
    return {"input_ids": tokens[:, :-1].contiguous(), "labels": labels}


@dataclass
class TokenTask:
    """The task; ``finished`` holds what the engine handed over."""

    tied: bool = False
    unit: str = "tokens"
    finished: dict[str, torch.Tensor] = field(default_factory=dict[str, torch.Tensor])
    outcome: Outcome | None = None

    def build_model(self) -> nn.Module:
        return DecoderLM(small_causal(tied=self.tied))

    def training(self) -> DataPart:
        return DataPart(samples=TokenRows(256), collate=collate)

    def validation(self) -> DataPart | None:
        return DataPart(samples=TokenRows(10), collate=collate)

    def count(self, batch: Batch) -> int:
        return int((batch["labels"] >= 0).sum())

    def forward(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        return model(batch["input_ids"])

    def loss(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        return functional.cross_entropy(
            output.float().flatten(0, 1), batch["labels"].flatten(), ignore_index=-100, reduction="sum"
        )

    def score(self, output: torch.Tensor, batch: Batch) -> dict[str, float]:
        return {"loss": float(self.loss(output, batch)), "count": float(self.count(batch))}

    def evaluation(self, sums: Mapping[str, float]) -> Evaluation:
        loss = sums["loss"] / sums["count"]
        return Evaluation(values={"val/loss": loss}, score=(-loss,))

    def training_flops(self, units: int) -> float:
        del units
        return 0.0

    def after_validation(self, model: nn.Module, step: int) -> None:
        del model, step

    def finish(self, weights: Mapping[str, torch.Tensor], outcome: Outcome) -> None:
        self.finished = dict(weights)
        self.outcome = outcome
