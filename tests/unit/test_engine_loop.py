"""One training in one process: what is reported, validated, kept, and what becomes of faults and of the guard's decisions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from core.contracts.errors import Cancelled, UserError
from core.runlog.layout import RunLayout
from core.train.engine import train as engine
from core.train.engine.contracts import Batch, Decision, Observation, SampleKey
from core.train.specs.stability import StabilitySpec
from tests.helpers.digit_task import RowTask, maker, row_spec
from tests.helpers.engine_runs import SpyContext
from tests.helpers.recording_context import RecordingContext

OFF = {"guard": False}


def run(home: Path, task: RowTask | None = None, **fields: Any) -> tuple[RecordingContext, RowTask]:
    context, task = RecordingContext(home), task or RowTask()
    engine.train(row_spec(**fields), context, maker(task))
    return context, task


class Script:
    """A guard that decides as it is told, by the how-manieth observation (from 1)."""

    def __init__(self, decisions: Mapping[int, Decision]) -> None:
        self.decisions = decisions
        self.seen: list[Observation] = []

    def observe(self, seen: Observation) -> Decision:
        self.seen.append(seen)
        return self.decisions.get(len(self.seen), Decision())

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        del state


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Script]:
    def install(**decisions: Decision) -> Script:
        script = Script({int(name.removeprefix("at")): decision for name, decision in decisions.items()})

        def make(spec: StabilitySpec, ranks: int, advise: Callable[[float], str]) -> Script:
            del spec, ranks, advise
            return script

        monkeypatch.setattr(engine, "make_guard", make)
        return script

    return install


def test_every_step_is_reported_with_its_measures_and_the_best_weights_are_handed_over(tmp_path: Path) -> None:
    context, task = run(tmp_path, steps=10, evaluate_every=5, optimizer={"lr": 0.01})
    expected = {"loss", "lr", "grad_norm", "epoch", "step_time_s", "samples_per_s", "data_wait_s", "forward_backward_s"}
    expected |= {"optimizer_s", "communication_s", "tflops"}
    for step in range(1, 11):
        (values,) = [values for at, values in context.metrics if at == step and "train/loss" in values]
        assert {f"train/{name}" for name in expected} <= values.keys()
    assert context.curve("train/update_ratio")[0][0] == 1
    assert 0 < context.curve("train/update_ratio")[0][1] < 0.1
    assert context.curve("memory/peak_bytes")[0][1] > 50e6
    assert [step for step, _ in context.curve("val/loss")] == [5, 10]
    assert task.outcome is not None
    assert task.outcome.best_values["val/loss"] == min(loss for _, loss in context.curve("val/loss"))
    assert context.resumed_from == [None]
    assert context.progresses[-1][1] == "Writing the model"


def test_epochs_become_steps_and_a_stream_of_unknown_length_needs_steps() -> None:
    assert engine.plan_steps(row_spec(steps=0, epochs=2.5), 8) == (20, 8)
    assert engine.plan_steps(row_spec(steps=0, epochs=10), 1.25) == (13, 2)
    assert engine.plan_steps(row_spec(steps=50), 8) == (50, 5)
    assert engine.plan_steps(row_spec(steps=50, evaluate_every=7), 0) == (50, 7)
    with pytest.raises(UserError, match="length of a stream"):
        engine.plan_steps(row_spec(steps=0), 0)


def test_accumulated_micro_batches_with_unequal_counts_equal_one_large_batch(tmp_path: Path) -> None:
    whole, _ = run(tmp_path / "a", micro_batch=16)
    split, _ = run(tmp_path / "b", micro_batch=4, optimizer={"grad_accum_steps": 4})
    losses = [loss for _, loss in whole.curve("train/loss")]
    assert [loss for _, loss in split.curve("train/loss")] == pytest.approx(losses, rel=1e-5)


def test_the_best_weights_are_those_of_the_best_validation_not_the_last(tmp_path: Path) -> None:
    # A rate that ruins the model after the first validation.
    context, task = run(
        tmp_path,
        steps=8,
        evaluate_every=2,
        stability=OFF,
        optimizer={"lr": 2.0, "schedule": "constant", "algorithm": "sgd"},
    )
    losses = dict(context.curve("val/loss"))
    best = min(losses, key=lambda step: losses[step])
    assert task.outcome is not None
    assert task.outcome.best_step == best
    network = task.build_model()
    network.load_state_dict(task.finished)
    part = task.validation()
    batch = part.collate([part.samples[SampleKey(number, 0)] for number in range(30)])
    score = task.score(network.eval()(batch["rows"]), batch)
    assert score["loss"] / score["count"] == pytest.approx(losses[best], rel=1e-5)


@pytest.mark.parametrize("fault", [math.nan, math.inf])
def test_without_the_guard_a_loss_that_is_not_finite_ends_the_run_with_a_sentence(tmp_path: Path, fault: float) -> None:
    task = RowTask(loss_scale=lambda number: fault if number == 3 else 1.0)
    context = RecordingContext(tmp_path)
    with pytest.raises(UserError, match=f"training loss became {fault} at step 3"):
        engine.train(row_spec(stability=OFF), context, maker(task))
    assert [step for step, _ in context.curve("train/loss")] == [1, 2, 3]


def test_with_the_guard_a_batch_of_nan_is_left_out_and_training_goes_on(tmp_path: Path) -> None:
    task = RowTask(loss_scale=lambda number: math.nan if number == 3 else 1.0)
    context, task = run(tmp_path, task)
    assert [(step, signal, action) for step, signal, action, _ in context.stabilities] == [(3, "not_finite", "skip")]
    assert all(bool(torch.isfinite(tensor).all()) for tensor in task.finished.values())
    clean, _ = run(tmp_path / "clean")
    assert context.curve("train/loss")[-1][1] == pytest.approx(clean.curve("train/loss")[-1][1], rel=0.2)


def test_an_fp16_overflow_skips_the_step_and_halves_the_scale_and_good_steps_double_it(tmp_path: Path) -> None:
    compute = {"initial_loss_scale": 256.0, "loss_scale_growth_steps": 4}
    # A loss that fp32 holds and fp16 activations' gradients do not.
    task = RowTask(loss_scale=lambda number: 1e8 if number == 2 else 1.0)
    context, _ = run(tmp_path, task, precision="fp16", steps=8, compute=compute, stability=OFF)
    scales = [scale for _, scale in context.curve("train/loss_scale")]
    assert scales == [256.0, 128.0, 128.0, 128.0, 128.0, 256.0, 256.0, 256.0]
    norms = [norm for _, norm in context.curve("train/grad_norm")]
    assert not math.isfinite(norms[1])
    assert all(math.isfinite(norm) for norm in norms[:1] + norms[2:])


def test_skip_and_clip_and_lower_lr_do_what_they_say(tmp_path: Path, scripted: Callable[..., Script]) -> None:
    scripted(
        at2=Decision(action="skip", signal="s", reason="r"),
        at3=Decision(action="lower-lr", signal="s", reason="r", notes=(("t", "n"),)),
        at5=Decision(action="clip", signal="s", reason="r", clip_to=1e-12),
    )
    context, _ = run(tmp_path, steps=6, optimizer={"schedule": "constant", "warmup_fraction": 0.0, "lr": 0.01})
    assert [(step, signal, action) for step, signal, action, _ in context.stabilities] == [
        (2, "s", "skip"),
        (3, "t", "note"),
        (3, "s", "lower-lr"),
        (5, "s", "clip"),
    ]
    assert [lr for _, lr in context.curve("train/lr")] == [0.01, 0.01, 0.01, 0.005, 0.005, 0.005]


def test_a_skipped_step_moves_no_weight(tmp_path: Path, scripted: Callable[..., Script]) -> None:
    skip = Decision(action="skip", signal="s", reason="r")
    scripted(at1=skip, at2=skip)
    _, task = run(tmp_path, steps=2)
    torch.manual_seed(row_spec().seed)
    untouched = task.build_model().state_dict()
    assert all(torch.equal(tensor, untouched[name]) for name, tensor in task.finished.items())


def test_raised_accumulation_takes_more_samples_per_step_and_no_sample_twice(
    tmp_path: Path, scripted: Callable[..., Script]
) -> None:
    scripted(at2=Decision(action="raise-accumulation", signal="s", reason="r"))
    context, _ = run(tmp_path, steps=4)
    assert [epoch * 64 for _, epoch in context.curve("train/epoch")] == [8, 16, 32, 48]


def test_raising_accumulation_is_only_noted_where_the_spec_fixes_the_global_batch(
    tmp_path: Path, scripted: Callable[..., Script]
) -> None:
    scripted(at2=Decision(action="raise-accumulation", signal="s", reason="r"))
    context, _ = run(tmp_path, steps=4, global_batch=8)
    assert [action for _, _, action, _ in context.stabilities] == ["note"]
    assert [epoch * 64 for _, epoch in context.curve("train/epoch")] == [8, 16, 24, 32]


def test_a_roll_back_goes_on_from_the_checkpoint_and_leaves_the_offending_samples_out(
    tmp_path: Path, scripted: Callable[..., Script]
) -> None:
    script = scripted(at6=Decision(action="roll-back", signal="loss_spike", reason="r"))
    context, _ = run(tmp_path, task=RowTask(dropout=0.2), steps=8, evaluate_every=4)
    assert context.resumed_from == [None, 4]
    assert [seen.step for seen in script.seen] == [1, 2, 3, 4, 5, 6, 5, 6, 7, 8]
    fifth = [seen.loss for seen in script.seen if seen.step == 5]
    assert fifth[0] == fifth[1], "the steps up to the offending one are done again, bit for bit"
    sixth = [seen.loss for seen in script.seen if seen.step == 6]
    assert sixth[0] != sixth[1]
    assert context.curve("train/epoch")[-1][1] * 64 == 9 * 8, "one step's samples were left out"


def test_a_second_roll_back_from_the_same_checkpoint_goes_one_further_back(
    tmp_path: Path, scripted: Callable[..., Script]
) -> None:
    again = Decision(action="roll-back", signal="loss_spike", reason="r")
    # Steps seen: 1..5, back to 4: 5, back to 2: 3 4 5, back to 4 (saved anew): 5 6.
    scripted(at5=again, at6=again, at9=again)
    context = SpyContext(tmp_path)
    engine.train(row_spec(steps=6, evaluate_every=2), context, maker(RowTask()))
    context.close()
    assert context.starts == [None, 4, 2, 4]
    assert sorted(context.losses()) == [1, 2, 3, 4, 5, 6]


def test_a_roll_back_before_any_checkpoint_skips_the_step(tmp_path: Path, scripted: Callable[..., Script]) -> None:
    scripted(at2=Decision(action="roll-back", signal="loss_spike", reason="r"))
    context, _ = run(tmp_path, steps=3, evaluate_every=3)
    assert [action for _, _, action, _ in context.stabilities] == ["skip"]
    assert [step for step, _ in context.curve("train/loss")] == [1, 2, 3]


def test_stop_ends_with_the_reason_and_saves_nothing(tmp_path: Path, scripted: Callable[..., Script]) -> None:
    scripted(at3=Decision(action="stop", signal="scale_collapse", reason="It is ruined."))
    context = RecordingContext(tmp_path)
    with pytest.raises(UserError, match=r"guard stopped the run at step 3\. It is ruined\."):
        engine.train(row_spec(evaluate_every=50), context, maker(RowTask()))
    assert context.checkpoints == []
    assert context.stabilities[-1][:3] == (3, "scale_collapse", "stop")


def test_pause_asks_for_a_pause_and_ends_with_a_checkpoint(tmp_path: Path, scripted: Callable[..., Script]) -> None:
    scripted(at3=Decision(action="pause", signal="loss_spike", reason="Look at it."))
    context = RecordingContext(tmp_path)
    request = RunLayout(context.run_dir).pause_request
    context.stop_when = request.exists
    task = RowTask()
    engine.train(row_spec(evaluate_every=50), context, maker(task))
    assert request.exists()
    assert [checkpoint.step for checkpoint in context.checkpoints] == [3]
    assert task.outcome is None


def test_a_stop_saves_and_a_resume_repeats_the_uninterrupted_run_bit_for_bit(tmp_path: Path) -> None:
    fields: dict[str, Any] = {"steps": 14, "evaluate_every": 4, "optimizer": {"ema_decay": 0.9, "grad_accum_steps": 2}}
    whole, whole_task = run(tmp_path / "whole", RowTask(dropout=0.3), **fields)
    context = RecordingContext(tmp_path / "stopped")
    context.stop_after(6)
    engine.train(row_spec(**fields), context, maker(RowTask(dropout=0.3)))
    assert context.curve("train/loss")[-1][0] in (6, 7)
    resumed = context.next_attempt()
    task = RowTask(dropout=0.3)
    engine.train(row_spec(**fields), resumed, maker(task))
    assert dict(whole.curve("train/loss")) == dict(context.curve("train/loss")) | dict(resumed.curve("train/loss"))
    assert dict(whole.curve("val/loss")) == dict(context.curve("val/loss")) | dict(resumed.curve("val/loss"))
    assert all(torch.equal(tensor, whole_task.finished[name]) for name, tensor in task.finished.items())
    assert task.outcome is not None
    assert whole_task.outcome is not None
    assert task.outcome.best_step == whole_task.outcome.best_step


def test_the_range_test_finds_a_rate_and_leaves_weights_and_data_as_they_were(tmp_path: Path) -> None:
    fields: dict[str, Any] = {"steps": 4, "optimizer": {"schedule": "constant", "warmup_fraction": 0.0, "lr": 1e-9}}
    context, _ = run(tmp_path / "found", tuning={"find_lr": True}, **fields)
    plain, _ = run(tmp_path / "plain", **fields)
    table = context.tables["Learning rate range test"]
    assert len(table.rows) > 20
    found = context.curve("train/lr")[0][1]
    assert 1e-4 < found < 0.3
    assert context.curve("train/loss")[0][1] == plain.curve("train/loss")[0][1]
    assert any(f"{found:.3g}" in message for _, message in context.logs)


@pytest.mark.parametrize("finder", ["find_lr", "find_micro_batch"])
def test_a_stop_while_something_is_found_by_trying_is_heeded(tmp_path: Path, finder: str) -> None:
    context = RecordingContext(tmp_path)
    context.stop_when = lambda: True
    task = RowTask()
    with pytest.raises(Cancelled):
        engine.train(row_spec(tuning={finder: True}), context, maker(task))
    assert task.losses == 0
    assert context.checkpoints == []


def test_the_range_test_lowers_a_loss_scale_that_is_too_high(tmp_path: Path) -> None:
    """The usual first scale of fp16 overflows; that says nothing about the rate."""
    half: dict[str, Any] = {"precision": "fp16", "compute": {"initial_loss_scale": 2.0**32}}
    context, _ = run(tmp_path, tuning={"find_lr": True}, steps=2, **half)
    assert len(context.tables["Learning rate range test"].rows) > 20
    assert context.curve("train/loss_scale")[0][1] < 2.0**32, "what was learned of the scale is kept"


def test_the_largest_micro_batch_is_that_of_validation_too_and_leaves_running_statistics_alone(tmp_path: Path) -> None:
    task = RowTask(running=True)
    sizes: set[int] = set()
    score = task.score

    def spy(output: torch.Tensor, batch: Batch) -> dict[str, float]:
        sizes.add(len(output))
        return score(output, batch)

    task.score = spy
    fields: dict[str, Any] = {"steps": 2, "micro_batch": 4, "optimizer": {"grad_accum_steps": 2}}
    context, _ = run(tmp_path / "found", task, tuning={"find_micro_batch": True}, **fields)
    assert max(sizes) == 8, "the size found, not the one asked for"
    fields = {"steps": 2, "micro_batch": 8}
    plain, _ = run(tmp_path / "plain", RowTask(running=True), **fields)
    assert context.curve("val/loss") == plain.curve("val/loss")


def test_the_largest_micro_batch_keeps_the_samples_of_a_step(tmp_path: Path) -> None:
    fields: dict[str, Any] = {"steps": 3, "micro_batch": 2, "optimizer": {"grad_accum_steps": 8}}
    context, _ = run(tmp_path / "found", tuning={"find_micro_batch": True}, **fields)
    plain, _ = run(tmp_path / "plain", **fields)
    assert [row[0] for row in context.tables["Micro-batch sizes tried"].rows] == [1, 2, 4, 8, 16]
    losses = [loss for _, loss in plain.curve("train/loss")]
    assert [loss for _, loss in context.curve("train/loss")] == pytest.approx(losses, rel=1e-5)
