"""The stability guard on synthetic curves: silent on healthy ones, awake on each kind of trouble."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np
import pytest

from core.train.engine.contracts import Decision, GradientNorms, Observation
from core.train.specs.stability import StabilitySpec
from core.train.stability.guard import make_guard

STEPS = 2000
SPEC = StabilitySpec()


def seen(step: int, loss: float = 2.0, norm: float = 1.0, **more: Any) -> Observation:
    """Return the observation of a step of a model of two blocks."""
    blocks = more.pop("blocks", {"layers.0": norm * 0.6, "layers.1": norm * 0.8})
    return Observation(step=step, loss=loss, norms=GradientNorms(total=norm, blocks=blocks), lr=1e-3, **more)


def quiet(guard: Any, steps: Iterable[int], seed: int = 0, **more: Any) -> None:
    """Let the guard see steps of a level loss with a little noise; it must stay silent."""
    draw = np.random.default_rng(seed)
    for step in steps:
        decision = guard.observe(seen(step, 2.0 + draw.normal(0, 0.05), math.exp(draw.normal(0, 0.2)), **more))
        assert decision == Decision(), decision


def healthy_curve(shape: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return losses and gradient norms of a training that nothing is wrong with."""
    draw = np.random.default_rng(seed)
    step = np.arange(STEPS)
    falling = 2.0 + 8.8 * np.exp(-step / 150)
    if shape == "language":
        loss, norm = falling + draw.normal(0, 0.05, STEPS), 0.4 + 8 * np.exp(-step / 60)
    elif shape == "drops at epochs":
        loss, norm = 1.5 * 0.6 ** (step // 200) + draw.normal(0, 0.02, STEPS), 1 + 0.5 * (step % 200 < 10)
    elif shape == "decayed":
        loss, norm = falling * (1 - 0.3 * step / STEPS) + draw.normal(0, 0.02, STEPS), 1 + 4 * step / STEPS
    elif shape == "small batches":
        loss, norm = 0.5 + 1.8 * np.exp(-step / 300) + 0.2 * draw.gamma(1.0, 1.0, STEPS), 1 + draw.gamma(1, 1, STEPS)
    elif shape == "heavy tails":
        loss, norm = falling + 0.05 * draw.standard_t(3, STEPS), np.exp(0.3 * draw.standard_t(5, STEPS))
    else:
        assert shape == "memorized"
        loss = 2.3 * np.exp(-step / 100) + 0.001 * np.exp(draw.normal(0, 1.5, STEPS))
        norm = loss + 0.01
    return loss, norm * np.exp(draw.normal(0, 0.2, STEPS))


SHAPES = ("language", "drops at epochs", "decayed", "small batches", "heavy tails", "memorized")


@pytest.mark.parametrize("shape", SHAPES)
def test_healthy_curves_set_off_no_roll_back_and_hardly_a_clip(shape: str) -> None:
    for seed in range(4):
        guard = make_guard(SPEC, ranks=1)
        losses, norms = healthy_curve(shape, seed)
        found = [guard.observe(seen(n + 1, float(losses[n]), float(norms[n]))) for n in range(STEPS)]
        acted = [decision for decision in found if decision.action != "ignore"]
        assert all(decision.action == "clip" for decision in acted), acted
        assert len(acted) <= STEPS * 0.002, acted


@pytest.mark.parametrize("shape", SHAPES)
def test_a_far_loss_is_called_at_once_on_every_curve(shape: str) -> None:
    losses, norms = healthy_curve(shape, 1)
    guard = make_guard(SPEC, ranks=1)
    for n in range(STEPS - 1):
        guard.observe(seen(n + 1, float(losses[n]), float(norms[n])))
    decision = guard.observe(seen(STEPS, float(np.max(losses)) + 10.0, float(norms[-1])))
    assert (decision.action, decision.signal) == ("roll-back", "loss_spike")
    assert "robust deviations above its recent median" in decision.reason


def test_a_loss_that_stays_high_is_called_at_its_second_step() -> None:
    guard = make_guard(SPEC, ranks=1)
    quiet(guard, range(1, 101))
    assert guard.observe(seen(101, 3.0)).action == "ignore"
    decision = guard.observe(seen(102, 3.0))
    assert (decision.action, decision.signal) == ("roll-back", "loss_spike")


def test_a_lower_loss_is_never_a_spike() -> None:
    guard = make_guard(SPEC, ranks=1)
    quiet(guard, range(1, 101))
    assert guard.observe(seen(101, 0.01, 1e-4)) == Decision()


@pytest.mark.parametrize(
    ("broken", "where"),
    [
        (seen(3, math.nan), "The loss is nan."),
        (seen(3, math.inf), "The loss is inf."),
        (seen(3, 2.0, math.nan, blocks={"layers.0": 1.0, "layers.1": math.nan}), "nan, in layers.1."),
        (seen(3, 2.0, math.inf, blocks={"layers.0": math.inf, "layers.1": math.inf}), "inf, first in layers.0."),
    ],
)
def test_what_is_not_finite_is_never_taken_even_in_the_quiet_steps(broken: Observation, where: str) -> None:
    for policy, action in (("skip", "skip"), ("note", "skip"), ("clip", "skip"), ("stop", "stop")):
        guard = make_guard(msgspec.structs.replace(SPEC, on_not_finite=policy), ranks=1)
        decision = guard.observe(broken)
        assert (decision.action, decision.signal) == (action, "not_finite")
        assert where in decision.reason


def test_skipping_without_end_becomes_a_roll_back_and_at_last_a_stop() -> None:
    guard = make_guard(msgspec.structs.replace(SPEC, max_actions=2), ranks=1)
    actions = [guard.observe(seen(step, math.nan)).action for step in range(1, 10)]
    assert actions == ["skip", "skip", "roll-back"] * 2 + ["skip", "skip", "stop"]


def test_a_step_in_between_begins_the_count_of_skipped_steps_anew() -> None:
    guard = make_guard(msgspec.structs.replace(SPEC, max_actions=2), ranks=1)
    for step in range(1, 30):
        decision = guard.observe(seen(step, math.nan if step % 3 else 2.0))
        assert decision.action == ("skip" if step % 3 else "ignore")


def test_a_gradient_spike_is_clipped_to_the_usual_norm_and_its_block_is_named() -> None:
    guard = make_guard(SPEC, ranks=1)
    quiet(guard, range(1, 101))
    total = guard.observe(seen(101, 2.0, 50.0, blocks={"layers.0": 0.6, "layers.1": 50.0}))
    assert (total.action, total.signal) == ("clip", "gradient_spike")
    assert total.clip_to == pytest.approx(1.0, rel=0.2)
    assert "Most of it is in layers.1" in total.reason
    block = guard.observe(seen(102, 2.0, 1.5, blocks={"layers.0": 0.6, "layers.1": 0.8}))
    assert block == Decision()


def test_a_spike_of_one_small_block_is_seen_though_the_total_hardly_moves() -> None:
    guard = make_guard(SPEC, ranks=1)
    draw = np.random.default_rng(3)
    for step in range(1, 101):
        small = {"layers.0": 1.0, "head": 0.001 * math.exp(draw.normal(0, 0.1))}
        assert guard.observe(seen(step, blocks=small)) == Decision()
    decision = guard.observe(seen(101, 2.0, 1.02, blocks={"layers.0": 1.0, "head": 0.2}))
    assert (decision.action, decision.signal) == ("clip", "gradient_spike")
    assert "of head, 0.2, is" in decision.reason
    assert decision.clip_to == pytest.approx(1.02 * 0.001 / 0.2, rel=0.1)


def test_a_frozen_block_is_no_spike_when_its_gradient_begins() -> None:
    guard = make_guard(SPEC, ranks=1)
    for step in range(1, 101):
        guard.observe(seen(step, blocks={"layers.0": 1.0, "frozen": 0.0}))
    assert guard.observe(seen(101, blocks={"layers.0": 1.0, "frozen": 0.3})) == Decision()


def test_large_updates_are_noted_seldom_and_with_the_figure() -> None:
    guard = make_guard(SPEC, ranks=1)
    found = [guard.observe(seen(step, update_ratio=0.5)) for step in range(1, 401)]
    noted = [n + 1 for n, decision in enumerate(found) if decision.signal]
    assert noted == [17, 17 + 64, 17 + 64 + 128]
    assert found[16].action == "note"
    assert "50.00%" in found[16].reason


def test_overflows_are_the_scalers_until_the_scale_has_collapsed() -> None:
    guard = make_guard(SPEC, ranks=1)
    for step, scale in enumerate((65536.0, 32768.0, 1.0), start=1):
        assert guard.observe(seen(step, 2.0, math.inf, overflowed=True, loss_scale=scale)) == Decision()
    decision = guard.observe(seen(4, 2.0, math.inf, overflowed=True, loss_scale=0.5))
    assert (decision.action, decision.signal) == ("stop", "scale_collapse")
    assert "0.5" in decision.reason


def test_a_rank_that_becomes_slow_is_named_after_some_steps_and_one_slow_step_is_not() -> None:
    guard = make_guard(SPEC, ranks=2)
    for step in range(1, 101):
        hiccup = 1.0 if step % 20 == 0 else 0.0
        assert guard.observe(seen(step, step_times_s=(0.1 + hiccup, 0.1))) == Decision()
    found = [guard.observe(seen(step, step_times_s=(0.1, 0.5))) for step in range(101, 110)]
    named = [decision for decision in found if decision.signal == "slow_step"]
    assert len(named) == 1, "noted once, not at each step"
    assert named[0].action == "note"
    assert "the slowest rank is 1" in named[0].reason


def test_no_rank_is_blamed_when_all_become_slow_alike() -> None:
    guard = make_guard(SPEC, ranks=2)
    for step in range(1, 101):
        guard.observe(seen(step, step_times_s=(0.1, 0.1)))
    found = [guard.observe(seen(step, step_times_s=(0.5, 0.49))) for step in range(101, 110)]
    (reason,) = [decision.reason for decision in found if decision.signal == "slow_step"]
    assert reason == "Steps take 0.5 s, 5.0 times their median of 0.1 s, on all ranks alike."


def test_a_rank_that_was_slow_from_the_start_is_named_too() -> None:
    guard = make_guard(SPEC, ranks=4)
    found = [guard.observe(seen(step, step_times_s=(0.1, 0.1, 0.9, 0.1))) for step in range(1, 60)]
    named = [decision.reason for decision in found if decision.signal == "slow_step"]
    assert named == ["Rank 2 takes 0.9 s a step, 9.0 times as long as the others."]


def test_waiting_for_data_is_noted_with_its_share_or_what_to_change() -> None:
    for advise, reason in (
        (lambda _: "", "60% of the step time is spent waiting for data."),
        (lambda share: f"Load more; {share:.2f} is waited for.", "Load more; 0.60 is waited for."),
    ):
        guard = make_guard(SPEC, ranks=2, advise=advise)
        found = [guard.observe(seen(n, step_times_s=(0.1, 0.1), data_waits_s=(0.0, 0.06))) for n in range(1, 40)]
        assert [decision.reason for decision in found if decision.signal == "data_wait"] == [reason]


def test_the_most_severe_policy_is_carried_out_and_the_others_are_noted() -> None:
    guard = make_guard(SPEC, ranks=1)
    quiet(guard, range(1, 101))
    decision = guard.observe(seen(101, 50.0, 90.0, update_ratio=0.4))
    assert (decision.action, decision.signal) == ("roll-back", "loss_spike")
    assert {signal for signal, _ in decision.notes} == {"gradient_spike", "update_ratio"}


@pytest.mark.parametrize("policy", ["lower-lr", "raise-accumulation"])
def test_an_action_is_given_time_and_attempts_end_in_a_stop_with_a_sentence(policy: str) -> None:
    guard = make_guard(msgspec.structs.replace(SPEC, on_loss_spike=policy, max_actions=2), ranks=1)
    quiet(guard, range(1, 101))
    found = [guard.observe(seen(step, 2.0 + step / 2, 1.0)) for step in range(101, 150)]
    acted = [(n + 101, decision.action) for n, decision in enumerate(found) if decision.action != "ignore"]
    assert [action for _, action in acted[:3]] == [policy, policy, "stop"]
    assert acted[1][0] - acted[0][0] >= 16
    stop = next(decision for decision in found if decision.action == "stop")
    assert "2 attempts to recover (the limit) did not help" in stop.reason


def test_values_of_steps_that_were_not_taken_enter_no_window() -> None:
    guard = make_guard(SPEC, ranks=1)
    quiet(guard, range(1, 101))
    before = guard.state_dict()
    assert guard.observe(seen(101, 60.0)).action == "roll-back"
    assert guard.observe(seen(101, math.nan)).action == "skip"
    after = guard.state_dict()
    assert after["losses"] == before["losses"]
    assert after["norms"] == before["norms"]
    assert after["blocks"] == before["blocks"]


def test_a_state_goes_through_json_and_decides_as_the_guard_it_was_taken_from() -> None:
    guard = make_guard(SPEC, ranks=2)
    quiet(guard, range(1, 150), step_times_s=(0.1, 0.1), data_waits_s=(0.0, 0.01))
    other = make_guard(SPEC, ranks=2)
    other.load_state_dict(msgspec.json.decode(msgspec.json.encode(guard.state_dict())))
    assert other.state_dict() == guard.state_dict()
    for step, loss, norm in ((150, 2.0, 1.0), (151, 2.0, 40.0), (152, 9.0, 1.0)):
        assert other.observe(seen(step, loss, norm)) == guard.observe(seen(step, loss, norm))


def test_a_resume_gives_an_action_the_time_that_is_left_and_knows_of_the_high_loss_before() -> None:
    guard = make_guard(msgspec.structs.replace(SPEC, on_loss_spike="lower-lr"), ranks=1)
    quiet(guard, range(1, 101))
    losses = [2.0 + step / 2 for step in range(101, 150)]
    for resumed_at in (2, 10):
        own = make_guard(msgspec.structs.replace(SPEC, on_loss_spike="lower-lr"), ranks=1)
        own.load_state_dict(guard.state_dict())
        whole = make_guard(msgspec.structs.replace(SPEC, on_loss_spike="lower-lr"), ranks=1)
        whole.load_state_dict(guard.state_dict())
        expected = [whole.observe(seen(101 + n, loss)).action for n, loss in enumerate(losses)]
        found = [own.observe(seen(101 + n, loss)).action for n, loss in enumerate(losses[:resumed_at])]
        resumed = make_guard(msgspec.structs.replace(SPEC, on_loss_spike="lower-lr"), ranks=1)
        resumed.load_state_dict(msgspec.json.decode(msgspec.json.encode(own.state_dict())))
        found += [
            resumed.observe(seen(101 + resumed_at + n, loss)).action for n, loss in enumerate(losses[resumed_at:])
        ]
        assert found == expected
        assert "lower-lr" in expected


def test_attempts_are_not_given_back_by_a_roll_back_or_a_resume() -> None:
    guard = make_guard(msgspec.structs.replace(SPEC, max_actions=3), ranks=1)
    quiet(guard, range(1, 101))
    kept = guard.state_dict()
    actions: list[str] = []
    for _ in range(3):
        actions.append(guard.observe(seen(101, 60.0)).action)
        guard.load_state_dict(kept)
    resumed = make_guard(msgspec.structs.replace(SPEC, max_actions=3), ranks=1)
    resumed.load_state_dict(guard.state_dict())
    actions.append(resumed.observe(seen(101, 60.0)).action)
    assert actions == ["roll-back", "roll-back", "roll-back", "stop"]


def test_equal_observations_give_equal_decisions_on_every_rank() -> None:
    guards = [make_guard(SPEC, ranks=2) for _ in range(2)]
    losses, norms = healthy_curve("heavy tails", 5)
    losses[500], norms[700], losses[900] = 40.0, 500.0, math.nan
    for n in range(1000):
        first, second = (guard.observe(seen(n + 1, float(losses[n]), float(norms[n]))) for guard in guards)
        assert first == second


def test_a_step_costs_far_less_than_a_millisecond() -> None:
    guard = make_guard(SPEC, ranks=8)
    blocks = {f"layers.{n}": 1.0 for n in range(40)}
    steps = [seen(n + 1, blocks=blocks, step_times_s=(0.1,) * 8, data_waits_s=(0.0,) * 8) for n in range(500)]
    began = time.thread_time()
    for one in steps:
        guard.observe(one)
    assert (time.thread_time() - began) / len(steps) < 5e-4
