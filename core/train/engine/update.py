"""One update of the weights: clipping, the optimizer's step, the average, and how far the weights moved."""

from __future__ import annotations

import math

import torch

from core.train.engine import many
from core.train.engine.average import WeightAverage
from core.train.engine.contracts import ParallelModel
from core.train.engine.naming import local
from core.train.engine.optim import Optimizers

_RATIO_EVERY = 16
"""Steps between two measurements of the update ratio: each needs a copy of the weights."""


class Updater:
    """Updates the weights of this rank from their gradients. Thread: the main one, on every rank, in step.

    Args:
        model: The model.
        optimizers: Its optimizers.
        average: The average of its weights; None: none is kept.
        max_grad_norm: Norm that gradients are scaled down to; 0: they are not.

    Attributes:
        ratio: Norm of the last measured update over the norm of the weights; None before the first.
    """

    def __init__(
        self, model: ParallelModel, optimizers: Optimizers, average: WeightAverage | None, max_grad_norm: float
    ) -> None:
        self._model = model
        self._optimizers = optimizers
        self._average = average
        self._max_grad_norm = max_grad_norm
        self.ratio: float | None = None

    def update(self, step: int, lr: float, *, norm: float, clip_to: float | None) -> bool:
        """Move the weights; return whether the update ratio was measured.

        Args:
            step: Number of the step.
            lr: Learning rate.
            norm: Norm of the gradient as it is.
            clip_to: A lower limit for this step.
        """
        limit = min(self._max_grad_norm or math.inf, math.inf if clip_to is None else clip_to)
        if norm > limit:
            self._model.scale_gradients(limit / (norm + 1e-6))
        measures = step % _RATIO_EVERY == 1
        before = self._copies() if measures else []
        self._optimizers.step(lr)
        if measures:
            self.ratio = self._update_ratio(before)
        if self._average is not None:
            self._average.update()
        return measures

    def drop(self) -> None:
        """Drop the gradients."""
        self._optimizers.zero_grad()

    def _copies(self) -> list[torch.Tensor]:
        return [local(p).detach().clone() for p in self._optimizers.parameters.values()]

    @torch.no_grad()
    def _update_ratio(self, before: list[torch.Tensor]) -> float:
        """Return |new - old| / |new| over all weights of all ranks, each counted once."""
        parameters = list(self._optimizers.parameters.values())
        now = [local(p).detach() for p in parameters]
        many.subtract_(before, now)
        shares = torch.tensor([self._model.share(p) for p in parameters], device=now[0].device)
        moved = many.norms(before)
        size = many.norms(now)
        squares = torch.stack([(shares * moved**2).sum(), (shares * size**2).sum()])
        moved_square, size_square = self._model.sum_over_model(squares).tolist()
        return math.sqrt(moved_square / size_square) if size_square > 0 else 0.0
