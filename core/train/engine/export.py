"""The whole weights on rank 0's CPU, out of whatever layout they are in."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from core.train.engine.agreement import Agreement
from core.train.engine.contracts import ParallelModel
from core.train.engine.naming import aliases, model_tensors


def full_weights(model: ParallelModel, agreement: Agreement) -> dict[str, torch.Tensor]:
    """Return all weights and persistent buffers by whole-model name on rank 0, copied to its CPU; elsewhere nothing.

    Tied weights appear under each of their names, as one tensor. Called on every rank. A rank needs room for its pipeline
    stage, rank 0 for the model.
    """
    mesh = model.mesh
    keeps = mesh.data_rank == mesh.tensor_rank == mesh.context_rank == 0
    own: dict[str, torch.Tensor] = {}
    for name, tensor in model_tensors(model.parts).items():
        # Gathering is collective: every rank takes part, one of each pipeline stage keeps the result.
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if keeps:
            own[name] = whole.detach().to("cpu", copy=True)
    if mesh.pipeline_size > 1:
        own = _from_stages(own, mesh.rank, agreement, keeps=keeps)
    if not mesh.is_main:
        return {}
    for alias, name in aliases(model.parts).items():
        own[alias] = own[name]
    return own


def _from_stages(
    own: dict[str, torch.Tensor], rank: int, agreement: Agreement, *, keeps: bool
) -> dict[str, torch.Tensor]:
    """Send what the pipeline stages hold to rank 0, one tensor at a time."""
    described = [(name, tuple(t.shape), t.dtype) for name, t in own.items()] if keeps else []
    found = dict(own)
    for sender, tensors in enumerate(agreement.gather_objects(described)):
        if sender == 0:
            continue
        for name, shape, dtype in tensors:
            if rank == sender:
                dist.send(own[name].contiguous(), dst=0, group=agreement.group)
            elif rank == 0:
                found[name] = torch.empty(shape, dtype=dtype)
                dist.recv(found[name], src=sender, group=agreement.group)
    return found
