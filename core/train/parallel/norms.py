"""Gradient norms over all ranks, each weight counted once however often it is held.

Every rank squares what it holds, weighs it with one over the number of ranks that hold the same elements, and one sum over
all ranks gives the squared norm: of the whole and of each block. Importing this module imports torch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import torch
from torch import distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor

from core.train.engine.contracts import GradientNorms, Mesh


def local(tensor: torch.Tensor) -> torch.Tensor:
    """Return the elements that this rank holds."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def local_gradients(parameters: Iterable[nn.Parameter]) -> list[torch.Tensor]:
    """Return what this rank holds of the gradients that are there."""
    return [local(parameter.grad) for parameter in parameters if parameter.grad is not None]


class Norms:
    """Knows how often each parameter of this rank is held in the run, and to which block it belongs."""

    def __init__(
        self, mesh: Mesh, parts: Sequence[nn.Module], block_names: Mapping[str, str], held_twice: Collection[str]
    ) -> None:
        """Take stock of this rank's parameters.

        Args:
            mesh: Where this rank stands.
            parts: Its modules, laid out.
            block_names: Block of every parameter of the whole model.
            held_twice: Names of parameters that two pipeline ranks hold (tied embeddings).
        """
        self._mesh = mesh
        self._blocks = list(dict.fromkeys(block_names.values()))
        numbers = {block: number for number, block in enumerate(self._blocks)}
        self._block_of: dict[nn.Parameter, int] = {}
        self._shares: dict[nn.Parameter, float] = {}
        for part in parts:
            for name, parameter in part.named_parameters():
                self._block_of.setdefault(parameter, numbers[block_names[name]])
                self._shares.setdefault(parameter, self._share(parameter) / (2 if name in held_twice else 1))

    def _share(self, parameter: nn.Parameter) -> float:
        different = self._mesh.pipeline_size
        if isinstance(parameter, DTensor):
            for size, placement in zip(parameter.device_mesh.shape, parameter.placements, strict=True):
                different *= 1 if placement.is_replicate() else size
        return different / self._mesh.world

    def share(self, parameter: nn.Parameter) -> float:
        """See ``ParallelModel.share``."""
        return self._shares[parameter]

    @torch.no_grad()
    def measure(self, *, by_block: bool) -> GradientNorms:
        """See ``ParallelModel.gradient_norms``; a gradient that is not finite makes its norm so."""
        held = [parameter for parameter in self._shares if parameter.grad is not None]
        squares = torch.zeros(len(self._blocks), dtype=torch.float32, device=self._mesh.device)
        if held:
            norms = torch.stack([n.float() for n in torch._foreach_norm(local_gradients(held))])  # noqa: SLF001  # pyright: ignore[reportPrivateImportUsage, reportPrivateUsage] one launch
            shares = torch.tensor([self._shares[parameter] for parameter in held], device=squares.device)
            numbers = torch.tensor([self._block_of[parameter] for parameter in held], device=squares.device)
            squares.index_add_(0, numbers, norms.to(squares.device).square() * shares)
        if self._mesh.is_distributed:
            dist.all_reduce(squares)
        found: list[float] = torch.cat((squares.sum()[None], squares)).sqrt().tolist()
        return GradientNorms(total=found[0], blocks=dict(zip(self._blocks, found[1:], strict=True)) if by_block else {})
