"""Loss scaling, recomputation of activations and compilation, each against what it must not change."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from core.contracts.errors import UserError
from core.train.engine.precision import LossScaler, make_arithmetic
from core.train.specs.compute import ComputeSpec
from tests.helpers.digit_task import FEATURES, Network, row_spec

CPU = torch.device("cpu")


def passes(**fields: Any) -> tuple[list[float], list[tuple[str, str]]]:
    """Return the loss and all gradients of a small network's step, and what was logged."""
    logged: list[tuple[str, str]] = []
    arithmetic = make_arithmetic(row_spec(**fields), CPU, lambda message, level: logged.append((level, message)))
    torch.manual_seed(0)
    network = Network(dropout=0.3)
    names = list(network.state_dict())
    arithmetic.prepare(list(network.blocks))
    assert list(network.state_dict()) == names
    with arithmetic.autocast():
        loss = network(torch.randn(6, FEATURES)).float().square().sum()
    arithmetic.scale_loss(loss).backward()
    gradients = [p.grad.double().sum().item() for p in network.parameters() if p.grad is not None]
    return [loss.item(), *gradients], logged


def test_the_loss_scale_halves_at_an_overflow_and_doubles_after_enough_good_steps() -> None:
    scaler = LossScaler(ComputeSpec(initial_loss_scale=1024.0, loss_scale_growth_steps=3))
    scales: list[float] = []
    for overflowed in (True, False, False, False, False, True):
        scaler.update(overflowed=overflowed)
        scales.append(scaler.scale)
    assert scales == [512.0, 512.0, 512.0, 1024.0, 1024.0, 512.0]


def test_the_loss_scale_goes_on_where_it_was() -> None:
    spec = ComputeSpec(initial_loss_scale=8.0, loss_scale_growth_steps=2)
    scaler, other = LossScaler(spec), LossScaler(spec)
    scaler.update(overflowed=False)
    other.load_state_dict(scaler.state_dict())
    other.update(overflowed=False)
    assert other.scale == 16.0


@pytest.mark.parametrize("mode", ["selective", "full"])
def test_recomputed_activations_give_the_same_loss_and_gradients_with_dropout(mode: str) -> None:
    kept, _ = passes()
    recomputed, _ = passes(compute={"activation_checkpointing": mode})
    assert recomputed == kept


def test_full_recomputation_keeps_fewer_tensors_than_selective_and_that_fewer_than_none() -> None:
    held: dict[str, int] = {}
    for mode in ("none", "selective", "full"):
        arithmetic = make_arithmetic(row_spec(compute={"activation_checkpointing": mode}), CPU, lambda *_: None)
        network = Network(dropout=0.0)
        arithmetic.prepare(list(network.blocks))
        packed: list[int] = []

        def pack(tensor: torch.Tensor, packed: list[int] = packed) -> torch.Tensor:
            packed.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            network(torch.randn(6, FEATURES)).sum()
        held[mode] = len(packed)
    assert held["full"] < held["none"]
    assert held["selective"] < held["none"]


def test_a_failing_compiler_is_said_once_and_the_run_goes_on_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, _ = passes()

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise torch._dynamo.exc.InternalTorchDynamoError("there is no compiler here")

    monkeypatch.setattr(torch, "compile", lambda forward: refuse)
    compiled, logged = passes(compute={"compile": True})
    assert compiled == plain
    ((level, message),) = logged
    assert level == "warning"
    assert "there is no compiler here" in message
    assert "goes on without it" in message


def test_a_block_that_fails_by_itself_is_not_taken_for_a_compiler_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(torch, "compile", lambda forward: fail)
    with pytest.raises(RuntimeError, match="mat1"):
        passes(compute={"compile": True})


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_half_precisions_compute_matrices_in_half_and_stay_near_fp32(precision: str, dtype: torch.dtype) -> None:
    arithmetic = make_arithmetic(row_spec(precision=precision), CPU, lambda *_: None)
    with arithmetic.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is dtype
    exact, _ = passes()
    (loss, *gradients), _ = passes(precision=precision, compute={"initial_loss_scale": 128.0})
    scale = 128.0 if precision == "fp16" else 1.0
    assert loss == pytest.approx(exact[0], rel=0.03)
    assert math.fsum(gradients) / scale == pytest.approx(math.fsum(exact[1:]), rel=0.1)


@pytest.mark.parametrize("precision", ["tf32", "fp8"])
def test_precisions_of_gpus_are_refused_on_a_cpu_with_a_remedy(precision: str) -> None:
    with pytest.raises(UserError, match=f"{precision} needs an NVIDIA GPU") as caught:
        make_arithmetic(row_spec(precision=precision), CPU, lambda *_: None)
    assert "bf16" in caught.value.hint
