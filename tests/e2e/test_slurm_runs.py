"""Runs as jobs of a real Slurm with two nodes: ends, limits, lost nodes, requeues, arrays."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.contracts.events import AttemptEvent, CheckpointEvent, MetricEvent
from core.contracts.placement import Placement
from core.contracts.states import RunState
from core.jobs.reconcile import examine
from core.jobs.records import read_record
from core.settings.resources import examples_dir
from tests.helpers.slurm_lab import SlurmLab, running_slurm
from tests.helpers.slurm_runs import SlurmRuns
from tests.helpers.toy_plugin import install_toy
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.timeout(240)
HOSTILE = "home with 'quotes' \"and\" $(touch hit)`touch hit` 100% ünï #SBATCH"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmLab]:
    with running_slurm(tmp_path_factory.mktemp("slurm") / "lab") as running:
        yield running


@pytest.fixture
def runs(lab: SlurmLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlurmRuns]:
    install_toy(tmp_path / "plugin", monkeypatch)
    monkeypatch.setenv("SLURM_CONF", str(lab.conf))
    yield SlurmRuns(lab, tmp_path / HOSTILE, sys.executable)
    lab.forget_jobs()


def launch(nodes: int = 2, **slurm: object) -> dict[str, object]:
    given = {"cluster": "local", "nodes": nodes, "time_limit": "5", "memory": "200M", **slurm}
    return {"stop_grace_s": 3.0, "peer_limit_s": 5.0, "slurm": given}


def test_a_run_on_two_nodes_succeeds_in_a_hostile_folder(runs: SlurmRuns, tmp_path: Path) -> None:
    job_id = runs.submit("run", steps=8, launch=launch(), name="x'\n$(touch hit)")
    assert runs.ended(job_id).slurm_state == "COMPLETED", runs.told("run")
    assert runs.verdict("run").state is RunState.SUCCEEDED
    placement = read_record(runs.layout("run").placement, Placement)
    assert placement is not None
    assert [placed.node for placed in placement.nodes] == ["node0", "node1"]
    assert (placement.engine, placement.job_id, placement.attempt) == ("slurm", job_id, 1)
    assert {placed.address for placed in placement.nodes} == {"127.0.0.1"}
    for node in ("node0", "node1"):
        assert "toy starts at" in runs.layout("run").stdout(node).read_text()
        assert examine(runs.layout("run").run_dir, node).state is RunState.SUCCEEDED
    assert runs.states("run") == [RunState.PREPARING, RunState.RUNNING, RunState.SUCCEEDED]
    assert list(runs.steps("run")) == list(range(1, 9))
    assert not runs.left("run")
    assert not list(tmp_path.rglob("hit"))


def test_a_failure_ends_the_job_with_its_sentence_and_no_requeue(runs: SlurmRuns) -> None:
    job_id = runs.submit("run", steps=8, raise_at=3, launch=launch(requeues=2))
    found = runs.ended(job_id)
    assert (found.slurm_state, found.code) == ("FAILED", 1), (runs.verdict("run"), runs.told("run"))
    assert "The toy was told to fail." in runs.verdict("run").message
    assert runs.verdict("run").hint == "Tell it not to."
    assert not runs.left("run")


def test_a_request_stops_all_nodes_with_a_checkpoint(runs: SlurmRuns) -> None:
    job_id = runs.submit("run", steps=20, hold_at=5, launch=launch())
    runs.at_step("run", 5)
    assert examine(runs.layout("run").run_dir, "node1").state is None, "its processes are not looked for here"
    runs.layout("run").stop_request.write_text("1.0\n")
    found = runs.ended(job_id)
    assert (found.run_state, found.code) == (RunState.FAILED, 75)
    assert (runs.verdict("run").state, runs.verdict("run").message) == (RunState.STOPPED, "Stopped on request.")
    assert any(isinstance(event, CheckpointEvent) and event.step == 5 for event in runs.events("run"))
    assert not runs.left("run")


def test_scancel_leaves_no_process_and_a_checkpoint(runs: SlurmRuns) -> None:
    job_id = runs.submit("run", steps=20, hold_at=5, launch=launch())
    runs.at_step("run", 5)
    runs.cluster.cancel(job_id)
    assert runs.ended(job_id).run_state is RunState.STOPPED
    assert not runs.left("run")
    assert runs.verdict("run").state is RunState.STOPPED
    assert "Slurm ends the job" in runs.verdict("run").message
    assert any(isinstance(event, CheckpointEvent) and event.step == 5 for event in runs.events("run"))


def test_a_run_that_ignores_everything_is_gone_after_scancel(runs: SlurmRuns) -> None:
    job_id = runs.submit("run", endless=True, ignore_stop=True, orphan=True, step_s=0.02, launch=launch())
    runs.at_step("run", 5)
    runs.cluster.cancel(job_id)
    assert runs.ended(job_id).run_state is RunState.STOPPED
    wait_for(lambda: not runs.left("run"), "no process of the run", 20)


def test_the_time_limit_saves_a_checkpoint_and_the_requeued_job_goes_on(runs: SlurmRuns) -> None:
    whole = runs.submit("whole", steps=20, launch=launch())
    runs.ended(whole)
    # Slurm looks every half minute, and warns who would be too late at its next look.
    job_id = runs.submit("run", steps=20, hold_at=9, launch=launch(time_limit="1", warn_s=20, requeues=1))
    runs.at_step("run", 9)
    runs.waiting(job_id)
    first = runs.exit_record("run", attempt=1)
    assert first is not None
    assert (first.state, first.message) == (RunState.STOPPED, "The time limit of the job is near.")
    assert runs.exit_record("run") is None, "a run that will go on has not ended"
    assert runs.states("run")[-1] is RunState.QUEUED
    assert runs.ended(job_id).run_state is RunState.SUCCEEDED, runs.told("run")
    assert (runs.verdict("run").state, runs.verdict("run").attempt) == (RunState.SUCCEEDED, 2)
    resumed = [event for event in runs.head_events("run") if isinstance(event, AttemptEvent)][-1]
    assert (resumed.attempt, resumed.resumed_from_step) == (2, 9)
    assert runs.steps("run") == runs.steps("whole")


@pytest.mark.parametrize("fault", ["killed", "frozen"])
def test_a_job_whose_node_is_lost_goes_on_after_a_requeue(runs: SlurmRuns, lab: SlurmLab, fault: str) -> None:
    job_id = runs.submit("run", steps=20, hold_at=9, launch=launch(requeues=2))
    runs.at_step("run", 9)
    if fault == "killed":
        lab.kill_node("n2")
    else:
        lab.freeze_node("n2")
    runs.waiting(job_id)
    assert not runs.left("run") or fault == "frozen", "the other node's part is ended too"
    runs.cluster.hold(job_id)
    if fault == "frozen":
        lab.kill_node("n2")
    lab.start_node("n2")
    lab.wait_quiet()
    runs.cluster.release(job_id)
    assert runs.ended(job_id).run_state is RunState.SUCCEEDED, runs.told("run")
    assert (runs.verdict("run").state, runs.verdict("run").attempt) == (RunState.SUCCEEDED, 2)
    assert list(runs.steps("run")) == list(range(1, 21))
    assert not runs.left("run")


def test_a_lost_node_without_requeues_is_named(runs: SlurmRuns, lab: SlurmLab) -> None:
    job_id = runs.submit("run", steps=20, hold_at=9, launch=launch())
    runs.at_step("run", 9)
    lab.kill_node("n2")
    found = runs.ended(job_id)
    assert found.run_state is RunState.FAILED
    assert not runs.left("run")
    record = runs.exit_record("run")
    assert record is not None, f"the head outlived the loss: {found}"
    assert record.state is RunState.FAILED
    assert "host n2" in record.message


def test_a_sweep_is_one_array(runs: SlurmRuns) -> None:
    ids = ["sweep-0", "sweep-1", "sweep-2"]
    specs = [runs.make(run_id, steps=3 + number, launch=launch(nodes=1)) for number, run_id in enumerate(ids)]
    jobs = runs.cluster.submit_array(specs[0], ids)
    for number, run_id in enumerate(ids):
        assert runs.ended(jobs[run_id]).run_state is RunState.SUCCEEDED, runs.told(run_id)
        assert len(runs.steps(run_id)) == 3 + number


def test_real_torchrun_on_two_nodes_with_two_ranks_each(runs: SlurmRuns) -> None:
    job_id = runs.submit(
        "ddp",
        kind="train.script",
        script=str(examples_dir() / "scripts" / "ddp_digits.py"),
        args=["--steps", "6", "--checkpoints", "{checkpoints}"],
        launcher="torchrun",
        processes=2,
        device="cpu",
        launch={**launch(memory="1500M"), "threads": 1},
    )
    assert runs.ended(job_id, 200).run_state is RunState.SUCCEEDED, runs.told("ddp")
    assert runs.verdict("ddp").state is RunState.SUCCEEDED
    said = [runs.layout("ddp").stdout(node).read_text() for node in ("node0", "node1")]
    assert {rank for rank in range(4) if f"rank {rank} of 4 begins" in "".join(said)} == {0, 1, 2, 3}
    assert all(text.count(" of 4 begins") == 2 for text in said)
    losses = [
        e.values["train/loss"] for e in runs.events("ddp") if isinstance(e, MetricEvent) and "train/loss" in e.values
    ]
    assert len(losses) == 6
    assert not runs.left("ddp")
