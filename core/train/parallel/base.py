"""What all laid-out models have in common: norms, shares and scaling of gradients. Importing this module imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import distributed as dist
from torch import nn

from core.train.engine.contracts import Arithmetic, Batch, GradientNorms, Mesh
from core.train.parallel.norms import Norms, local_gradients


class ForwardAndLoss(Protocol):
    """What passes ask of a task; see ``TrainingTask``."""

    def forward(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return the model's output for a micro-batch."""
        ...

    def loss(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the sum of the losses of a micro-batch."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Passes:
    """What forward and backward passes need to know, whatever the layout."""

    task: ForwardAndLoss
    arithmetic: Arithmetic
    mesh: Mesh


class LaidOut:
    """Parameters over ranks: the part of ``ParallelModel`` that does not depend on how passes are run.

    Attributes:
        mesh: Where this rank stands.
        parts: Its modules, laid out.
        parameters: All parameters of them, each once. Between steps they stay the same objects.
    """

    def __init__(self, passes: Passes, parts: Sequence[nn.Module], norms: Norms) -> None:
        """Take the modules of this rank, laid out."""
        self.mesh = passes.mesh
        self.parts = parts
        self._passes = passes
        self._norms = norms
        self.parameters: list[nn.Parameter] = list(dict.fromkeys(p for part in parts for p in part.parameters()))

    def gradient_norms(self, *, by_block: bool) -> GradientNorms:
        """See ``ParallelModel``."""
        return self._norms.measure(by_block=by_block)

    @torch.no_grad()
    def scale_gradients(self, factor: float) -> None:
        """See ``ParallelModel``."""
        if gradients := local_gradients(self.parameters):
            torch._foreach_mul_(gradients, factor)  # pyright: ignore[reportPrivateImportUsage, reportPrivateUsage] one launch for all

    def share(self, parameter: nn.Parameter) -> float:
        """See ``ParallelModel``."""
        return self._norms.share(parameter)

    def sum_over_model(self, value: torch.Tensor) -> torch.Tensor:
        """See ``ParallelModel``."""
        if not self.mesh.is_distributed:
            return value
        value = value.clone()
        dist.all_reduce(value)
        return value

    def on_device(self, batch: Batch) -> Batch:
        """Return a batch on this rank's device; from pinned memory the copy does not wait."""
        return {key: tensor.to(self.mesh.device, non_blocking=True) for key, tensor in batch.items()}
