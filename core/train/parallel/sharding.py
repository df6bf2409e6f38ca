"""Data parallel layouts: FSDP2 with its ZeRO stages and replicas, DDP, and a plain sum of gradients for the rest.

Stages (Rajbhandari et al., 2020) on ``fully_shard``: weights, gradients and optimizer state are always kept sharded
*between* steps; what differs is the time within a step. zero3 gathers weights before each pass of a block and drops them
after it; zero2 keeps them gathered within the step and scatters gradients after each micro-batch; zero1 keeps gradients
whole too and scatters them once a step. Gradients are sums, not means, over the ranks: losses come divided by the
global count already. Importing this module imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import distributed as dist
from torch import nn
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors  # pyright: ignore[reportPrivateUsage] as DDP does
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from core.train.engine.contracts import Arithmetic, Mesh
from core.train.parallel.mesh import submesh
from core.train.parallel.norms import local
from core.train.specs.parallel import Sharding

_BUCKET_BYTES = 25 * 2**20


def shard(part: nn.Module, blocks: Sequence[nn.Module], mesh: Mesh, sharding: Sharding, arithmetic: Arithmetic) -> bool:
    """Shard the weights of a part, block by block, over the data (and context) ranks; return whether there were any.

    With replicas the shards are copied over them (HSDP). Ranks that share sequences take part in the sharding, since
    their gradients are summed all the same.
    """
    if sharding == "none" or mesh.device_mesh is None:
        return False
    sharded, replicated = submesh(mesh, "shard", "context"), submesh(mesh, "replicate")
    if sharded is None:
        return False
    names = tuple(n for m in (replicated, sharded) if m is not None for n in m.mesh_dim_names or ())
    param_dtype, reduce_dtype = arithmetic.reduce_dtype()
    if any(getattr(module, "running_mean", None) is not None for module in part.modules()):
        param_dtype = None  # Batch norms refuse weights that are narrower than their running statistics.
    policy = MixedPrecisionPolicy(param_dtype=param_dtype, reduce_dtype=reduce_dtype)
    for module in (*blocks, part):
        fully_shard(module, mesh=mesh.device_mesh[names], reshard_after_forward=sharding == "zero3", mp_policy=policy)
    for module in sharded_modules(part):
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)
    return True


def sharded_modules(part: nn.Module) -> list[FSDPModule]:
    """Return the modules of a part that ``fully_shard`` has made its own."""
    return [module for module in part.modules() if isinstance(module, FSDPModule)]


def reshard(part: nn.Module) -> None:
    """Drop gathered weights: after a pass without gradients they would hide later changes of the shards."""
    for module in sharded_modules(part):
        module.reshard()


class ShardedAccumulation:
    """Tells a sharded model, before each micro-batch of a step, what it may keep whole until the last one."""

    def __init__(self, part: nn.Module, sharding: Sharding) -> None:
        """Take a part that ``shard`` has sharded."""
        self._root = part
        self._sharding = sharding

    def begin(self, *, is_last: bool) -> None:
        """Set the next backward pass up."""
        root = self._root
        assert isinstance(root, FSDPModule)
        root.set_is_last_backward(is_last)
        if self._sharding == "zero1":
            root.set_requires_gradient_sync(is_last)
        if self._sharding in ("zero1", "zero2"):
            # Weights change after the last micro-batch, so what was gathered must be dropped then.
            root.set_reshard_after_backward(is_last)


class GradientSum:
    """Sums gradients over a group in buckets, once a step: for layouts that DDP cannot wrap (tensor, pipeline).

    Every rank of the group holds the same parameters; a gradient that a rank lacks counts as zero.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], group: dist.ProcessGroup) -> None:
        """Put the parameters that are trained into buckets of one type each."""
        self._group = group
        self._buckets: list[list[nn.Parameter]] = []
        held: dict[torch.dtype, tuple[list[nn.Parameter], int]] = {}
        for parameter in parameters:
            if not parameter.requires_grad:
                continue
            bucket, size = held.get(parameter.dtype, ([], _BUCKET_BYTES))
            if size >= _BUCKET_BYTES:
                bucket, size = [], 0
                self._buckets.append(bucket)
            bucket.append(parameter)
            held[parameter.dtype] = (bucket, size + local(parameter).nbytes)

    @torch.no_grad()
    def run(self) -> None:
        """Leave the sums in ``.grad``."""
        for bucket in self._buckets:
            for parameter in bucket:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
            gradients = [local(p.grad) for p in bucket if p.grad is not None]
            flat = _flatten_dense_tensors(gradients)
            dist.all_reduce(flat, group=self._group)
            for gradient, summed in zip(gradients, _unflatten_dense_tensors(flat, gradients), strict=True):
                gradient.copy_(summed)


class AlikeBuffers:
    """Keeps buffers, such as the running statistics of batch norms, alike on all data ranks, as DDP does: rank 0's.

    Each rank changes them by its own samples; a checkpoint, a validation and the model that is exported have one of them.
    """

    def __init__(self, module: nn.Module, group: dist.ProcessGroup) -> None:
        """Take the buffers that a checkpoint holds."""
        self._group = group
        kept = module.state_dict(keep_vars=True)
        self._by_dtype: dict[torch.dtype, list[torch.Tensor]] = {}
        for name, buffer in module.named_buffers():
            if name in kept:
                self._by_dtype.setdefault(buffer.dtype, []).append(buffer)

    @torch.no_grad()
    def run(self) -> None:
        """Take over the buffers of the group's first rank; one exchange for each type."""
        for buffers in self._by_dtype.values():
            flat = _flatten_dense_tensors(buffers)
            dist.broadcast(flat, group_src=0, group=self._group)
            for buffer, first in zip(buffers, _unflatten_dense_tensors(flat, buffers), strict=True):
                buffer.copy_(first)


@torch.no_grad()
def settle(parameters: Sequence[nn.Parameter]) -> None:
    """Sum gradients that tensor ranks hold as addends (of norms that each saw a part of the activations)."""
    for parameter in parameters:
        gradient = parameter.grad
        if not isinstance(gradient, DTensor) or not isinstance(parameter, DTensor):
            continue
        if gradient.placements != parameter.placements:
            parameter.grad = gradient.redistribute(placements=parameter.placements)
