"""Next-byte prediction as a learning task: random windows of the text, cross entropy, bits per byte on held-out files."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from core.contracts.worker import RunContext
from core.train.language_model import VOCABULARY
from core.train.loop import Evaluation

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from core.train.text_data import TextParts

_EVALUATION_BATCH = 16


def _windows(text: NDArray[np.uint8], starts: NDArray[np.int64], length: int) -> torch.Tensor:
    """Return the windows of ``length + 1`` bytes at ``starts``, int64, shape (n, length + 1)."""
    return torch.from_numpy(text[starts[:, None] + np.arange(length + 1)].astype(np.int64))


def _next_byte_loss(model: nn.Module, windows: torch.Tensor) -> torch.Tensor:
    device = next(model.parameters()).device
    windows = windows.to(device, non_blocking=True)
    logits = model(windows[:, :-1]).float()
    return functional.cross_entropy(logits.reshape(-1, VOCABULARY), windows[:, 1:].reshape(-1))


class LanguageLearning:
    """The learning task of ``train.language``; see ``core.train.loop.LearningTask``."""

    unit = "tokens"

    def __init__(
        self, context: RunContext, text: TextParts, *, length: int, micro_batch: int, accum: int, seed: int
    ) -> None:
        self._context = context
        self._text = text
        self._length = length
        self._micro_batch = micro_batch
        self._accum = accum
        self._seed = seed
        windows = max(1, min(64, (len(text.validation) - 1) // length))
        last = len(text.validation) - length - 1
        self._validation = _windows(text.validation, np.linspace(0, last, windows).astype(np.int64), length)

    def from_step(self, step: int) -> Iterator[list[torch.Tensor]]:
        """Yield the micro-batches of each step: windows at places drawn from (seed, step)."""
        last = len(self._text.train) - self._length - 1
        while True:
            starts = np.random.default_rng((self._seed, step)).integers(0, last + 1, (self._accum, self._micro_batch))
            yield [_windows(self._text.train, row, self._length) for row in starts]
            step += 1

    def loss(self, model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        """Return the mean cross entropy of the next byte, in nats."""
        return _next_byte_loss(model, batch)

    def amount(self, batch: torch.Tensor) -> int:
        """Return the number of predicted bytes."""
        return batch.shape[0] * (batch.shape[1] - 1)

    def evaluate(self, model: nn.Module) -> Evaluation | None:
        """Return mean loss, bits per byte and perplexity over evenly spaced windows of the held-out text."""
        total = 0.0
        for batch in self._validation.split(_EVALUATION_BATCH):
            if self._context.should_stop():
                return None
            total += float(_next_byte_loss(model, batch)) * len(batch)
        loss = total / len(self._validation)
        values = {"val/loss": loss, "val/bits_per_byte": loss / math.log(2), "val/perplexity": math.exp(loss)}
        return Evaluation(values=values, score=(-loss,))
