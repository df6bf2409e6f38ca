"""What of a parallel layout can be refused before anything starts: every problem at once, without importing torch.

Words as in ``core.train.engine.contracts``: ranks = data x tensor x pipeline x context.
"""

from __future__ import annotations

from collections.abc import Iterator

from core.contracts.errors import FieldProblem
from core.train.models.shape import ModelShape
from core.train.specs.compute import ComputeSpec
from core.train.specs.parallel import ParallelSpec

LOOPED = ("interleaved", "looped-bfs", "interleaved-zero-bubble")
"""Schedules that give each rank ``stages_per_rank`` stages, one every ``pipeline`` stages."""
V_SHAPED = ("zbv", "dualpipev")
"""Schedules with two stages on each rank, laid down and back up again."""
ZERO_BUBBLE = ("interleaved-zero-bubble", "zbv", "dualpipev")
"""Schedules that split the backward pass; with sharded weights torch trains them wrong, without an error."""


def data_ranks(parallel: ParallelSpec, nodes: int) -> int:
    """Return how many ranks work on different samples; 0 when the degrees ask for more ranks than there are."""
    return parallel.processes * nodes // parallel.model_ranks


def pipeline_stages(parallel: ParallelSpec) -> int:
    """Return into how many pieces the model is cut."""
    if parallel.schedule in LOOPED:
        return parallel.pipeline * parallel.stages_per_rank
    return parallel.pipeline * (2 if parallel.schedule in V_SHAPED else 1)


def check_layout(  # noqa: PLR0913 - the measures of a launch, each by its name
    parallel: ParallelSpec,
    shape: ModelShape | None,
    *,
    nodes: int,
    grad_accum_steps: int,
    micro_batch: int,
    global_batch: int,
    sequence_length: int,
    compute: ComputeSpec | None = None,
) -> tuple[FieldProblem, ...]:
    """Return everything that is wrong with a layout.

    Args:
        parallel: The layout.
        shape: Measures of the model; None or zeros where they are not known before it is built.
        nodes: Hosts of the run.
        grad_accum_steps: Micro-batches of a data rank in a step.
        micro_batch: Samples of a micro-batch.
        global_batch: Samples of a step that were asked for; 0: whatever the others give.
        sequence_length: Tokens of a row; 0 where there is none, or it is not known.
        compute: Recomputation and compilation, which the zero-bubble schedules do not all bear; None: neither.
    """
    problems = [
        *_check_ranks(parallel, nodes),
        *_check_batch(parallel, nodes, grad_accum_steps, micro_batch, global_batch),
        *_check_pipeline(parallel, grad_accum_steps),
        *_check_length(parallel, sequence_length),
        *_check_zero_bubble(parallel, compute),
    ]
    if shape is not None and parallel.model_ranks > 1:
        problems += _check_model(parallel, shape)
    return tuple(problems)


def _check_ranks(parallel: ParallelSpec, nodes: int) -> Iterator[FieldProblem]:
    ranks = parallel.processes * nodes
    degrees = f"tensor {parallel.tensor} x pipeline {parallel.pipeline} x context {parallel.context}"
    if ranks % parallel.model_ranks:
        yield FieldProblem(
            field="parallel.processes",
            message=f"{ranks} ranks are not a multiple of {degrees} = {parallel.model_ranks}.",
            hint=f"Start a multiple of {parallel.model_ranks} processes over all hosts, or lower a degree.",
        )
        return
    data = data_ranks(parallel, nodes)
    if parallel.sharding != "none" and data % parallel.replicas:
        yield FieldProblem(
            field="parallel.replicas",
            message=f"{parallel.replicas} sharded replicas do not divide the {data} data ranks ({ranks} ranks / {degrees}).",
            hint=f"Choose a divisor of {data}.",
        )


def _check_batch(
    parallel: ParallelSpec, nodes: int, grad_accum_steps: int, micro_batch: int, global_batch: int
) -> Iterator[FieldProblem]:
    data = data_ranks(parallel, nodes)
    given = micro_batch * grad_accum_steps * data
    if global_batch and data and given != global_batch:
        yield FieldProblem(
            field="global_batch",
            message=(
                f"micro-batch {micro_batch} x accumulation {grad_accum_steps} x data ranks {data} = {given}, "
                f"not {global_batch}."
            ),
            hint=f"Write {given} or 0, or change one of the three.",
        )


