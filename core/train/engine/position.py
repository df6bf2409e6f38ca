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
        accum: Micro-batches of a rank per step.
        accum_factor: What the guard has raised it by.
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
    accum_factor: int = 1
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

    def keep_own(self, own: Position) -> None:
        """Take the sizes and the learning rate that ``own`` was begun with: another layout or spec may have made this."""
        self.lr, self.micro_batch = own.lr, own.micro_batch
        self.accum = own.accum // own.accum_factor * self.accum_factor

    def forget_other_run(self) -> None:
        """Undo what another run's guard did, and count none of its validations: its checkpoints are not this run's."""
        self.accum //= self.accum_factor
        self.lr_factor, self.accum_factor = 1.0, 1
        self.best_step, self.best_score, self.best_values, self.evaluated_step = 0, (), {}, 0
