"""How far a training is, and what has been changed on the way: plain values, the same on every rank, in each checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(slots=True, kw_only=True)
class Position:
    """Where a training stands.

    Attributes:
        step: Optimizer steps done, skipped ones included.
        lr: Highest learning rate: the spec's, or the one found.
        lr_factor: What the guard has lowered it by.
        micro_batch: Samples per forward pass: the spec's, or the number found.
        accum: Micro-batches per step; the guard may raise it.
        elapsed_s: Seconds in steps and validations.
        evaluated_step: Step of the last validation.
        best_step, best_score, best_values: The validation with the highest score.
        last_values: What the last validation found.
        skips: Steps before which samples are left out, and how many steps' worth.
    """

    step: int = 0
    lr: float
    lr_factor: float = 1.0
    micro_batch: int
    accum: int
    elapsed_s: float = 0.0
    evaluated_step: int = 0
    best_step: int = 0
    best_score: tuple[float, ...] = ()
    best_values: dict[str, float] = field(default_factory=dict[str, float])
    last_values: dict[str, float] = field(default_factory=dict[str, float])
    skips: dict[int, int] = field(default_factory=dict[int, int])

    def as_values(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Position:
        """Return the position that ``as_values`` made these of."""
        return cls(**values)

    def take(self, other: Position) -> None:
        """Become another position, in place."""
        for entry in fields(self):
            setattr(self, entry.name, getattr(other, entry.name))

    def forget_best(self) -> None:
        """Count no validation of another run: its checkpoints are not this run's."""
        self.best_step, self.best_score, self.best_values, self.evaluated_step = 0, (), {}, 0
