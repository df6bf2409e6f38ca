"""Runs on other machines for real: sshd, agents and supervisors on small hosts; cables cut, hosts crashed, processes killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from core.cli.main import main
from core.cli.terminal_asker import TerminalWatcher
from core.contracts.errors import EnvironmentProblem, InvalidSpec, PilothouseError, UserError
from core.contracts.hosts import NoWatcher, Progress
from core.contracts.ids import RunId
from core.contracts.runs import RunUpdate
from core.contracts.states import RunState
from core.plugins.decode import decode_spec
from core.runlog.placements import read_placement
from core.workspace.workspace import Workspace
from tests.helpers.remote_lab import RemoteLab, opened_remote_lab
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.timeout(180)
STEPS = 8


def value_after(steps: int) -> float:
    """Return what the toy comes to when it is never interrupted."""
    value = 1.0
    for _ in range(steps):
        value = value * 1.25 % 7
    return value


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RemoteLab]:
    with opened_remote_lab(tmp_path, monkeypatch, 3) as found:
        yield found


def nothing_is_left(lab: RemoteLab, run_id: RunId) -> None:
    wait_for(lambda: not any(lab.left(run_id).values()), "all processes of the run to be gone", 20)


def kill(lab: RemoteLab, host: str, run_id: RunId, word: str) -> None:
    """Kill the processes of a run on a host whose words hold ``word``."""
    found = [pid for pid, words in lab.left(run_id)[host].items() if word in words]
    assert found, f"no {word} on {host}"
    for pid in found:
        os.kill(pid, signal.SIGKILL)


def test_two_nodes_run_to_their_end_and_all_of_it_is_here(lab: RemoteLab) -> None:
    run_id = lab.launch("h1", "h2", steps=STEPS)
    summary = lab.workspace.wait(run_id)
    assert (summary.state, summary.host, summary.step) == (RunState.SUCCEEDED, "h1, h2", STEPS)
    assert summary.final["toy/final"] == pytest.approx(value_after(STEPS))
    assert lab.is_same("h1", run_id, "h1")
    assert lab.is_same("h2", run_id, "h2")
    placement = read_placement(lab.run_dir(run_id))
    assert placement is not None
    assert [(node.node, node.address, node.interface) for node in placement.nodes] == [
        ("h1", lab.hosts.address("h1"), "eth0"),
        ("h2", lab.hosts.address("h2"), "eth0"),
    ]
    nodes = lab.workspace.nodes(run_id).nodes
    assert [(node.state, node.alive_pids, node.is_reachable) for node in nodes] == [(RunState.SUCCEEDED, (), True)] * 2
    assert sorted(lab.workspace.log(run_id, 0).text.splitlines()) == ["h1 | toy starts at 0", "h2 | toy starts at 0"]
    assert lab.workspace.log(run_id, 0, node="h2").text == "toy starts at 0\n"
    keys = lab.workspace.detail(run_id).telemetry_keys
    assert {"h1:memory.used_bytes", "h2:memory.used_bytes"} <= set(keys)
    nothing_is_left(lab, run_id)


def test_a_host_that_cannot_undoes_the_others_and_is_named(lab: RemoteLab) -> None:
    record = lab.workspace.fleet.host("h2")
    without_toy = msgspec.structs.replace(record.runtime, worker_dir="/nowhere")
    lab.workspace.fleet.update(msgspec.structs.replace(record, runtime=without_toy))
    with pytest.raises(PilothouseError, match="h2"):
        lab.launch("h1", "h2", steps=STEPS)
    assert list(lab.workspace.home.runs_dir.iterdir()) == []
    for host in ("h1", "h2"):
        assert list((lab.hosts.home(host) / ".pilothouse" / "runs").iterdir()) == []


def test_a_host_that_is_off_is_named_before_anything_is_made(lab: RemoteLab) -> None:
    lab.hosts.crash("h2")
    with pytest.raises(EnvironmentProblem, match="h2"):
        lab.launch("h1", "h2", steps=STEPS)
    assert list(lab.workspace.home.runs_dir.iterdir()) == []


def test_what_a_host_finds_wrong_with_the_spec_is_listed_with_its_name(lab: RemoteLab, tmp_path: Path) -> None:
    script = tmp_path / "proj" / "train.py"
    script.parent.mkdir()
    script.write_text("print('hello')\n")
    launch = {"hosts": ["h1"], "copy_code": "shared"}
    spec = decode_spec({"kind": "train.script", "script": str(script), "interpreter": "/no/python", "launch": launch})
    with pytest.raises(InvalidSpec) as caught:
        lab.workspace.launch_spec(spec)
    assert [(p.field, p.message.partition(":")[0]) for p in caught.value.problems] == [("interpreter", "h1")]
    assert list(lab.workspace.home.runs_dir.iterdir()) == []


def test_code_is_copied_as_it_was_at_the_launch(lab: RemoteLab, tmp_path: Path) -> None:
    script = tmp_path / "proj 'x'" / "train.py"
    script.parent.mkdir()
    script.write_text("from pathlib import Path\nprint(Path('data.txt').read_text())\n")
    (script.parent / "data.txt").write_text("as it was $(touch x)")
    spec = decode_spec({"kind": "train.script", "script": str(script), "launch": {"hosts": ["h2"]}})
    run_id = lab.workspace.launch_spec(spec)
    (script.parent / "data.txt").write_text("changed since")
    summary = lab.workspace.wait(run_id)
    assert summary.state is RunState.SUCCEEDED, summary
    assert "as it was $(touch x)" in lab.workspace.log(run_id, 0).text
    assert (lab.there("h2", run_id) / "code" / "data.txt").exists()


def test_a_stop_ends_all_nodes_and_a_resume_comes_to_the_same_value(lab: RemoteLab) -> None:
    run_id = lab.launch("h1", "h2", steps=STEPS, hold_at=5)
    lab.at_step(run_id, 5)
    lab.workspace.stop(run_id)
    summary = lab.workspace.wait(run_id)
    assert summary.state is RunState.STOPPED, summary
    nothing_is_left(lab, run_id)
    assert all(node.alive_pids == () for node in lab.workspace.nodes(run_id).nodes)
    with pytest.raises(UserError, match="already ended"):
        lab.workspace.stop(run_id)
    lab.workspace.resume(run_id)
    summary = lab.workspace.wait(run_id)
    assert (summary.state, summary.attempt) == (RunState.SUCCEEDED, 2)
    assert summary.final["toy/final"] == pytest.approx(value_after(STEPS))
    assert lab.workspace.curve(run_id, "toy/value").step.tolist() == list(range(1, STEPS + 1))
    assert lab.is_same("h1", run_id, "h1")


def test_of_two_windows_that_resume_at_once_one_does(lab: RemoteLab) -> None:
    run_id = lab.launch("h1", "h2", steps=STEPS, hold_at=5)
    lab.at_step(run_id, 5)
    lab.workspace.stop(run_id)
    assert lab.workspace.wait(run_id).state is RunState.STOPPED
    other = Workspace.open(lab.workspace.home.path)
    try:
        with ThreadPoolExecutor(2) as pool:
            both = [pool.submit(window.retry, run_id) for window in (lab.workspace, other)]
    finally:
        other.close()
    assert sorted(type(done.exception()) is UserError for done in both) == [False, True]
    summary = lab.workspace.wait(run_id)
    assert (summary.state, summary.attempt) == (RunState.SUCCEEDED, 2)
    assert summary.final["toy/final"] == pytest.approx(value_after(STEPS))


def test_pause_and_continue_reach_all_nodes(lab: RemoteLab) -> None:
    run_id = lab.launch("h1", "h2", steps=STEPS, hold_at=4)
    lab.at_step(run_id, 4)
    lab.workspace.pause(run_id)
    wait_for(lambda: lab.updated(run_id).state is RunState.PAUSED, "the run to pause", 40)
    lab.workspace.proceed(run_id)
    summary = lab.workspace.wait(run_id)
    assert summary.state is RunState.SUCCEEDED, summary
    assert summary.final["toy/final"] == pytest.approx(value_after(STEPS))


def test_the_window_may_be_closed_and_finds_everything_later(lab: RemoteLab) -> None:
    run_id = lab.launch("h1", "h2", steps=STEPS, step_s=0.1)
    lab.workspace.fleet.close()
    exit_record = lab.there("h1", run_id) / "exit.h1.json"
    wait_for(exit_record.exists, "the run to end unwatched")
    again = Workspace.open(lab.workspace.home.path)
    summary = again.wait(run_id)
    assert summary.state is RunState.SUCCEEDED
    again.close()


def test_a_member_that_crashes_is_named_and_the_run_goes_on_elsewhere(lab: RemoteLab) -> None:
    run_id = lab.launch("h1", "h2", steps=STEPS, hold_at=5, launch={"peer_limit_s": 5.0})
    lab.at_step(run_id, 5)
    lab.hosts.crash("h2")
    summary = lab.workspace.wait(run_id)
    assert summary.state is RunState.FAILED
    assert "h2" in summary.message, summary.message
    nodes = {node.node: node for node in lab.workspace.nodes(run_id).nodes}
    assert nodes["h1"].alive_pids == ()
    wait_for(lambda: not lab.workspace.nodes(run_id).nodes[1].is_reachable, "h2 to count as out of reach", 40)
    with pytest.raises(EnvironmentProblem, match="h2"):
        lab.workspace.resume(run_id)
    assert lab.updated(run_id).state is RunState.FAILED
    lab.workspace.retry(run_id, ("h1", "h3"))
    summary = lab.workspace.wait(run_id)
    assert (summary.state, summary.attempt, summary.host) == (RunState.SUCCEEDED, 2, "h1, h3")
    assert summary.final["toy/final"] == pytest.approx(value_after(STEPS))


def test_a_head_that_crashes_makes_the_run_lost_not_failed_and_it_resumes_once_the_head_is_back(lab: RemoteLab) -> None:
    run_id = lab.launch("h1", "h2", steps=STEPS, hold_at=5, launch={"peer_limit_s": 5.0})
    lab.at_step(run_id, 5)
    lab.hosts.crash("h1")
    summary = lab.workspace.wait(run_id)
    assert summary.state is RunState.LOST
    assert "h1" in summary.message, summary.message
    with pytest.raises(EnvironmentProblem, match="h1"):
        lab.workspace.retry(run_id, ("h2", "h3"))
    lab.hosts.start("h1")
    lab.workspace.resume(run_id)
    summary = lab.workspace.wait(run_id)
    assert summary.state is RunState.SUCCEEDED, summary
    assert summary.final["toy/final"] == pytest.approx(value_after(STEPS))


def test_a_lost_run_that_is_looked_at_again_is_as_its_head_says_once_that_answers(lab: RemoteLab) -> None:
    run_id = lab.launch("h1", "h2", steps=STEPS, hold_at=5)
    lab.at_step(run_id, 5)
    lab.hosts.partition("h1", "launcher")
    wait_for(lambda: lab.updated(run_id).silent_since is not None, "the silence to be noted", 60)
    lab.workspace.stop(run_id)
    assert lab.workspace.wait(run_id).state is RunState.LOST
    lab.workspace.fleet.close()
    lab.hosts.heal("h1", "launcher")
    again = Workspace.open(lab.workspace.home.path)
    follower = again.follow(lambda update: None)
    try:
        follower.watch(run_id)
        wait_for(lambda: again.summary(run_id).state is RunState.STOPPED, "the head's own word", 60)
    finally:
        follower.close()
        again.close()


def test_a_stop_that_only_an_ended_part_heard_is_no_stop(lab: RemoteLab) -> None:
    run_id = lab.launch("h1", "h2", "h3", steps=STEPS, hold_at=5, launch={"peer_limit_s": 5.0})
    lab.at_step(run_id, 5)
    for host in ("h1", "h3"):
        lab.hosts.crash(host)
    exit_record = lab.run_dir(run_id) / "exit.h2.json"
    wait_for(exit_record.exists, "the part on h2 to end", 60)
    assert not lab.updated(run_id).state.is_terminal, "what h1 and h3 do is not known"
    with pytest.raises(EnvironmentProblem, match="h1"):
        lab.workspace.stop(run_id)


def test_another_head_is_brought_the_checkpoint_and_names_keep_their_meaning(lab: RemoteLab) -> None:
    run_id = lab.launch("h1", "h2", steps=STEPS, hold_at=5)
    lab.at_step(run_id, 5)
    lab.workspace.stop(run_id)
    assert lab.workspace.wait(run_id).state is RunState.STOPPED
    lab.workspace.retry(run_id, ("h3", "h1"))
    summary = lab.workspace.wait(run_id)
    assert (summary.state, summary.host) == (RunState.SUCCEEDED, "h3, h1")
    assert summary.final["toy/final"] == pytest.approx(value_after(STEPS))
    assert "toy starts at 5" in lab.workspace.log(run_id, 0, node="h3").text
    placement = read_placement(lab.run_dir(run_id))
    assert placement is not None
    assert [node.node for node in placement.nodes] == ["h3", "h1-2"]
    steps = lab.workspace.curve(run_id, "toy/value").step.tolist()
    lab.workspace.rebuild()
    assert lab.workspace.curve(run_id, "toy/value").step.tolist() == steps == list(range(1, STEPS + 1))
    assert lab.workspace.summary(run_id).state is RunState.SUCCEEDED


def test_a_cut_cable_is_no_failure_and_nothing_is_doubled_or_lost(lab: RemoteLab) -> None:
    run_id = lab.launch("h1", "h2", steps=100_000, step_s=0.02, launch={"stop_grace_s": 10.0})
    lab.at_step(run_id, 20)
    lab.hosts.partition("h1", "launcher")
    wait_for(lambda: lab.updated(run_id).silent_since is not None, "the silence to be noted", 60)
    assert not lab.updated(run_id).state.is_terminal
    lab.hosts.heal("h1", "launcher")
    wait_for(lambda: lab.updated(run_id).silent_since is None, "the host to answer again", 90)
    lab.workspace.stop(run_id)
    assert lab.workspace.wait(run_id).state is RunState.STOPPED
    assert lab.is_same("h1", run_id, "h1")
    steps = lab.workspace.curve(run_id, "toy/value", points=1 << 30).step.tolist()
    assert steps == list(range(1, len(steps) + 1))


def test_a_run_that_may_is_resumed_by_itself_once(lab: RemoteLab) -> None:
    run_id = lab.launch("h1", "h2", steps=STEPS, hold_at=5, launch={"retries": 1, "peer_limit_s": 5.0})
    seen: list[RunUpdate] = []
    follower = lab.workspace.follow(seen.append)
    try:
        lab.at_step(run_id, 5)
        kill(lab, "h2", run_id, "core.jobs.worker")
        wait_for(lambda: lab.workspace.summary(run_id).state is RunState.FAILED, "the failure")
        wait_for(lambda: lab.workspace.summary(run_id).state is RunState.SUCCEEDED, "the run to be resumed and end", 90)
    finally:
        follower.close()
    summary = lab.workspace.summary(run_id)
    assert summary.attempt == 2
    assert summary.final["toy/final"] == pytest.approx(value_after(STEPS))


def test_a_deleted_run_can_be_taken_back_and_a_purged_one_is_gone_everywhere(lab: RemoteLab) -> None:
    run_id = lab.launch("h1", "h2", steps=STEPS)
    lab.workspace.wait(run_id)
    lab.workspace.fetch(run_id, "checkpoints", NoWatcher())
    assert list((lab.run_dir(run_id) / "checkpoints").iterdir())
    lab.workspace.delete([run_id])
    assert lab.there("h1", run_id).exists()
    lab.workspace.restore([run_id])
    assert lab.workspace.summary(run_id).state is RunState.SUCCEEDED
    lab.workspace.delete([run_id])
    lab.hosts.crash("h2")
    with pytest.raises(EnvironmentProblem, match="h2 still has the run's folder"):
        lab.workspace.purge([run_id])
    assert not lab.there("h1", run_id).exists()
    assert lab.workspace.binned() == ()


def test_this_machine_may_be_one_of_the_hosts(lab: RemoteLab) -> None:
    run_id = lab.launch("local", "h1", steps=STEPS, hold_at=5)
    lab.at_step(run_id, 5)
    lab.workspace.stop(run_id)
    assert lab.workspace.wait(run_id).state is RunState.STOPPED
    lab.workspace.resume(run_id)
    summary = lab.workspace.wait(run_id)
    assert (summary.state, summary.host, summary.attempt) == (RunState.SUCCEEDED, "local, h1", 2), summary
    assert summary.final["toy/final"] == pytest.approx(value_after(STEPS))
    assert [(node.node, node.state, node.alive_pids) for node in lab.workspace.nodes(run_id).nodes] == [
        ("local", RunState.SUCCEEDED, ()),
        ("h1", RunState.SUCCEEDED, ()),
    ]
    assert lab.is_same("h1", run_id, "h1")
    assert {"cpu.load_1min", "h1:cpu.load_1min"} <= set(lab.workspace.detail(run_id).telemetry_keys)


def test_a_node_that_cannot_start_ends_what_was_started_on_the_others(lab: RemoteLab) -> None:
    """The supervisor's log on ``h2`` is a folder: found only when it is started, after ``h1`` was."""
    folder = lab.hosts.home("h2") / ".pilothouse" / "runs"

    class Spoiler(NoWatcher):
        def report(self, progress: Progress) -> None:
            if progress.stage == "Starting":
                for run_dir in folder.iterdir():
                    (run_dir / "supervisor.h2.log").mkdir()

    spec = decode_spec({"kind": "test.toy", "steps": 100_000, "step_s": 0.1, "launch": {"hosts": ["h1", "h2"]}})
    with pytest.raises(EnvironmentProblem, match="h2"):
        lab.workspace.launch_spec(spec, watcher=Spoiler())
    assert list(lab.workspace.home.runs_dir.iterdir()) == []
    for host in ("h1", "h2"):
        assert list((lab.hosts.home(host) / ".pilothouse" / "runs").iterdir()) == []
        assert not [words for words in lab.hosts.jobs(host).values() if "supervise" in words or "worker" in words]


