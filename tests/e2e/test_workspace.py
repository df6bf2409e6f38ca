"""The workspace: following live runs from several readers, with no point lost or doubled."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.contracts.errors import EnvironmentProblem, InvalidSpec, UserError
from core.contracts.ids import RunId
from core.contracts.runs import RunQuery, RunSummary, RunUpdate
from core.contracts.states import RunState
from core.history.history import History
from core.jobs import starting
from core.jobs.launcher import Launcher
from core.jobs.processes import marked_processes
from core.jobs.records import SupervisorRecord, read_record
from core.runlog.layout import RunLayout
from core.workspace.workspace import Workspace
from tests.helpers.toy_plugin import install_toy
from tests.helpers.waiting import wait_for


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    install_toy(tmp_path / "plugin", monkeypatch)
    opened = Workspace.open(tmp_path / "home")
    yield opened
    for path in opened.home.runs_dir.iterdir():
        for pid in marked_processes(path.name):
            os.kill(pid, signal.SIGKILL)
    opened.close()


class Listener:
    """Collects what a follower hands out."""

    def __init__(self) -> None:
        self.updates: list[RunUpdate] = []
        self._lock = threading.Lock()

    def __call__(self, update: RunUpdate) -> None:
        with self._lock:
            self.updates.append(update)

    def steps(self, run_id: RunId) -> list[int]:
        with self._lock:
            updates = [update for update in self.updates if update.summary.run_id == run_id]
        return [
            int(step) for update in updates if "toy/value" in update.points for step in update.points["toy/value"].step
        ]

    def ended(self, run_id: RunId) -> RunUpdate | None:
        with self._lock:
            found = [u for u in self.updates if u.summary.run_id == run_id and u.summary.state.is_terminal]
        return found[-1] if found else None


def test_two_followers_each_get_every_point_once(workspace: Workspace) -> None:
    other = Workspace.open(workspace.home.path)
    listeners = Listener(), Listener()
    followers = [ws.follow(listener) for ws, listener in zip((workspace, other), listeners, strict=True)]
    run_id = workspace.launch("test.toy", {"steps": 60, "step_s": 0.02})
    for follower in followers:
        follower.watch(run_id)
    for listener in listeners:
        wait_for(lambda listener=listener: listener.ended(run_id), "the end of the run")
    for follower in followers:
        follower.close()
    other.close()
    stored = [int(step) for step in workspace.curve(run_id, "toy/value").step]
    assert stored == list(range(1, 61))
    for listener in listeners:
        missed = [step for step in stored if step not in listener.steps(run_id)]
        assert listener.steps(run_id) == sorted(set(listener.steps(run_id))), "in order and once"
        assert missed == list(range(1, len(missed) + 1)), "only what was stored before the watch may be missing"


def test_a_late_follower_backfills_and_goes_on_live(workspace: Workspace) -> None:
    run_id = workspace.launch("test.toy", {"endless": True, "step_s": 0.02})
    wait_for(lambda: (workspace.sync() or workspace.summary(run_id)).step or None, "the first step")
    listener = Listener()
    follower = workspace.follow(listener)
    follower.watch(run_id)
    stored = workspace.curve(run_id, "toy/value")
    wait_for(lambda: listener.steps(run_id), "live points")
    workspace.stop(run_id)
    ended = wait_for(lambda: listener.ended(run_id), "the end")
    follower.close()
    assert ended.summary.state is RunState.STOPPED
    seen = {int(step) for step in stored.step} | set(listener.steps(run_id))
    assert seen == set(range(1, max(seen) + 1)), "stored and live points leave no gap"


def test_resume_is_followed_and_restarts_the_curve_where_it_must(workspace: Workspace) -> None:
    listener = Listener()
    follower = workspace.follow(listener)
    run_id = workspace.launch("test.toy", {"steps": 50, "hold_at": 15, "checkpoint_every": 10})
    follower.watch(run_id)
    wait_for(lambda: max(listener.steps(run_id), default=0) > 14, "step 15")
    record = read_record(RunLayout(workspace.home.run_dir(run_id)).supervisor(), SupervisorRecord)
    assert record is not None
    assert record.worker is not None
    os.kill(record.worker.pid, signal.SIGKILL)
    wait_for(lambda: listener.ended(run_id), "the failure")
    listener.updates.clear()
    workspace.resume(run_id)
    final = wait_for(lambda: listener.ended(run_id), "the end")
    follower.close()
    assert final.summary.state is RunState.SUCCEEDED
    assert final.summary.attempt == 2
    assert any(update.truncated_at is not None and update.truncated_at % 10 == 1 for update in listener.updates)
    assert [int(step) for step in workspace.curve(run_id, "toy/value").step] == list(range(1, 51))
    assert [marker.kind for marker in workspace.detail(run_id).markers].count("restart") == 1


def test_lost_runs_are_concluded_at_the_next_start(workspace: Workspace) -> None:
    run_id = workspace.launch("test.toy", {"endless": True, "step_s": 0.02})
    layout = RunLayout(workspace.home.run_dir(run_id))
    record = wait_for(lambda: read_record(layout.supervisor(), SupervisorRecord), "the supervisor")
    wait_for(lambda: layout.events("worker").exists(), "the worker")
    for pid in {record.identity.pid, *marked_processes(run_id)}:
        os.kill(pid, signal.SIGKILL)
    workspace.close()
    again = Workspace.open(workspace.home.path)
    again.sync()
    summary = again.summary(run_id)
    again.close()
    assert summary.state is RunState.LOST
    assert summary.hint.startswith("Resume")


def test_a_directory_copied_in_appears_and_one_taken_away_disappears(workspace: Workspace, tmp_path: Path) -> None:
    run_id = workspace.launch("test.toy", {"steps": 3})
    workspace.wait(run_id)
    other = Workspace.open(tmp_path / "second home")
    shutil.copytree(workspace.home.run_dir(run_id), other.home.run_dir(run_id))
    other.sync()
    assert other.summary(run_id).state is RunState.SUCCEEDED
    assert other.runs(RunQuery()).total == 1
    other.close()


def test_a_review_lists_all_problems_and_shows_what_equals_the_launch(workspace: Workspace) -> None:
    review = workspace.review("test.toy", {"steps": 0, "step_s": -1.0})
    assert {problem.field for problem in review.problems} == {"steps", "step_s"}
    review = workspace.review("test.toy", {"steps": 2})
    assert review.problems == ()
    assert workspace.values_of(review.toml)[1]["steps"] == 2
    with pytest.raises(InvalidSpec):
        workspace.launch("test.toy", {"steps": 0})


def test_a_run_owned_by_another_stops_with_it(workspace: Workspace) -> None:
    owner = workspace.launch("test.toy", {"endless": True, "step_s": 0.02})
    layout = RunLayout(workspace.home.run_dir(owner))
    record = wait_for(lambda: read_record(layout.supervisor(), SupervisorRecord), "the owner's supervisor")
    from core.plugins.decode import decode_spec

    spec = decode_spec({"kind": "test.toy", "endless": True, "step_s": 0.02})
    child = workspace.launch_spec(spec, parent=owner, guardian=layout.run_dir)
    wait_for(lambda: (workspace.sync() or workspace.summary(child)).step or None, "the child's first step")
    os.kill(record.identity.pid, signal.SIGKILL)
    ended = workspace.wait(child)
    assert ended.state is RunState.STOPPED
    assert "run that started this one has ended" in ended.message
    assert ended.parent == owner


def test_find_wants_one_match(workspace: Workspace) -> None:
    ids = [workspace.launch("test.toy", {"steps": 1}) for _ in range(2)]
    for run_id in ids:
        workspace.wait(run_id)
    assert workspace.find(ids[0][-6:]) == ids[0]
    with pytest.raises(UserError, match="2 runs match"):
        workspace.find(ids[0][:8])


@pytest.mark.parametrize("wrong", ["", ".", "..", "../runs", "20260101-000000-none-abcdef"])
def test_restoring_what_is_no_run_in_the_bin_touches_nothing(workspace: Workspace, wrong: str) -> None:
    kept = workspace.home.runs_dir / "20260101-000000-kept-abcdef"
    kept.mkdir()
    with pytest.raises(UserError, match="The bin holds no run"):
        workspace.restore([RunId(wrong)])
    assert kept.is_dir()


def test_a_restore_takes_nobodys_place(workspace: Workspace) -> None:
    run_id = workspace.launch("test.toy", {"steps": 1})
    workspace.wait(run_id)
    workspace.delete([run_id])
    copied = shutil.copytree(workspace.home.bin_dir / run_id, workspace.home.run_dir(run_id))
    (copied / "note").touch()
    with pytest.raises(UserError, match="already"):
        workspace.restore([run_id])
    assert (copied / "note").exists()


def test_a_run_that_was_resumed_elsewhere_is_not_deleted_although_the_index_calls_it_ended(
    workspace: Workspace,
) -> None:
    run_id = workspace.launch("test.toy", {"steps": 1, "raise_at": 1})
    assert workspace.wait(run_id).state is RunState.FAILED
    Launcher(workspace.home).resume(run_id)
    assert workspace.summary(run_id).state.is_terminal
    with pytest.raises(UserError, match="cannot be deleted"):
        workspace.delete([run_id])
    assert workspace.home.run_dir(run_id).is_dir()
    workspace.wait(run_id)


def test_a_run_whose_directory_is_gone_can_be_taken_off_the_list(workspace: Workspace) -> None:
    run_id = workspace.launch("test.toy", {"steps": 1})
    workspace.wait(run_id)
    shutil.rmtree(workspace.home.run_dir(run_id))
    workspace.delete([run_id])
    assert workspace.runs(RunQuery()).total == 0


def test_a_run_that_ends_just_before_a_stop_is_passed_on_has_simply_ended(workspace: Workspace) -> None:
    run_id = workspace.launch("test.toy", {"steps": 10, "step_s": 0.02})
    layout = RunLayout(workspace.home.run_dir(run_id))
    summary = workspace.wait(run_id, should_stop=lambda: wait_for(layout.exit_record().exists, "its end"))
    assert summary.state is RunState.SUCCEEDED


def test_paths_in_a_form_are_those_of_whoever_filled_it_in(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a 'quoted' folder"
    folder.mkdir()
    script = folder / "train.py"
    script.write_text("print('it ran')\n")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    for written in ("train.py", "~/train.py"):
        review = workspace.review("train.script", {"script": written})
        assert tomllib.loads(review.toml)["script"] == str(script)
    run_id = workspace.launch("train.script", {"script": "train.py", "device": "cpu"})
    summary = workspace.wait(run_id)
    assert summary.state is RunState.SUCCEEDED, summary.message
    kind, values = workspace.values_of('kind = "train.script"\nscript = "train.py"\n', tmp_path)
    assert (kind, values["script"]) == ("train.script", str(tmp_path / "train.py"))


def test_a_rebuild_in_another_process_ends_no_wait(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    other = History.open(workspace.home.database)
    run_id = workspace.launch("test.toy", {"steps": 20, "step_s": 0.02})
    summary, cleared = History.summary, list[RunId]()

    def cleared_before(self: History, of: RunId) -> RunSummary:
        if not cleared:
            cleared.append(of)
            other.clear()
        return summary(self, of)

    monkeypatch.setattr(History, "summary", cleared_before)
    monkeypatch.setattr("core.workspace.workspace.POLL_S", 0.01)
    assert workspace.wait(run_id).state is RunState.SUCCEEDED
    assert cleared
    assert [int(step) for step in workspace.curve(run_id, "toy/value").step] == list(range(1, 21))
    other.close()


def test_a_fault_with_one_run_does_not_end_the_following_of_others(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = workspace.launch("test.toy", {"endless": True, "step_s": 0.02})
    update = workspace._synchronizer.update

    def fails_for_one(run_id: RunId, cursor: dict[str, int] | None = None) -> RunUpdate | None:
        if run_id == broken:
            raise AttributeError("a bug")
        return update(run_id, cursor)

    monkeypatch.setattr(workspace._synchronizer, "update", fails_for_one)
    listener = Listener()
    follower = workspace.follow(listener)
    sound = workspace.launch("test.toy", {"steps": 3})
    wait_for(lambda: listener.ended(sound), "the end of the sound run")
    follower.close()
    monkeypatch.undo()
    workspace.stop(broken)


def test_a_start_that_fails_stands_as_failed_and_can_be_resumed(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(starting, "SUPERVISOR_MODULE", "core.cli.no_such_module")
        with pytest.raises(EnvironmentProblem, match="could not be started"):
            workspace.launch("test.toy", {"steps": 2})
    workspace.sync()
    (run,) = workspace.runs(RunQuery()).rows
    assert run.state is RunState.FAILED
    assert "could not be started" in run.message
    workspace.resume(run.run_id)
    assert workspace.wait(run.run_id).state is RunState.SUCCEEDED


def test_a_directory_taken_away_from_an_open_run_ends_the_waiting(workspace: Workspace) -> None:
    run_id = workspace.launch("test.toy", {"steps": 1})
    workspace.wait(run_id)
    workspace._history.reopen(run_id)
    listener = Listener()
    shutil.rmtree(workspace.home.run_dir(run_id))
    follower = workspace.follow(listener)
    ended = wait_for(lambda: listener.ended(run_id), "the last word on the run")
    follower.close()
    assert ended.summary.state is RunState.LOST
    assert "moved or deleted" in ended.summary.message


def test_the_bin_gives_its_disk_back_and_only_the_bin(workspace: Workspace) -> None:
    kept, gone = (workspace.launch("test.toy", {"steps": 2}) for _ in range(2))
    for run_id in (kept, gone):
        workspace.wait(run_id)
    for wrong in ("", "..", kept):
        with pytest.raises(UserError, match="bin holds no run"):
            workspace.purge([RunId(wrong)])
    workspace.delete([gone])
    assert workspace.binned() == (gone,)
    assert workspace.purge(workspace.binned()) > 0
    assert workspace.binned() == ()
    assert [run.run_id for run in workspace.runs(RunQuery()).rows] == [kept]
    with pytest.raises(UserError, match="no run"):
        workspace.summary(gone)
