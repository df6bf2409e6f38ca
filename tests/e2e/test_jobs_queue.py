"""Runs that wait in the queue of this machine for real: one after the other, snapshots, stops, pauses, kills."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.contracts.errors import UserError
from core.contracts.events import StateEvent
from core.contracts.ids import RunId
from core.contracts.states import RunState
from core.jobs import snapshot
from core.jobs.identity import is_alive
from core.jobs.processes import marked_processes
from core.jobs.queue import entries, move
from core.jobs.records import SupervisorRecord, read_record
from core.plugins.decode import decode_spec
from core.runlog.tail import read_batch
from core.settings.home import Home
from tests.helpers.lab import Lab, opened_lab
from tests.helpers.toy_plugin import install_toy
from tests.helpers.waiting import wait_for

QUEUED = {"queue": True}


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    install_toy(tmp_path / "plugin", monkeypatch)
    with opened_lab(Home(tmp_path / "home")) as found:
        yield found


def state(lab: Lab, run_id: RunId) -> StateEvent | None:
    batch = read_batch(lab.home.run_dir(run_id), {}, 64 << 20)
    found = [event for file in batch.files for event in file.events if isinstance(event, StateEvent)]
    return found[-1] if found else None


def waits(lab: Lab, run_id: RunId, message: str) -> None:
    def is_so() -> bool:
        now = state(lab, run_id)
        return now is not None and now.state is RunState.QUEUED and now.message == message

    wait_for(is_so, f"{run_id} to say {message!r}", 20)


def test_queued_runs_go_one_after_the_other_and_their_order_can_be_changed(lab: Lab) -> None:
    running = lab.launch(endless=True, step_s=0.02, launch=QUEUED)
    lab.at_step(running, 2)
    second = lab.launch(steps=3, launch=QUEUED)
    waits(lab, second, "Waits for the host to be free: next in line.")
    third = lab.launch(steps=3, launch=QUEUED)
    waits(lab, third, "Waits for the host to be free: 1 ahead.")
    assert [(entry.run_id, entry.position) for entry in entries(lab.home.path)] == [
        (running, 0),
        (second, 1),
        (third, 2),
    ]
    move(lab.home.path, third, 1)
    waits(lab, third, "Waits for the host to be free: next in line.")
    lab.launcher.stop(running)
    assert lab.ended(third).state is RunState.SUCCEEDED
    assert lab.ended(second).state is RunState.SUCCEEDED
    ended = [lab.launcher.standing(run_id).ended for run_id in (third, second)]
    assert sorted(ended, key=lambda moment: moment or 0.0) == ended
    wait_for(lambda: entries(lab.home.path) == (), "the queue to be empty")


def test_a_killed_holder_makes_way_and_a_queued_run_can_be_stopped(lab: Lab) -> None:
    running = lab.launch(endless=True, step_s=0.02, launch=QUEUED)
    lab.at_step(running, 2)
    second, third = (lab.launch(steps=3, launch=QUEUED) for _ in range(2))
    waits(lab, third, "Waits for the host to be free: 1 ahead.")
    lab.launcher.stop(second)
    assert lab.ended(second, 10).message == "Stopped on request."
    wait_for(lambda: not marked_processes(second), "no process of the stopped run")
    os.kill(lab.supervisor(running).identity.pid, signal.SIGKILL)
    assert lab.ended(third, 20).state is RunState.SUCCEEDED


def test_devices_are_not_free_while_the_worker_of_a_killed_supervisor_still_works(lab: Lab) -> None:
    running = lab.launch(endless=True, ignore_stop=True, step_s=0.02, launch=QUEUED)
    lab.at_step(running, 2)
    waiting = lab.launch(steps=3, launch=QUEUED)
    waits(lab, waiting, "Waits for the host to be free: next in line.")
    killed = lab.supervisor(running)
    assert killed.worker is not None
    os.kill(killed.identity.pid, signal.SIGKILL)
    wait_for(lambda: [entry.run_id for entry in entries(lab.home.path)] == [waiting], "its ticket to be swept")
    beats = lab.home.run_dir(waiting) / "supervisor.local.json"
    seen = beats.stat().st_mtime
    wait_for(lambda: beats.stat().st_mtime > seen + 3, "the queue to be looked at several times")
    assert is_alive(killed.worker)
    waits(lab, waiting, "Waits for the host to be free: next in line.")
    os.kill(killed.worker.pid, signal.SIGKILL)
    assert lab.ended(waiting, 20).state is RunState.SUCCEEDED


def test_a_run_that_does_not_queue_is_waited_for_though_it_began_beside_a_queued_one(lab: Lab) -> None:
    queued = lab.launch(endless=True, step_s=0.02, launch=QUEUED)
    lab.at_step(queued, 2)
    plain = lab.launch(endless=True, step_s=0.02)
    lab.at_step(plain, 2)
    lab.launcher.stop(queued)
    lab.ended(queued)
    wait_for(lambda: [entry.run_id for entry in entries(lab.home.path)] == [plain], "the run to hold what it uses")
    late = lab.launch(steps=2, launch=QUEUED)
    waits(lab, late, "Waits for the host to be free: next in line.")
    lab.launcher.stop(plain)
    assert lab.ended(late).state is RunState.SUCCEEDED


def test_a_run_that_does_not_queue_does_not_wait_and_is_waited_for(lab: Lab) -> None:
    queued = lab.launch(endless=True, step_s=0.02, launch=QUEUED)
    lab.at_step(queued, 2)
    plain = lab.launch(endless=True, step_s=0.02)
    lab.at_step(plain, 2)
    other = lab.launch(endless=True, step_s=0.02)
    lab.at_step(other, 2)
    lab.launcher.stop(queued)
    lab.ended(queued)
    sharing = lab.launch(endless=True, step_s=0.02)
    lab.at_step(sharing, 2)
    late = lab.launch(steps=2, launch=QUEUED)
    waits(lab, late, "Waits for the host to be free: next in line.")
    for run_id in (plain, other, sharing):
        lab.launcher.stop(run_id)
    assert lab.ended(late).state is RunState.SUCCEEDED


def test_a_paused_run_frees_its_devices_and_queues_again(lab: Lab) -> None:
    whole = lab.launch(steps=60)
    lab.ended(whole)
    first = lab.launch(steps=60, step_s=0.02, checkpoint_every=7, launch=QUEUED)
    lab.at_step(first, 5)
    second = lab.launch(endless=True, step_s=0.02, launch=QUEUED)
    waits(lab, second, "Waits for the host to be free: next in line.")
    lab.launcher.pause(first)
    lab.at_step(second, 2)
    paused = state(lab, first)
    assert paused is not None
    assert paused.state is RunState.PAUSED
    supervisor = read_record(lab.layout(first).supervisor(), SupervisorRecord)
    assert supervisor is not None
    assert marked_processes(first) == {supervisor.identity.pid}
    lab.launcher.proceed(first)
    waits(lab, first, "Waits for the host to be free: next in line.")
    lab.launcher.stop(second)
    assert lab.ended(first).state is RunState.SUCCEEDED
    assert lab.steps(first) == lab.steps(whole)
    with pytest.raises(UserError, match="already ended"):
        lab.launcher.pause(first)


def test_the_code_of_a_queued_run_is_kept_as_it_was(lab: Lab, tmp_path: Path) -> None:
    project = tmp_path / "project with spaces"
    (project / ".git").mkdir(parents=True)
    (project / "part.py").write_text("WORD = 'before'\n")
    (project / "train.py").write_text("import part, sys\nprint('said', part.WORD, sys.argv[1])\n")
    running = lab.launch(endless=True, step_s=0.02, launch=QUEUED)
    lab.at_step(running, 2)
    script = {"kind": "train.script", "script": str(project / "train.py"), "args": [f"--data={project}/x"]}
    run_id = lab.launcher.launch(decode_spec({**script, "launch": QUEUED}))
    lab.launched.append(run_id)
    (project / "part.py").write_text("WORD = 'after'\n")
    lab.launcher.stop(running)
    assert lab.ended(run_id).state is RunState.SUCCEEDED
    code = lab.home.run_dir(run_id) / "code"
    assert f"said before --data={code}/x" in lab.layout(run_id).stdout().read_text()
    assert not (code / ".git").exists()


def test_code_that_is_too_large_to_keep_is_refused_before_anything_is_made(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "train.py").write_text("print(1)\n")
    monkeypatch.setattr(snapshot, "LIMIT_BYTES", 4)
    spec = decode_spec({"kind": "train.script", "script": str(tmp_path / "project" / "train.py"), "launch": QUEUED})
    with pytest.raises(UserError, match="too large"):
        lab.launcher.launch(spec)
    assert list(lab.home.runs_dir.iterdir()) == []