class AtStart(NoWatcher):
    """Does something just before the nodes are started."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act

    def report(self, progress: Progress) -> None:
        if progress.stage == "Starting":
            self._act()


def kill_agents(lab: RemoteLab, host: str) -> None:
    for pid in [pid for pid, words in lab.hosts.jobs(host).items() if "core.cli.agent" in words]:
        os.kill(pid, signal.SIGKILL)


def test_a_connection_lost_at_the_start_is_made_again_to_undo_the_launch(lab: RemoteLab) -> None:
    spec = decode_spec({"kind": "test.toy", "endless": True, "launch": {"hosts": ["h1", "h2"]}})
    with pytest.raises(EnvironmentProblem, match="h2") as caught:
        lab.workspace.launch_spec(spec, watcher=AtStart(lambda: kill_agents(lab, "h2")))
    assert "may still be there" not in caught.value.message
    assert list(lab.workspace.home.runs_dir.iterdir()) == []
    for host in ("h1", "h2"):
        assert list((lab.hosts.home(host) / ".pilothouse" / "runs").iterdir()) == []


def test_what_cannot_be_undone_stays_in_sight_and_can_be_ended_later(lab: RemoteLab) -> None:
    spec = decode_spec({"kind": "test.toy", "endless": True, "launch": {"hosts": ["h1"]}})
    with pytest.raises(EnvironmentProblem, match="may still be there on h1"):
        lab.workspace.launch_spec(spec, watcher=AtStart(lambda: lab.hosts.crash("h1")))
    run_id = RunId(next(lab.workspace.home.runs_dir.iterdir()).name)
    assert not lab.updated(run_id).state.is_terminal
    lab.hosts.start("h1")
    lab.workspace.stop(run_id)
    assert (lab.there("h1", run_id) / "control" / "stop").exists()


def test_ctrl_c_undoes_a_launch_from_the_command_line(
    lab: RemoteLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = TerminalWatcher.report

    def interrupted(self: TerminalWatcher, progress: Progress) -> None:
        report(self, progress)
        if progress.stage == "Preparing the hosts":
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(TerminalWatcher, "report", interrupted)
    monkeypatch.setenv("PILOTHOUSE_HOME", str(lab.workspace.home.path))
    spec = tmp_path / "spec.toml"
    spec.write_text('kind = "test.toy"\nendless = true\n')
    assert main(lambda options: 0, ["run", str(spec), "--hosts", "h1,h2"]) != 0
    assert "Cancelling" in capsys.readouterr().err
    assert list(lab.workspace.home.runs_dir.iterdir()) == []
    for host in ("h1", "h2"):
        assert list((lab.hosts.home(host) / ".pilothouse" / "runs").iterdir()) == []


def test_a_run_whose_host_is_gone_for_good_can_be_given_up_and_is_believed_when_it_returns(lab: RemoteLab) -> None:
    run_id = lab.launch("h1", endless=True, step_s=0.02)
    lab.at_step(run_id, 5)
    with pytest.raises(UserError, match="All hosts of the run .* answer"):
        lab.workspace.give_up(run_id)
    lab.hosts.link("h1", up=False)
    wait_for(lambda: lab.updated(run_id).silent_since, "the silence to be noted")
    lab.workspace.give_up(run_id)
    given_up = lab.workspace.summary(run_id)
    assert given_up.state is RunState.LOST
    assert "h1 does not answer" in given_up.message
    lab.hosts.link("h1", up=True)
    follower = lab.workspace.follow(lambda update: None)
    try:
        follower.watch(run_id)
        wait_for(lambda: lab.workspace.summary(run_id).state is RunState.RUNNING, "its return", 60)
        lab.workspace.stop(run_id)
        wait_for(lambda: lab.workspace.summary(run_id).state is RunState.STOPPED, "its end", 60)
    finally:
        follower.close()
    assert not any(lab.left(run_id).values())
