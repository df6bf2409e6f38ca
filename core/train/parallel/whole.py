"""Passes of a model that every rank runs from input to output: alone, DDP, FSDP, tensor and context parallel.

Importing this module imports torch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import torch
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from core.train.engine.contracts import Batch
from core.train.parallel.base import LaidOut, Passes
from core.train.parallel.context_split import ContextSplit
from core.train.parallel.norms import Norms
from core.train.parallel.sharding import AlikeBuffers, GradientSum, ShardedAccumulation, reshard, settle


class WholeModel(LaidOut):
    """A ``ParallelModel`` whose every rank runs the whole network (its shards of it)."""

    def __init__(
        self,
        passes: Passes,
        model: nn.Module,
        norms: Norms,
        *,
        accumulation: ShardedAccumulation | None,
        context: ContextSplit | None,
    ) -> None:
        """Take the network, laid out.

        Args:
            passes: Task and arithmetic.
            model: The network.
            norms: Its norms.
            accumulation: Given where weights are sharded.
            context: Given where sequences are shared out.
        """
        super().__init__(passes, [model], norms)
        self._model = model
        self._accumulation = accumulation
        self._context = context
        self._wrapped: DistributedDataParallel | None = None
        self._sum: GradientSum | None = None
        self._buffers: AlikeBuffers | None = None

    def reduce_with(self, *, wrapped: DistributedDataParallel | None = None, summed: GradientSum | None = None) -> None:
        """Say how gradients are summed over data ranks where weights are not sharded: by DDP, or once a step."""
        self._wrapped, self._sum = wrapped, summed

    def share_buffers(self, buffers: AlikeBuffers) -> None:
        """Have buffers made alike after the passes of each step."""
        self._buffers = buffers

    def forward_backward(self, micro_batches: Sequence[Batch], *, total: float) -> torch.Tensor:
        """See ``ParallelModel``."""
        loss_sum = torch.zeros((), dtype=torch.float32, device=self.mesh.device)
        for number, batch in enumerate(micro_batches):
            is_last = number == len(micro_batches) - 1
            if self._accumulation is not None:
                self._accumulation.begin(is_last=is_last)
            unsynced = self._wrapped is not None and not is_last
            with self._wrapped.no_sync() if unsynced and self._wrapped else contextlib.nullcontext():
                loss_sum += self._pass(batch, total)
        if self.mesh.tensor_size > 1:
            settle(self.parameters)
        if self._sum is not None:
            self._sum.run()
        if self._buffers is not None:
            self._buffers.run()
        if self._context is not None:
            dist.all_reduce(loss_sum, group=self._context.group)
        return loss_sum

    def _pass(self, batch: Batch, total: float) -> torch.Tensor:
        batch = self.on_device(batch)
        if self._context is not None:
            batch = self._context.split(batch)
        module = self._model if self._wrapped is None else self._wrapped
        with self._passes.arithmetic.autocast():
            output = self._passes.task.forward(module, batch)
        loss = self._passes.task.loss(output, batch)
        # DDP averages gradients over its ranks, but losses are sums.
        averaged = 1 if self._wrapped is None else dist.get_world_size(self._wrapped.process_group)
        self._passes.arithmetic.scale_loss(loss * (averaged / total)).backward()
        return loss.detach()

    @torch.no_grad()
    def forward(self, batch: Batch) -> torch.Tensor | None:
        """See ``ParallelModel``."""
        batch = self.on_device(batch)
        if self._context is not None:
            batch = self._context.split(batch)
        with self._passes.arithmetic.autocast():
            output = self._passes.task.forward(self._model, batch)
        if self._accumulation is not None:
            reshard(self._model)
        return output if self._context is None else self._context.join(output)
