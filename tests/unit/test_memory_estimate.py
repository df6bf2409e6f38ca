"""The memory estimate against what a real training holds, and against the formulas it is made from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from core.contracts.estimates import MemoryEstimate, MemoryFit, MemoryPart
from core.train.memory import NF4_WIDTH, estimate_memory
from core.train.models.shape import ModelShape
from core.train.specs.training import TrainingSpec

SHAPE = ModelShape(
    family="llama",
    parameters=7_000_000_000,
    trained_parameters=7_000_000_000,
    layers=32,
    hidden=4096,
    heads=32,
    key_value_heads=8,
    intermediate=11_008,
    vocabulary=32_000,
)


def training(**changed: Any) -> TrainingSpec:
    """Return a spec; ``group__field`` changes a field of a group."""
    spec = TrainingSpec()
    for path, value in changed.items():
        group, _, name = path.rpartition("__")
        inner = msgspec.structs.replace(getattr(spec, group), **{name: value}) if group else value
        spec = msgspec.structs.replace(spec, **{group or name: inner})
    return spec


def parts(spec: TrainingSpec, shape: ModelShape = SHAPE, length: int = 2048, nodes: int = 1) -> dict[str, int]:
    """Return bytes by component."""
    found = estimate_memory(spec, shape, sequence_length=length, nodes=nodes)
    assert found is not None
    return {part.name: part.size_bytes for part in found.parts}


def test_it_is_near_what_a_small_training_holds() -> None:
    """Weights, gradients, optimizer state and saved activations of a real step, counted tensor by tensor."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=176,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=256,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters())
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    saved: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    tokens = torch.randint(0, 256, (4, 128))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = model.model(tokens).last_hidden_state
    activations = sum(saved.values())
    torch.nn.functional.cross_entropy(model.lm_head(hidden).flatten(0, 1), tokens.flatten()).backward()
    optimizer.step()
    state = sum(value.nbytes for entry in optimizer.state.values() for value in entry.values() if value.numel() > 1)
    gradients = sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
    count = sum(p.numel() for p in model.parameters())
    shape = ModelShape(
        family="llama",
        parameters=count,
        trained_parameters=count,
        layers=3,
        hidden=64,
        heads=4,
        key_value_heads=2,
        intermediate=176,
        vocabulary=256,
    )
    found = parts(training(micro_batch=4), shape, 128)
    assert found["Weights"] == 4 * count
    assert found["Gradients"] == gradients
    assert found["Optimizer state"] == state
    assert 1 / 1.1 < found["Activations"] / activations < 1.1


@pytest.mark.parametrize(
    ("sharding", "weights", "gradients", "state"),
    [("none", 1, 1, 1), ("zero1", 1, 1, 8), ("zero2", 1, 8, 8), ("zero3", 8, 8, 8)],
)
def test_zero_divides_what_the_paper_says(sharding: str, weights: int, gradients: int, state: int) -> None:
    found = parts(training(parallel__processes=8, parallel__sharding=sharding))
    whole = 4 * SHAPE.parameters
    assert found["Weights"] == whole // weights
    assert found["Gradients"] == whole // gradients
    assert found["Optimizer state"] == 2 * whole // state


def test_replicas_divide_among_fewer_ranks() -> None:
    found = parts(training(parallel__processes=8, parallel__sharding="zero3", parallel__replicas=2))
    assert found["Weights"] == 4 * SHAPE.parameters // 4


def test_tensor_and_pipeline_share_out_weights_and_activations() -> None:
    one = parts(training())
    tensor = parts(training(parallel__processes=4, parallel__tensor=4))
    assert tensor["Weights"] == one["Weights"] // 4
    assert tensor["Activations"] == pytest.approx(one["Activations"] / 4, rel=0.01)
    loose = parts(training(parallel__processes=4, parallel__tensor=4, parallel__sequence=False))
    assert loose["Activations"] > tensor["Activations"], "without sequence parallel norms are not divided"
    pipeline = parts(training(parallel__processes=4, parallel__pipeline=4, optimizer__grad_accum_steps=8))
    assert one["Weights"] // 4 < pipeline["Weights"] < one["Weights"] // 3, "an end also holds an embedding"


def test_a_schedule_decides_how_many_micro_batches_are_alive() -> None:
    def activations(schedule: str) -> int:
        layout = {"parallel__processes": 4, "parallel__pipeline": 4, "parallel__schedule": schedule}
        return parts(training(optimizer__grad_accum_steps=16, **layout))["Activations"]

    assert activations("gpipe") == pytest.approx(4 * activations("1f1b"), rel=1e-6)
    assert activations("1f1b") < activations("interleaved") < activations("gpipe")


def test_recomputation_keeps_less() -> None:
    kept = {
        how: parts(training(compute__activation_checkpointing=how))["Activations"]
        for how in ("none", "selective", "full")
    }
    assert kept["full"] < kept["selective"] < kept["none"]
    assert kept["full"] < kept["none"] / 5


@pytest.mark.parametrize(
    ("algorithm", "bytes_a_weight"), [("adamw", 8), ("sgd", 4), ("adamw-8bit", 2), ("adafactor", 8 / 4096)]
)
def test_optimizers_need_what_they_need(algorithm: str, bytes_a_weight: float) -> None:
    found = parts(training(optimizer__algorithm=algorithm))
    assert found["Optimizer state"] == pytest.approx(bytes_a_weight * SHAPE.parameters, rel=0.01)


def test_adapters_have_small_gradients_and_state() -> None:
    found = parts(training(), replace(SHAPE, trained_parameters=7_000_000))
    assert found["Weights"] == 4 * SHAPE.parameters
    assert found["Gradients"] == 4 * 7_000_000
    quantized = estimate_memory(training(), replace(SHAPE, trained_parameters=7_000_000), frozen_width=NF4_WIDTH)
    assert quantized is not None
    assert quantized.parts[0].size_bytes == pytest.approx(0.53 * SHAPE.parameters, rel=0.02)


def test_what_is_not_known_is_not_made_up() -> None:
    assert estimate_memory(training(), ModelShape(family="custom")) is None
    found = estimate_memory(training(), ModelShape(family="image", parameters=1_000_000))
    assert found is not None
    assert "Activations" not in {part.name for part in found.parts}
    assert "leaves out activations" in found.basis


@pytest.mark.parametrize(
    ("device", "fit"),
    [(None, MemoryFit.UNKNOWN), (2000, MemoryFit.FITS), (1100, MemoryFit.TIGHT), (900, MemoryFit.TOO_LARGE)],
)
def test_the_verdict_leaves_room_for_what_is_left_out(device: int | None, fit: MemoryFit) -> None:
    parts = (MemoryPart(name="Weights", size_bytes=600), MemoryPart(name="Activations", size_bytes=400))
    assert MemoryEstimate(parts=parts, basis="", device_bytes=device).fit is fit
