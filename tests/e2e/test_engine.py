"""The engine's promise, under real supervisors and torchrun: four ranks train a language model on real text, are killed, and
the training goes on in other layouts to the loss of a run that nobody disturbed.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.contracts.events import AttemptEvent, Event, MetricEvent
from core.contracts.ids import RunId
from core.contracts.states import RunState
from core.jobs.processes import descendants, marked_processes
from core.plugins.decode import decode_spec
from core.runlog.tail import read_batch
from core.settings.home import Home
from tests.helpers.lab import Lab, opened_lab
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.timeout(900)
LIMIT_S = 600.0
STEPS = 24
DATA_RANKS = 2
TWO_BY_TWO = {"processes": 4, "tensor": 2}
SPEC: dict[str, Any] = {
    "kind": "train.language",
    "steps": STEPS,
    "micro_batch": 4,
    "global_batch": 16,
    "evaluate_every": STEPS,
    "device": "cpu",
    "data": {"data": "stdlib", "max_bytes": 400_000},
    "model": {"layers": 4, "hidden": 32, "heads": 4, "key_value_heads": 2, "context": 64},
    "checkpoints": {"every_steps": 4},
    "launch": {"threads": 1},
}


def spec_of(parallel: dict[str, Any], accumulation: int, **more: Any) -> dict[str, Any]:
    return {**SPEC, "parallel": parallel, "optimizer": {"grad_accum_steps": accumulation, "lr": 0.01}, **more}


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with opened_lab(Home(tmp_path / "home")) as found:
        yield found


def launch(lab: Lab, spec: dict[str, Any]) -> RunId:
    run_id = lab.launcher.launch(decode_spec(spec))
    lab.launched.append(run_id)
    return run_id


def events(lab: Lab, run_id: RunId) -> list[Event]:
    batch = read_batch(lab.home.run_dir(run_id), {}, 64 << 20)
    return [event for file in batch.files for event in file.events]


def losses(lab: Lab, run_id: RunId) -> dict[int, float]:
    """Return the loss of every step; a step done again counts as it was done last."""
    metrics = [event for event in events(lab, run_id) if isinstance(event, MetricEvent)]
    return {event.step: float(event.values["train/loss"]) for event in metrics if "train/loss" in event.values}


def finish(lab: Lab, run_id: RunId) -> dict[int, float]:
    ended = lab.ended(run_id, LIMIT_S)
    assert ended.state is RunState.SUCCEEDED, lab.layout(run_id).stdout().read_text()[-4000:]
    return losses(lab, run_id)


def rank_pids(lab: Lab, run_id: RunId) -> list[int]:
    worker = lab.supervisor(run_id).worker
    assert worker is not None
    launcher = [pid for pid in descendants(worker.pid) if descendants(pid)]
    return sorted(pid for pid in descendants(worker.pid) if pid not in launcher)


def test_a_2x2_job_is_killed_and_ends_at_the_same_loss_in_other_layouts(lab: Lab) -> None:
    whole = finish(lab, launch(lab, spec_of({"processes": 1}, accumulation=4)))
    assert sorted(whole) == list(range(1, STEPS + 1))
    assert whole[STEPS] < 0.8 * whole[1]

    killed = launch(lab, spec_of(TWO_BY_TWO, accumulation=2))
    wait_for(lambda: max(losses(lab, killed), default=0) >= 10, "step 10", LIMIT_S)
    os.kill(rank_pids(lab, killed)[-1], signal.SIGKILL)
    assert lab.ended(killed, LIMIT_S).state is RunState.FAILED
    wait_for(lambda: not marked_processes(killed), "every process to be gone")

    # The same run goes on in its own layout ...
    assert lab.launcher.resume(killed) == 2
    resumed = finish(lab, killed)
    attempts = [event for event in events(lab, killed) if isinstance(event, AttemptEvent) and event.attempt == 2]
    assert {event.resumed_from_step for event in attempts} <= {4, 8}
    assert resumed == pytest.approx(whole, rel=1e-4)

    # ... and a checkpoint of it in others: two stages of a pipeline, and one process.
    folder = min(lab.layout(killed).checkpoints.glob("step-*"))
    start = {"every_steps": 4, "start_from": str(folder)}
    pipeline = {"processes": 2, "pipeline": 2}
    staged = finish(lab, launch(lab, spec_of(pipeline, accumulation=4, checkpoints=start)))
    single = finish(lab, launch(lab, spec_of({"processes": 1}, accumulation=4, checkpoints=start)))
    first = int(folder.name.removeprefix("step-")) + 1
    assert min(staged) == min(single) == first
    expected = {step: loss for step, loss in whole.items() if step >= first}
    assert staged == pytest.approx(expected, rel=1e-4)
    assert single == pytest.approx(expected, rel=1e-4)


def test_the_sentence_of_a_failed_run_names_the_rank(lab: Lab) -> None:
    run_id = launch(lab, spec_of({"processes": 2}, accumulation=2))
    wait_for(lambda: max(losses(lab, run_id), default=0) >= 2, "step 2", LIMIT_S)
    victim = rank_pids(lab, run_id)[1]
    os.kill(victim, signal.SIGKILL)
    ended = lab.ended(run_id, LIMIT_S)
    assert ended.state is RunState.FAILED
    assert "Rank 1 of the training was ended by SIGKILL" in ended.message


def test_a_stop_leaves_a_checkpoint_of_all_ranks_and_no_process(lab: Lab) -> None:
    run_id = launch(lab, spec_of({"processes": 2, "sharding": "zero3"}, accumulation=2, steps=500))
    wait_for(lambda: max(losses(lab, run_id), default=0) >= 3, "step 3", LIMIT_S)
    lab.launcher.stop(run_id)
    assert lab.ended(run_id, LIMIT_S).state is RunState.STOPPED
    wait_for(lambda: not marked_processes(run_id), "every process to be gone")
    last = max(losses(lab, run_id))
    newest = max(int(folder.name.removeprefix("step-")) for folder in lab.layout(run_id).checkpoints.glob("step-*"))
    assert newest == last
