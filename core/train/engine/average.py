"""An exponential average of the weights (EMA), kept beside them as laid out: each rank averages what it holds.

The decay of update ``n`` is ``min(decay, (1 + n) / (10 + n))``, so that a short run is not held to its first weights.
Floating buffers (such as running means) are averaged too, others copied. Validation and export use the average by
swapping it into the model.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager

import torch

from core.train.engine import many
from core.train.engine.naming import local


class WeightAverage:
    """The average of named tensors.

    Args:
        tensors: Weights and buffers of this rank by whole-model name; held, and read at each update.
        decay: Its decay, 0 to 1.

    Attributes:
        average: The averaged tensors by the same names.
        updates: How often it was updated.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor], decay: float) -> None:
        self._tensors = dict(tensors)
        self._decay = decay
        self.average = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        self.updates = 0

    @torch.no_grad()
    def update(self) -> None:
        """Blend the present weights in."""
        weight = 1.0 - min(self._decay, (1 + self.updates) / (10 + self.updates))
        floating = [name for name, tensor in self._tensors.items() if tensor.is_floating_point()]
        # Of sharded weights the shards: beside them stand buffers, which are never sharded.
        own = [local(self.average[name]) for name in floating]
        many.lerp_(own, [local(self._tensors[name]) for name in floating], weight)
        for name in self._tensors.keys() - set(floating):
            self.average[name].copy_(self._tensors[name])
        self.updates += 1

    @torch.no_grad()
    def restart(self) -> None:
        """Begin anew from the present weights."""
        for name, tensor in self._tensors.items():
            self.average[name].copy_(tensor)
        self.updates = 0

    @contextmanager
    def swapped_in(self) -> Generator[None]:
        """Put the average into the model for a while."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, tensor in self._tensors.items():
            kept = tensor.clone()
            tensor.copy_(self.average[name])
            self.average[name].copy_(kept)
