"""Lays a decoder out over tensor, context and pipeline ranks, and over data ranks on top. Importing imports torch."""

from __future__ import annotations

from core.train.engine.contracts import ParallelModel
from core.train.parallel.base import Passes
from core.train.parallel.build import block_names, sum_gradients
from core.train.parallel.context_split import ContextSplit
from core.train.parallel.decoder import DecoderLM
from core.train.parallel.mesh import group_of, submesh
from core.train.parallel.norms import Norms
from core.train.parallel.pipeline import PipelineModel, Stages, stage_numbers
from core.train.parallel.sharding import GradientSum, ShardedAccumulation, shard
from core.train.parallel.tensor import cut_matrices
from core.train.parallel.whole import WholeModel
from core.train.specs.training import TrainingSpec

_TIED = ("model.embed_tokens.weight", "lm_head.weight")


def over_model(model: DecoderLM, passes: Passes, spec: TrainingSpec) -> ParallelModel:
    """Lay a decoder out where several ranks hold one copy of it together."""
    mesh = passes.mesh
    names = block_names(model)
    context_group = group_of(mesh, "context")
    split = ContextSplit(context_group) if context_group is not None else None
    if split is not None:
        model.share_sequences(split)
    if mesh.pipeline_size > 1:
        return _pipeline(model, names, split, passes, spec)
    is_sharded = _lay_out(model, passes, spec)
    accumulation = ShardedAccumulation(model, spec.parallel.sharding) if is_sharded else None
    whole = WholeModel(passes, model, Norms(mesh, [model], names, ()), accumulation=accumulation, context=split)
    if not is_sharded:
        sum_gradients(whole, mesh)
    return whole


def _lay_out(part: DecoderLM, passes: Passes, spec: TrainingSpec) -> bool:
    """Cut, prepare and shard one part; return whether its weights are sharded."""
    mesh = passes.mesh
    if (tensor := submesh(mesh, "tensor")) is not None:
        cut_matrices(part, tensor, sequence=spec.parallel.sequence)
    blocks = [layer for _, layer in part.layers()]
    passes.arithmetic.prepare(blocks)
    if shard(part, blocks, mesh, spec.parallel.sharding, passes.arithmetic):
        return True
    part.to(mesh.device)
    return False


def _pipeline(
    model: DecoderLM, names: dict[str, str], split: ContextSplit | None, passes: Passes, spec: TrainingSpec
) -> PipelineModel:
    mesh = passes.mesh
    model.autocast = passes.arithmetic.autocast
    stages = stage_numbers(spec.parallel, mesh.pipeline_rank)
    ranges = layer_ranges(len(model.layers()), stages.total)
    parts = [
        model.stage(ranges[number], is_first=number == 0, is_last=number == stages.total - 1) for number in stages.mine
    ]
    is_sharded = [_lay_out(part, passes, spec) for part in parts]
    held_twice = _TIED if model.is_tied and not _is_v(stages) else ()
    laid = PipelineModel(passes, parts, Norms(mesh, parts, names, held_twice), stages=stages, context=split)
    group = group_of(mesh, "replicate", "shard", "context")
    if group is not None and not any(is_sharded):
        laid.sum_with(GradientSum(laid.parameters, group))
    return laid


def _is_v(stages: Stages) -> bool:
    """The first and last stage are on one rank: tied embeddings are one parameter there."""
    return stages.owner(0) == stages.owner(stages.total - 1)


def layer_ranges(layers: int, stages: int) -> list[range]:
    """Return the layers of each stage: as even as can be."""
    return [range(number * layers // stages, (number + 1) * layers // stages) for number in range(stages)]
