"""Schedule, parameter groups and weight averaging against their definitions."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

from core.train.optim import build_average, build_optimizer, lr_at
from core.train.specs.optimizer import OptimizerSpec


def test_lr_rises_linearly_then_falls_as_a_cosine_to_the_final_share() -> None:
    spec = OptimizerSpec(lr=1.0, warmup_fraction=0.1, min_lr_fraction=0.1)
    rates = [lr_at(step, 100, spec) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (n + 1) for n in range(10)])
    assert rates[10] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.1)
    expected = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * (54 - 10) / 89))
    assert rates[54] == pytest.approx(expected)
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[10:]))


@pytest.mark.parametrize("total", [1, 2, 3])
def test_lr_of_very_short_runs_is_finite_and_positive(total: int) -> None:
    assert all(0 < lr_at(step, total, OptimizerSpec()) <= OptimizerSpec().lr for step in range(total))


def test_adamw_decays_matrices_and_kernels_but_no_norm_or_bias() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    decayed, free = build_optimizer(model, OptimizerSpec(weight_decay=0.3)).param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.3, 0.0)
    assert {p.ndim for p in decayed["params"]} == {2, 4}
    assert len(free["params"]) == 4
    assert decayed["betas"] == (0.9, 0.999)
    assert decayed["eps"] == 1e-8


def test_adamw_follows_the_published_update() -> None:
    weight = nn.Linear(1, 1, bias=False)
    nn.init.constant_(weight.weight, 2.0)
    optimizer = build_optimizer(weight, OptimizerSpec(lr=0.1, weight_decay=0.5))
    weight.weight.grad = torch.full((1, 1), 3.0)
    optimizer.step()
    # First step of AdamW: decay by 1 - lr * decay, then move by lr * m / (sqrt(v) + eps), both bias-corrected.
    assert weight.weight.item() == pytest.approx(2.0 * (1 - 0.1 * 0.5) - 0.1, abs=1e-6)


def test_the_average_warms_up_and_then_decays_as_asked_and_keeps_buffers() -> None:
    model = nn.BatchNorm1d(1)
    average = build_average(model, 0.5)
    assert average is not None
    average.update_parameters(model)
    with torch.no_grad():
        model.weight.fill_(2.0)
        model.running_mean.fill_(4.0)
    average.update_parameters(model)
    decay = min(0.5, (1 + 1) / (10 + 1))
    assert average.module.weight.item() == pytest.approx(1.0 * decay + 2.0 * (1 - decay))
    assert average.module.running_mean.item() == pytest.approx(4.0 * (1 - decay))
    assert build_average(model, 0.0) is None
