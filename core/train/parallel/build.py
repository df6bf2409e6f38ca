"""Lays a task's model out over the ranks: cut, tensor parallel, recomputation and compilation, then data parallel.

The order is the one that composes: a stage of the pipeline is taken first, its matrices are cut, its blocks get their
arithmetic, and last its weights are sharded or its gradients summed over data ranks. Importing this module imports torch.
"""

from __future__ import annotations

import warnings

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from core.contracts.errors import UserError
from core.train.engine.contracts import Arithmetic, Mesh, ParallelModel
from core.train.parallel.base import ForwardAndLoss, Passes
from core.train.parallel.blocks import block_of, find_blocks
from core.train.parallel.mesh import group_of
from core.train.parallel.norms import Norms
from core.train.parallel.sharding import AlikeBuffers, GradientSum, ShardedAccumulation, shard
from core.train.parallel.whole import WholeModel
from core.train.specs.training import TrainingSpec


def parallelize(
    model: nn.Module, task: ForwardAndLoss, mesh: Mesh, spec: TrainingSpec, arithmetic: Arithmetic
) -> ParallelModel:
    """Lay a model out as the spec says; every rank calls it with the same model on the CPU, which is used up.

    Raises:
        UserError: The layout needs a model whose layers are known (the Llama family).
    """
    passes = Passes(task=task, arithmetic=arithmetic, mesh=mesh)
    if not mesh.is_distributed:
        return _alone(model, passes)
    if spec.parallel.model_ranks == 1:
        return _over_data(model, passes, spec)
    from core.train.parallel.decoder import DecoderLM
    from core.train.parallel.split import over_model

    if not isinstance(model, DecoderLM):
        raise UserError(
            "Tensor, pipeline and context parallel know the layers of the Llama family only.",
            "Set these degrees to 1; data ranks, sharded or not, work with every model.",
        )
    return over_model(model, passes, spec)


def block_names(model: nn.Module) -> dict[str, str]:
    """Return the block of every parameter of a whole model; tied ones by both of their names."""
    blocks = find_blocks(model)
    return {name: block_of(name, blocks) for name, _ in model.named_parameters(remove_duplicate=False)}


def _alone(model: nn.Module, passes: Passes) -> WholeModel:
    passes.arithmetic.prepare(list(find_blocks(model).values()))
    model.to(passes.mesh.device)
    norms = Norms(passes.mesh, [model], block_names(model), ())
    return WholeModel(passes, model, norms, accumulation=None, context=None)


def _over_data(model: nn.Module, passes: Passes, spec: TrainingSpec) -> WholeModel:
    names, blocks = block_names(model), list(find_blocks(model).values())
    passes.arithmetic.prepare(blocks)
    mesh, sharding = passes.mesh, spec.parallel.sharding
    if shard(model, blocks, mesh, sharding, passes.arithmetic):
        accumulation = ShardedAccumulation(model, sharding)
        whole = WholeModel(passes, model, Norms(mesh, [model], names, ()), accumulation=accumulation, context=None)
    else:
        model.to(mesh.device)
        whole = WholeModel(passes, model, Norms(mesh, [model], names, ()), accumulation=None, context=None)
        sum_gradients(whole, mesh)
    group = group_of(mesh, "replicate", "shard")
    assert group is not None, "all of several ranks are data ranks here"
    whole.share_buffers(AlikeBuffers(model, group))
    return whole


def sum_gradients(whole: WholeModel, mesh: Mesh) -> None:
    """Have gradients summed over the ranks that hold all weights alike: by DDP, or once a step beside tensor parallel."""
    group = group_of(mesh, "replicate", "shard", "context")
    if group is None:
        return
    if mesh.tensor_size > 1:
        whole.reduce_with(summed=GradientSum(whole.parameters, group))
        return
    # A network of the user's own may have weights that its passes leave out; DDP would wait for their gradients for ever.
    may_leave_out = not getattr(whole.parts[0], "uses_all_weights", False)
    warnings.filterwarnings("ignore", ".*find_unused_parameters=True was specified.*", UserWarning)
    # Its successor is not known to the PyTorch before 2.14 that a host's own environment may have.
    warnings.filterwarnings("ignore", ".*broadcast_buffers.* is deprecated", FutureWarning)
    wrapped = DistributedDataParallel(
        whole.parts[0],
        process_group=group,
        gradient_as_bucket_view=True,
        find_unused_parameters=may_leave_out,
        broadcast_buffers=False,  # see ``AlikeBuffers``
    )
    whole.reduce_with(wrapped=wrapped)
