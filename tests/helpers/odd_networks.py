"""Networks that a user might bring, laid out over data ranks: with a weight that no pass uses, and with buffers."""

from __future__ import annotations

import torch
from torch import nn

from core.train.engine.contracts import Batch
from core.train.parallel.build import parallelize
from core.train.parallel.equality import PlainArithmetic, SmallSpec
from core.train.parallel.mesh import build_mesh
from core.train.specs.parallel import ParallelSpec, Sharding


class Odd(nn.Module):
    """A layer, a layer that is left out, and a scale without a module."""

    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Linear(4, 2)
        self.left_out = nn.Linear(4, 2)
        self.scale = nn.Parameter(torch.ones(2))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.used(inputs) * self.scale


class Regression:
    """The sum of squares to a target."""

    def forward(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        return model(batch["inputs"])

    def loss(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        return (output - batch["targets"]).square().sum()


def norms_of_steps(shardings: list[Sharding]) -> list[list[float]]:
    """Return the gradient norms of three steps for each sharding; called in every rank."""
    found = []
    for sharding in shardings:
        spec = SmallSpec(parallel=ParallelSpec(processes=2, sharding=sharding), device="cpu")
        mesh = build_mesh(spec)
        torch.manual_seed(0)
        laid = parallelize(Odd(), Regression(), mesh, spec, PlainArithmetic())
        optimizer = torch.optim.SGD([p for part in laid.parts for p in part.parameters()], lr=0.01)
        norms = []
        for step in range(3):
            torch.manual_seed(step)
            inputs, targets = torch.randn(8, 4).chunk(4), torch.randn(8, 2).chunk(4)
            mine = range(mesh.data_rank * 4 // mesh.data_size, (mesh.data_rank + 1) * 4 // mesh.data_size)
            laid.forward_backward([{"inputs": inputs[i], "targets": targets[i]} for i in mine], total=8.0)
            norms.append(laid.gradient_norms(by_block=False).total)
            optimizer.step()
            optimizer.zero_grad()
        found.append(norms)
    return found
