"""Runs under real supervisors and workers: ends, kills, stops, resumes, leftovers."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from core.contracts.errors import EnvironmentProblem, UserError
from core.contracts.events import AttemptEvent, CheckpointEvent
from core.contracts.ids import RunId
from core.contracts.states import RunState
from core.jobs.context import WorkerContext
from core.jobs.processes import marked_processes
from core.jobs.records import write_record
from core.jobs.starting import start_supervisor
from core.runlog.tail import read_batch
from core.settings.home import Home
from tests.helpers.lab import Lab, opened_lab
from tests.helpers.toy_plugin import install_toy
from tests.helpers.waiting import wait_for


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    install_toy(tmp_path / "plugin", monkeypatch)
    with opened_lab(Home(tmp_path / "home with 'quotes' \"and\" ünïcode\nand a newline")) as found:
        yield found


def test_a_run_succeeds_and_leaves_its_record_metrics_artifact_and_no_process(lab: Lab) -> None:
    run_id = lab.launch(steps=6)
    standing = lab.ended(run_id)
    assert (standing.state, standing.leftovers) == (RunState.SUCCEEDED, ())
    assert [step for step, _ in lab.steps(run_id)] == [1, 2, 3, 4, 5, 6]
    assert (lab.layout(run_id).artifacts / "value.txt").exists()
    assert "toy starts at 0" in lab.layout(run_id).stdout().read_text()
    assert msgspec.json.decode(lab.layout(run_id).environment.read_bytes())["packages"]["numpy"]
    wait_for(lambda: not marked_processes(run_id), "no process of the run")


@pytest.mark.parametrize(
    ("fault", "message", "hint"),
    [
        ({"raise_at": 2}, "The toy was told to fail.", "Tell it not to."),
        ({"bug_at": 2}, "ZeroDivisionError: toy bug", "traceback"),
        ({"kill_self_at": 3}, "killed by signal SIGKILL", "Resume"),
        ({"no_space_at": 2}, "is full", "Free space"),
    ],
)
def test_a_failure_ends_in_one_sentence_with_a_remedy(lab: Lab, fault: dict[str, int], message: str, hint: str) -> None:
    standing = lab.ended(lab.launch(**fault))
    assert standing.state is RunState.FAILED
    assert message in standing.message
    assert hint in standing.hint


def test_stop_saves_a_checkpoint_and_resume_continues_the_same_curve(lab: Lab) -> None:
    whole = lab.launch(steps=40)
    lab.ended(whole)
    run_id = lab.launch(steps=40, hold_at=10, checkpoint_every=7)
    lab.at_step(run_id, 10)
    lab.launcher.stop(run_id)
    stopped = lab.ended(run_id)
    assert stopped.state is RunState.STOPPED
    assert lab.steps(run_id)[-1][0] == 10
    assert lab.launcher.resume(run_id) == 2
    assert lab.ended(run_id).state is RunState.SUCCEEDED
    assert lab.steps(run_id) == lab.steps(whole)


def test_kill_9_of_the_worker_resumes_from_the_last_verified_checkpoint(lab: Lab) -> None:
    whole = lab.launch(steps=30)
    lab.ended(whole)
    run_id = lab.launch(steps=30, hold_at=12, checkpoint_every=5)
    lab.at_step(run_id, 12)
    worker = lab.supervisor(run_id).worker
    assert worker is not None
    os.kill(worker.pid, signal.SIGKILL)
    assert lab.ended(run_id, 10).state is RunState.FAILED
    newest = max(lab.layout(run_id).checkpoints.glob("step-*"))
    (newest / "value").write_text("0.123")
    lab.launcher.resume(run_id)
    assert lab.ended(run_id).state is RunState.SUCCEEDED
    batch = read_batch(lab.home.run_dir(run_id), {}, 64 << 20)
    events = [event for file in batch.files for event in file.events]
    second = [e for e in events if isinstance(e, AttemptEvent)][-1]
    older = [e.step for e in events if isinstance(e, CheckpointEvent)]
    assert second.attempt == 2
    assert second.resumed_from_step in older
    assert second.resumed_from_step != int(newest.name.removeprefix("step-")), "the damaged checkpoint was passed over"
    assert dict(lab.steps(run_id)) == dict(lab.steps(whole))


def test_kill_9_of_the_supervisor_is_lost_within_ten_seconds_without_leftovers(lab: Lab) -> None:
    run_id = lab.launch(endless=True, step_s=0.02)
    lab.at_step(run_id, 3)
    os.kill(lab.supervisor(run_id).identity.pid, signal.SIGKILL)
    standing = lab.ended(run_id, 10)
    assert standing.state is RunState.LOST
    assert "supervisor was killed" in standing.message
    assert not marked_processes(run_id)


def test_kill_9_of_both_is_lost(lab: Lab) -> None:
    run_id = lab.launch(endless=True, step_s=0.02)
    lab.at_step(run_id, 3)
    record = lab.supervisor(run_id)
    assert record.worker is not None
    os.kill(record.identity.pid, signal.SIGKILL)
    os.kill(record.worker.pid, signal.SIGKILL)
    assert lab.ended(run_id, 10).state is RunState.LOST


def test_a_worker_that_ignores_stop_is_killed_after_the_grace_with_what_it_left(lab: Lab) -> None:
    run_id = lab.launch(endless=True, ignore_stop=True, orphan=True, step_s=0.02, launch={"stop_grace_s": 0.5})
    lab.at_step(run_id, 3)
    assert len(marked_processes(run_id)) >= 3, "supervisor, worker and orphan"
    lab.launcher.stop(run_id)
    standing = lab.ended(run_id, 10)
    assert standing.state is RunState.STOPPED
    assert "was killed" in standing.message
    wait_for(lambda: not marked_processes(run_id), "no process of the run")


def test_an_orphan_of_a_finished_worker_is_ended_with_the_run(lab: Lab) -> None:
    run_id = lab.launch(steps=2, orphan=True)
    assert lab.ended(run_id).state is RunState.SUCCEEDED
    wait_for(lambda: not marked_processes(run_id), "no process of the run")


def test_leftovers_of_a_killed_supervisor_are_reported_and_stop_ends_them(lab: Lab) -> None:
    run_id = lab.launch(endless=True, ignore_stop=True, step_s=0.02)
    lab.at_step(run_id, 3)
    os.kill(lab.supervisor(run_id).identity.pid, signal.SIGKILL)
    standing = lab.ended(run_id, 10)
    assert standing.state is RunState.LOST
    assert len(standing.leftovers) == 1
    lab.launcher.stop(run_id)
    assert not marked_processes(run_id)


def test_a_reboot_is_told_from_a_kill(lab: Lab) -> None:
    run_id = lab.launch(endless=True, step_s=0.02)
    record = lab.supervisor(run_id)
    lab.at_step(run_id, 1)
    os.kill(record.identity.pid, signal.SIGKILL)
    assert record.worker is not None
    os.kill(record.worker.pid, signal.SIGKILL)
    before = msgspec.structs.replace(record.identity, boot_id="0f0e0d0c-before-the-restart")
    write_record(lab.layout(run_id).supervisor(), msgspec.structs.replace(record, identity=before))
    standing = lab.ended(run_id, 10)
    assert standing.state is RunState.LOST
    assert "machine was restarted" in standing.message


def test_a_frozen_supervisor_is_silent_not_lost(lab: Lab) -> None:
    run_id = lab.launch(endless=True, step_s=0.02)
    record = lab.supervisor(run_id)
    os.kill(record.identity.pid, signal.SIGSTOP)
    try:
        os.utime(lab.layout(run_id).supervisor(), (1, 1))
        standing = lab.launcher.standing(run_id)
        assert standing.state is None
        assert standing.silent_since == 1
    finally:
        os.kill(record.identity.pid, signal.SIGCONT)


def test_a_second_supervisor_of_the_same_run_gives_way(lab: Lab) -> None:
    run_id = lab.launch(endless=True, step_s=0.02)
    record = lab.supervisor(run_id)
    start_supervisor(lab.home.run_dir(run_id), 1)
    log = lab.home.run_dir(run_id) / "supervisor.local.log"
    wait_for(lambda: "Another supervisor" in log.read_text(), "the second one to give way")
    assert lab.supervisor(run_id) == record


def test_only_an_ended_run_can_be_resumed_and_only_an_open_one_stopped(lab: Lab) -> None:
    run_id = lab.launch(steps=1)
    assert lab.ended(run_id).state is RunState.SUCCEEDED
    with pytest.raises(UserError, match="succeeded and cannot be resumed"):
        lab.launcher.resume(run_id)
    with pytest.raises(UserError, match="already ended"):
        lab.launcher.stop(run_id)
    with pytest.raises(UserError, match="There is no run"):
        lab.launcher.stop(RunId("nonsense"))


def test_of_two_who_resume_at_once_one_does(lab: Lab) -> None:
    run_id = lab.launch(steps=1, raise_at=1)
    lab.ended(run_id)

    def resume(_: int) -> str:
        try:
            return str(lab.launcher.resume(run_id))
        except UserError as error:
            return error.message

    with ThreadPoolExecutor(3) as pool:
        said = sorted(pool.map(resume, range(3)))
    assert said[0] == "2"
    assert all("cannot be resumed" in text for text in said[1:]), said
    lab.ended(run_id)
    assert "ended" not in (lab.layout(run_id).run_dir / "supervisor.local.log").read_text()


def test_what_the_disk_refuses_is_said_in_a_sentence(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = lab.launch(steps=1, raise_at=1)
    lab.ended(run_id)
    monkeypatch.setattr("core.jobs.starting._START_LIMIT_S", 0.0)
    with pytest.raises(EnvironmentProblem, match="did not start within"):
        lab.launcher.resume(run_id)
    shutil.rmtree(lab.layout(run_id).control)
    lab.layout(run_id).control.write_text("in the way")
    with pytest.raises(EnvironmentProblem, match="cannot be written"):
        lab.launcher.resume(run_id)


def test_a_damaged_checkpoint_takes_the_place_of_no_good_one(tmp_path: Path) -> None:
    run_dir = tmp_path / "runs" / "20260101-000000-toy-abcdef"
    run_dir.mkdir(parents=True)
    context = WorkerContext(tmp_path, run_dir, 1)

    def save(step: int) -> Path:
        (context.new_checkpoint(step) / "value").write_text(str(step))
        return Path(context.commit_checkpoint(step, keep_last=1).path)

    (save(30) / "value").write_text("damaged")
    assert context.latest_checkpoint() is None
    save(10)
    latest = context.latest_checkpoint()
    assert latest is not None
    assert latest.step == 10
    assert [path.name for path in (run_dir / "checkpoints").iterdir()] == ["step-0000000010"]
    context.close()
