"""Estimates what the fullest rank of a training needs of its device's memory, by component; imports no torch.

How: the stored state follows Rajbhandari et al., "ZeRO", SC 2020, section 3 (weights, gradients and optimizer state are
divided by the ranks that share them), with our own widths: weights and gradients are float32. Activations follow the
way of counting of Korthikanti et al., "Reducing Activation Recomputation in Large Transformer Models", MLSys 2023,
section 4 (what the backward pass of a layer needs, which of it tensor parallelism divides), for a Llama layer with
fused attention. Micro-batches alive in a pipeline: Narayanan et al., "Efficient Large-Scale Language Model
Training on GPU Clusters Using Megatron-LM", SC 2021, section 2.2.

What it leaves out: fragments of the allocator, communication buffers, a teacher, and activations of networks whose
layers are not those of a decoder. It is an estimate and is shown as one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from core.contracts.estimates import MemoryEstimate, MemoryPart
from core.train.models.shape import ModelShape
from core.train.specs.training import TrainingSpec

NF4_WIDTH = 0.52
"""Bytes of a weight in NF4 with double quantization: 4.127 bits (Dettmers et al., "QLoRA", 2023, section 3)."""
_FLOAT = 4
_LIBRARIES_BYTES = 450 << 20
"""What torch and its kernels take before the first weight: about 0.4 GiB on a CPU, 0.5 GiB for a CUDA context."""
_SCORE_COPIES = 3
"""Logits, their float32 softmax and their gradient are alive at once."""
_ZERO_STAGES = {"none": 0, "zero1": 1, "zero2": 2, "zero3": 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Share:
    """What one rank holds.

    Attributes:
        weights: Weights of its part of the model, before sharding.
        trained: Those of them that are trained.
        layers: Its layers.
        shards: Data ranks that share sharded state.
    """

    weights: float
    trained: float
    layers: int
    shards: int


def estimate_memory(
    spec: TrainingSpec, shape: ModelShape, *, sequence_length: int = 0, nodes: int = 1, frozen_width: float = _FLOAT
) -> MemoryEstimate | None:
    """Return the memory of the fullest rank by component; None when the number of weights is not known.

    Args:
        spec: The training.
        shape: Measures of the model.
        sequence_length: Tokens of a sample; 0 where samples are no sequences, which leaves activations out.
        nodes: Hosts.
        frozen_width: Bytes of a weight that is not trained; ``NF4_WIDTH`` where those are quantized to four bits.
    """
    if shape.parameters <= 0:
        return None
    share = _share_of(spec, shape, nodes)
    parts = _state_parts(spec, shape, share, frozen_width)
    has_layers = shape.layers > 0 and shape.hidden > 0 and sequence_length > 0
    if has_layers:
        tokens = spec.micro_batch * math.ceil(sequence_length / spec.parallel.context)
        parts.append(("Activations", _activation_bytes(spec, shape, share, tokens)))
        parts.append(("Logits and loss", _SCORE_COPIES * _FLOAT * tokens * shape.vocabulary))
    parts.append(("Libraries", _LIBRARIES_BYTES))
    left_out = "communication buffers and fragments" if has_layers else "activations, buffers and fragments"
    teacher = ", and the teacher" if spec.distillation.teacher else ""
    return MemoryEstimate(
        parts=tuple(MemoryPart(name=name, size_bytes=int(size)) for name, size in parts if size >= 1),
        basis=f"Estimated for the fullest rank from {_count_text(shape.parameters)} weights; leaves out {left_out}{teacher}.",
    )


def _share_of(spec: TrainingSpec, shape: ModelShape, nodes: int) -> _Share:
    layout = spec.parallel
    embedding = shape.vocabulary * shape.hidden
    ends = embedding * (1 if shape.tied else 2)
    inner = max(shape.parameters - ends, 0)
    layers = math.ceil(shape.layers / layout.pipeline)
    if layout.pipeline > 1 and shape.layers > 0:
        # An end of the pipeline holds one embedding; the middle none.
        held = inner * layers / shape.layers + embedding
    else:
        held = shape.parameters / layout.pipeline
    weights = held / layout.tensor
    trained = shape.trained_parameters or shape.parameters
    data_ranks = max(layout.processes * nodes // layout.model_ranks, 1)
    return _Share(
        weights=weights,
        trained=weights * min(trained / shape.parameters, 1.0),
        layers=layers,
        # Context ranks hold the same weights and share the sharded state with the data ranks.
        shards=max(data_ranks * layout.context // layout.replicas, 1),
    )


def _state_parts(spec: TrainingSpec, shape: ModelShape, share: _Share, frozen_width: float) -> list[tuple[str, float]]:
    """Return weights, gradients, optimizer state and averages: section 3 of the ZeRO paper."""
    stage = _ZERO_STAGES[spec.parallel.sharding]
    split = {part: share.shards if stage >= part else 1 for part in (1, 2, 3)}
    parts = [
        ("Weights", (_FLOAT * share.trained + frozen_width * (share.weights - share.trained)) / split[3]),
        ("Gradients", _FLOAT * share.trained / split[2]),
        ("Optimizer state", _optimizer_bytes(spec, shape, share.trained) / split[1]),
    ]
    if spec.optimizer.ema_decay > 0:
        parts.append(("Averaged weights", _FLOAT * share.trained / split[3]))
    width = _pass_width(spec)
    if stage == 3 and share.shards > 1:
        # One layer is computed on while the next is being gathered.
        gathered = 2 * share.weights / max(share.layers, 1)
        parts.append(("Gathered layers", width * gathered))
    elif width < _FLOAT:
        parts.append(("16-bit copies", width * share.weights))
    return parts


def _optimizer_bytes(spec: TrainingSpec, shape: ModelShape, trained: float) -> float:
    """Return the state of the optimizer before sharding, in bytes."""
    match spec.optimizer.algorithm:
        case "sgd":
            return _FLOAT * trained if spec.optimizer.momentum > 0 else 0.0
        case "adafactor":
            # Row and column means of each matrix (Shazeer and Stern, 2018) instead of a value for each weight.
            return 2 * _FLOAT * trained / max(shape.hidden, 64)
        case "adamw-8bit":
            return 2 * trained
        case "muon":
            ends = min(shape.vocabulary * shape.hidden * (1 if shape.tied else 2) / spec.parallel.tensor, trained)
            return _FLOAT * (trained - ends) + 2 * _FLOAT * ends
        case _:
            return 2 * _FLOAT * trained


def _activation_bytes(spec: TrainingSpec, shape: ModelShape, share: _Share, tokens: int) -> float:
    """Return what the backward passes of a rank's live micro-batches need, in bytes.

    Per token and layer, counted as Korthikanti et al. do: norms and residuals (``whole``), which only sequence parallel
    divides among the tensor ranks; queries, keys, values, attention and MLP (``split``), which tensor parallel does.
    """
    layout, hidden = spec.parallel, shape.hidden
    key_values = 2 * hidden * (shape.key_value_heads or shape.heads or 1) / max(shape.heads, 1)
    intermediate = shape.intermediate or 4 * hidden
    width = _pass_width(spec)
    # Two norms a layer, in float32; each keeps its input, the normalized value and its output.
    whole = 2 * hidden * (_FLOAT + 2 * width)
    # Queries, keys and values, attention's output and its copy as one matrix; gate, its activation, up, their product.
    split = width * (3 * hidden + key_values + 4 * intermediate)
    # Outputs of the products with queries', keys', values', output, gate, up and down matrices.
    matrix_products = width * (3 * hidden + key_values + 2 * intermediate)
    whole_ranks = layout.tensor if layout.sequence else 1
    everything = tokens * (whole / whole_ranks + split / layout.tensor)
    boundary = tokens * hidden * width / whole_ranks
    alive = _live_micro_batches(spec)
    match spec.compute.activation_checkpointing:
        case "full":
            return alive * share.layers * boundary + everything
        case "selective":
            kept = boundary + tokens * matrix_products / layout.tensor
            return alive * share.layers * kept + everything
        case _:
            return alive * share.layers * everything


def _live_micro_batches(spec: TrainingSpec) -> float:
    """Return how many micro-batches a pipeline rank keeps activations of at once; 1 without a pipeline."""
    ranks, micro_batches = spec.parallel.pipeline, spec.optimizer.grad_accum_steps
    if ranks == 1:
        return 1.0
    match spec.parallel.schedule:
        case "gpipe" | "looped-bfs":
            return float(micro_batches)
        case "interleaved" | "interleaved-zero-bubble":
            return min(micro_batches, ranks * (1 + (ranks - 1) / (ranks * spec.parallel.stages_per_rank)))
        case _:
            return float(min(micro_batches, ranks))


def _pass_width(spec: TrainingSpec) -> int:
    """Return the bytes of a value in the passes."""
    return _FLOAT if spec.precision in {"fp32", "tf32"} else 2


def _count_text(count: int) -> str:
    for size, unit in ((10**9, "billion"), (10**6, "million"), (1000, "thousand")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)
