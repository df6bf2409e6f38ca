"""A pipeline whose layers take a known time: they sleep in both passes, so that two cores are enough for any number of ranks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import distributed as dist
from torch import nn

from core.train.engine.contracts import Batch, ParallelModel
from core.train.parallel.build import parallelize
from core.train.parallel.decoder import DecoderLM
from core.train.parallel.equality import (
    NextToken,
    PlainArithmetic,
    SmallSpec,
    micro_batches,
    small_causal,
    step_samples,
)
from core.train.parallel.mesh import build_mesh
from core.train.specs.parallel import ParallelSpec


class SlowBlocks(PlainArithmetic):
    """Makes blocks sleep, and measures how long this rank was busy and how many micro-batches it held at most."""

    def __init__(self, forward_s: float, backward_s: float) -> None:
        self.costs_s = (forward_s, backward_s)
        self.busy_s = 0.0
        self.live = self.peak = 0
        self.began_s = 0.0

    def prepare(self, blocks: Sequence[nn.Module]) -> None:
        for number, block in enumerate(blocks):
            block.forward = self._slowed(block.forward, counts=number == 0)

    def _slowed(self, forward: Callable[..., Any], *, counts: bool) -> Callable[..., Any]:
        def slow(hidden: torch.Tensor, **options: Any) -> torch.Tensor:
            began_s = time.monotonic()
            time.sleep(self.costs_s[0])
            self.live += counts
            self.peak = max(self.peak, self.live)
            output = _Leave.apply(forward(_Enter.apply(hidden, self, counts), **options), self)
            self.busy_s += time.monotonic() - began_s
            return output

        return slow


class _Enter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, slow: SlowBlocks, counts: bool) -> torch.Tensor:
        ctx.slow, ctx.counts = slow, counts
        return hidden.view_as(hidden)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        ctx.slow.busy_s += time.monotonic() - ctx.slow.began_s
        ctx.slow.live -= ctx.counts
        return gradient, None, None


class _Leave(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, slow: SlowBlocks) -> torch.Tensor:
        ctx.slow = slow
        return hidden.view_as(hidden)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        ctx.slow.began_s = time.monotonic()
        time.sleep(ctx.slow.costs_s[1])
        return gradient, None


def measure(
    schedules: Sequence[str], ranks: int, amount: int, forward_s: float, backward_s: float
) -> dict[str, dict[str, float]]:
    """Run steps of each schedule, one first that is not measured; called in every rank.

    Returns:
        By schedule: ``bubble`` (share of the step that ranks stood idle, mean over them; the least of two steps, since other
        work on the machine only adds to it) and ``peak`` (micro-batches alive on this rank).
    """
    found: dict[str, dict[str, float]] = {}
    for schedule in schedules:
        spec = SmallSpec(parallel=ParallelSpec(processes=ranks, pipeline=ranks, schedule=schedule), device="cpu")
        mesh = build_mesh(spec)
        slow = SlowBlocks(0.0, 0.0)
        laid = parallelize(DecoderLM(small_causal(tied=False, layers=4)), NextToken(), mesh, spec, slow)
        batches = micro_batches(step_samples(0, packed=False), mesh, amount)
        laid.forward_backward(batches, total=100.0)
        slow.costs_s = (forward_s, backward_s)
        bubble = min(_bubble(laid, batches, slow) for _ in range(2))
        found[schedule] = {"bubble": bubble, "peak": float(slow.peak)}
    return found


def _bubble(laid: ParallelModel, batches: Sequence[Batch], slow: SlowBlocks) -> float:
    slow.busy_s, slow.live, slow.peak = 0.0, 0, 0
    dist.barrier()
    began_s = time.monotonic()
    laid.forward_backward(batches, total=100.0)
    dist.barrier()
    sums = torch.tensor([slow.busy_s, time.monotonic() - began_s])
    dist.all_reduce(sums)
    return 1 - float(sums[0] / sums[1])
