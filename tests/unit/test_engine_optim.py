"""Schedules, parameter groups, optimizers and weight averaging against their definitions."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

from core.contracts.errors import UserError
from core.train.engine.average import WeightAverage
from core.train.engine.naming import make_state, model_tensors, optimizer_tensors, put_numbers
from core.train.engine.optim import build_optimizer, lr_at
from core.train.specs.optimizer import Algorithm, OptimizerSpec


def rates(total: int = 100, **fields: object) -> list[float]:
    spec = OptimizerSpec(**{"lr": 1.0, "warmup_fraction": 0.1, "min_lr_fraction": 0.1, **fields})  # pyright: ignore[reportArgumentType]
    return [lr_at(step, total, spec) for step in range(total)]


def test_cosine_rises_linearly_then_falls_as_a_cosine_to_the_final_share() -> None:
    found = rates()
    assert found[:10] == pytest.approx([0.1 * (n + 1) for n in range(10)])
    assert found[10] == pytest.approx(1.0)
    assert found[-1] == pytest.approx(0.1)
    assert found[54] == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * (54 - 10) / 89)))
    assert all(later < earlier for earlier, later in itertools.pairwise(found[10:]))


def test_linear_falls_by_the_same_amount_each_step() -> None:
    found = rates(schedule="linear")
    falls = [earlier - later for earlier, later in itertools.pairwise(found[10:])]
    assert falls == pytest.approx([0.9 / 89] * 89)


def test_constant_stays_and_wsd_stays_until_the_last_fifth_and_then_falls_linearly() -> None:
    assert rates(schedule="constant")[10:] == [1.0] * 90
    found = rates(schedule="wsd", decay_fraction=0.2)
    assert found[10:81] == [1.0] * 71
    falls = [earlier - later for earlier, later in itertools.pairwise(found[80:])]
    assert falls == pytest.approx([0.9 / 19] * 19)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant", "wsd"])
@pytest.mark.parametrize("total", [1, 2, 3])
def test_rates_of_very_short_runs_are_finite_and_positive(schedule: str, total: int) -> None:
    assert all(0 < rate <= 1.0 for rate in rates(total, schedule=schedule))


def test_adamw_decays_matrices_and_kernels_but_no_norm_or_bias() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    (optimizer,) = build_optimizer([model], OptimizerSpec(weight_decay=0.3)).members
    decayed, free = optimizer.param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.3, 0.0)
    assert {p.ndim for p in decayed["params"]} == {2, 4}
    assert len(free["params"]) == 4
    assert decayed["betas"] == (0.9, 0.999)
    assert decayed["eps"] == 1e-8


def test_adamw_follows_the_published_update() -> None:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, 2.0)
    optimizers = build_optimizer([layer], OptimizerSpec(weight_decay=0.5))
    layer.weight.grad = torch.full((1, 1), 3.0)
    optimizers.step(0.1)
    # First step of AdamW: decay by 1 - lr * decay, then move by lr * m / (sqrt(v) + eps), both bias-corrected.
    assert layer.weight.item() == pytest.approx(2.0 * (1 - 0.1 * 0.5) - 0.1, abs=1e-6)


def test_frozen_weights_are_left_alone_and_a_model_without_others_is_refused() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    assert set(build_optimizer([model], OptimizerSpec()).parameters) == {"1.weight", "1.bias"}
    with pytest.raises(UserError, match="no weights that are trained"):
        build_optimizer([model.requires_grad_(False)], OptimizerSpec())


def test_muon_takes_hidden_matrices_and_leaves_tables_norms_and_the_output_to_adamw() -> None:
    model = nn.ModuleDict({"embed_tokens": nn.Embedding(4, 8), "up": nn.Linear(8, 8), "lm_head": nn.Linear(8, 4)})
    muon, adamw = build_optimizer([model], OptimizerSpec(algorithm="muon")).members
    assert [p.shape for group in muon.param_groups for p in group["params"]] == [(8, 8)]
    assert sum(len(group["params"]) for group in adamw.param_groups) == 4


@pytest.mark.parametrize("algorithm", ["adamw", "sgd", "adafactor", "muon", "adamw-8bit"])
def test_every_optimizer_lowers_a_quadratic_and_goes_on_from_its_saved_state_bit_for_bit(algorithm: Algorithm) -> None:
    torch.manual_seed(0)
    spec = OptimizerSpec(algorithm=algorithm, weight_decay=0.0)
    inputs = torch.randn(32, 64)

    def loss_of(model: nn.Module) -> torch.Tensor:
        return model(inputs).square().mean()

    def steps(model: nn.Module, optimizers: object, number: int) -> list[float]:
        found: list[float] = []
        for _ in range(number):
            loss = loss_of(model)
            loss.backward()
            optimizers.step(0.01)  # pyright: ignore[reportAttributeAccessIssue]
            optimizers.zero_grad()  # pyright: ignore[reportAttributeAccessIssue]
            found.append(loss.item())
        return found

    model = nn.Sequential(nn.Linear(64, 80), nn.Linear(80, 64))
    optimizers = build_optimizer([model], spec)
    losses = steps(model, optimizers, 6)
    assert losses[-1] < losses[0]

    other = nn.Sequential(nn.Linear(64, 80), nn.Linear(80, 64))
    other.load_state_dict(model.state_dict())
    resumed = build_optimizer([other], spec)
    for member in resumed.members:
        make_state(member, [p for group in member.param_groups for p in group["params"]])
    assert {name: t.tolist() for name, t in other.state_dict().items()} == {
        name: t.tolist() for name, t in model.state_dict().items()
    }, "making the state moves no weight"
    saved = {n: t.clone() for n, t in optimizer_tensors(optimizers.members, optimizers.parameters).items()}
    held = optimizer_tensors(resumed.members, resumed.parameters)
    assert held.keys() == saved.keys()
    for name, tensor in held.items():
        tensor.copy_(saved[name])
    put_numbers(resumed.members, resumed.parameters, held)
    assert steps(other, resumed, 3) == steps(model, optimizers, 3)


def test_the_average_warms_up_and_then_decays_as_asked_and_keeps_buffers() -> None:
    model = nn.BatchNorm1d(1)
    average = WeightAverage(model_tensors([model]), 0.5)
    average.update()
    with torch.no_grad():
        model.weight.fill_(2.0)
        assert model.running_mean is not None
        model.running_mean.fill_(4.0)
    average.update()
    decay = min(0.5, (1 + 1) / (10 + 1))
    with average.swapped_in():
        assert model.weight.item() == pytest.approx(1.0 * decay + 2.0 * (1 - decay))
        assert model.running_mean.item() == pytest.approx(4.0 * (1 - decay))
    assert (model.weight.item(), model.running_mean.item()) == (2.0, 4.0)