def _check_pipeline(parallel: ParallelSpec, micro_batches: int) -> Iterator[FieldProblem]:
    if parallel.pipeline == 1:
        return
    name, ranks = parallel.schedule, parallel.pipeline
    needed = pipeline_stages(parallel) if name == "dualpipev" else ranks
    if micro_batches < needed:
        yield FieldProblem(
            field="optimizer.grad_accum_steps",
            message=f"The schedule {name} over {ranks} ranks needs at least {needed} micro-batches a step, not {micro_batches}.",
            hint=f"Raise gradient accumulation to {needed} or more.",
        )
    elif name in ("interleaved", "interleaved-zero-bubble") and micro_batches % ranks:
        yield FieldProblem(
            field="optimizer.grad_accum_steps",
            message=f"The schedule {name} needs a multiple of its {ranks} ranks of micro-batches, not {micro_batches}.",
            hint=f"Choose {micro_batches // ranks * ranks} or {-(-micro_batches // ranks) * ranks}.",
        )


def _check_zero_bubble(parallel: ParallelSpec, compute: ComputeSpec | None) -> Iterator[FieldProblem]:
    """Refuse what does not go with a backward pass in two parts."""
    name = parallel.schedule
    if parallel.pipeline == 1 or name not in ZERO_BUBBLE:
        return
    if parallel.sharding != "none":
        yield FieldProblem(
            field="parallel.schedule",
            message=f"{name} with sharded weights trains wrong: gradients are lost without an error.",
            hint="Choose 1f1b or interleaved, or sharding none.",
        )
    if compute is not None and compute.activation_checkpointing == "selective":
        yield FieldProblem(
            field="compute.activation_checkpointing",
            message=f"{name} goes back through each layer twice, which selective checkpointing does not allow.",
            hint="Choose full or none, or the schedule 1f1b or interleaved.",
        )
    if compute is not None and compute.compile:
        yield FieldProblem(
            field="compute.compile",
            message=f"{name} cannot split the backward pass of compiled layers.",
            hint="Turn compile off, or choose the schedule 1f1b or interleaved.",
        )


def _check_length(parallel: ParallelSpec, length: int) -> Iterator[FieldProblem]:
    if length <= 0:
        return
    slices = 2 * parallel.context if parallel.context > 1 else 1
    if length % slices:
        yield FieldProblem(
            field="parallel.context",
            message=f"{parallel.context} context ranks take two slices each of a row; {length} tokens do not divide by {slices}.",
            hint=f"Choose a length that is a multiple of {slices}.",
        )
    elif parallel.sequence and parallel.tensor > 1 and length // parallel.context % parallel.tensor:
        yield FieldProblem(
            field="parallel.sequence",
            message=f"{length // parallel.context} tokens of a rank do not divide by tensor {parallel.tensor}.",
            hint="Choose another length, or turn sequence parallel off.",
        )


def _check_model(parallel: ParallelSpec, shape: ModelShape) -> list[FieldProblem]:
    if not shape.is_splittable:
        field = next(n for n in ("tensor", "pipeline", "context") if getattr(parallel, n) > 1)
        return [
            FieldProblem(
                field=f"parallel.{field}",
                message=f"Tensor, pipeline and context parallel know the Llama family only, not {shape.family}.",
                hint="Set these degrees to 1; data ranks, sharded or not, work with every model.",
            )
        ]
    return [*_check_tensor(parallel.tensor, shape), *_check_layers(parallel, shape)]


def _check_tensor(tensor: int, shape: ModelShape) -> Iterator[FieldProblem]:
    measures = {
        "attention heads": shape.heads,
        "key-value heads": shape.key_value_heads,
        "MLP columns": shape.intermediate,
        "vocabulary rows": shape.vocabulary,
    }
    wrong = [f"{size} {name}" for name, size in measures.items() if size % tensor]
    if wrong:
        yield FieldProblem(
            field="parallel.tensor",
            message=f"Tensor {tensor} does not divide the model's {', '.join(wrong)}.",
            hint="Choose a common divisor of them.",
        )
    if tensor > 1 and 0 < shape.trained_parameters < shape.parameters:
        yield FieldProblem(
            field="parallel.tensor",
            message="Tensor parallel cannot cut layers that have adapters.",
            hint="Choose tensor 1, or train without adapters.",
        )


def _check_layers(parallel: ParallelSpec, shape: ModelShape) -> Iterator[FieldProblem]:
    stages = pipeline_stages(parallel)
    if parallel.pipeline > 1 and 0 < shape.layers < stages:
        yield FieldProblem(
            field="parallel.pipeline",
            message=f"The model has {shape.layers} layers, fewer than the {stages} stages of {parallel.schedule} over {parallel.pipeline} ranks.",
            hint="Choose fewer pipeline ranks or stages per rank.",
        )
