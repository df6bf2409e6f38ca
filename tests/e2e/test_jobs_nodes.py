"""Several supervisors of one run with toy workers: ends, faults, pauses; each outcome named, nothing left anywhere."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from core.contracts.events import NodeEvent, StateEvent
from core.contracts.specs import RunSpec
from core.contracts.states import RunState
from core.plugins.decode import decode_spec
from tests.helpers.node_lab import NodeLab, opened_nodes
from tests.helpers.toy_plugin import install_toy
from tests.helpers.waiting import wait_for


@pytest.fixture(autouse=True)
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_toy(tmp_path / "plugin", monkeypatch)


def toy_spec(**fields: object) -> RunSpec:
    launch = {"peer_limit_s": 5.0, "stop_grace_s": 2.0, **dict(fields.pop("launch", {}))}  # type: ignore[call-overload]
    return decode_spec({"kind": "test.toy", "name": "toy", "step_s": 0.02, "launch": launch, **fields})


def states(lab: NodeLab, node: str) -> list[RunState]:
    return [event.state for event in lab.events(node) if isinstance(event, StateEvent | NodeEvent)]


def test_a_run_on_two_nodes_succeeds_and_only_the_head_writes_the_runs_states(tmp_path: Path) -> None:
    with opened_nodes(tmp_path, toy_spec(steps=10)) as lab:
        lab.start("b")
        lab.start("a")
        assert lab.ended("a").state is RunState.SUCCEEDED
        assert lab.ended("b").state is RunState.SUCCEEDED
        lab.no_process_left()
        whole = [RunState.PREPARING, RunState.RUNNING, RunState.SUCCEEDED]
        assert states(lab, "a") == states(lab, "b") == whole
        assert not [event for event in lab.events("b") if isinstance(event, StateEvent)]
        assert not [event for event in lab.events("a") if isinstance(event, NodeEvent)]
        seen = {path.name for path in lab.run_dir("b").iterdir()}
        assert {"events.b.worker.jsonl", "events.b.supervisor.jsonl", "stdout.b.log", "exit.b.json"} <= seen
        moment, size = lab.layout("b").stdout_index("b").read_text().split()[-2:]
        assert int(size) == lab.layout("b").stdout("b").stat().st_size
        assert float(moment) > 1e9


def test_a_stop_asked_of_one_node_stops_all_and_is_no_failure(tmp_path: Path) -> None:
    with opened_nodes(tmp_path, toy_spec(endless=True), nodes="abc") as lab:
        lab.start()
        for node in "abc":
            lab.at_step(node, 3)
        lab.request_stop("c")
        for node in "abc":
            assert lab.ended(node, 15).state is RunState.STOPPED
        assert "host host-c asks to stop: Stopped on request." in lab.standing("a").message
        lab.no_process_left()


def test_a_worker_that_ignores_the_stop_is_killed_on_its_node_and_the_head_waits_for_it(tmp_path: Path) -> None:
    with opened_nodes(tmp_path, toy_spec(endless=True, ignore_stop=True, orphan=True)) as lab:
        lab.start()
        lab.at_step("b", 3)
        lab.request_stop("a")
        assert lab.ended("a", 20).state is RunState.STOPPED
        assert "was killed" in lab.ended("b", 1).message
        lab.no_process_left()


def test_a_failed_node_stops_the_others_and_the_verdict_names_its_host(tmp_path: Path) -> None:
    with opened_nodes(tmp_path, toy_spec(endless=True)) as lab:
        failing = toy_spec(endless=True, raise_at=5)
        lab.spec = failing
        lab.layout("b").spec.write_text(lab.layout("b").spec.read_text().replace("raise_at = -1", "raise_at = 5"))
        lab.start()
        head = lab.ended("a", 15)
        assert (head.state, head.message) == (RunState.FAILED, "On host host-b: The toy was told to fail.")
        assert head.hint == "Tell it not to."
        assert lab.ended("b", 1).state is RunState.FAILED
        lab.no_process_left()


def test_a_silent_supervisor_is_lost_in_time_and_cleans_up_once_it_is_back(tmp_path: Path) -> None:
    with opened_nodes(tmp_path, toy_spec(endless=True)) as lab:
        lab.start()
        lab.at_step("b", 3)
        frozen = lab.supervisor("b").identity.pid
        os.kill(frozen, signal.SIGSTOP)
        try:
            head = lab.ended("a", 15)
            assert head.state is RunState.FAILED
            assert "host host-b was not heard from for" in head.message
            wait_for(lambda: not lab.pids("a"), "no process on a")
        finally:
            os.kill(frozen, signal.SIGCONT)
        member = lab.ended("b", 30)
        assert member.state is RunState.STOPPED
        assert "was not heard from" in member.message
        lab.no_process_left()


def test_the_members_end_when_the_heads_supervisor_is_killed(tmp_path: Path) -> None:
    with opened_nodes(tmp_path, toy_spec(endless=True), nodes="abc") as lab:
        lab.start()
        for node in "abc":
            lab.at_step(node, 3)
        os.kill(lab.supervisor("a").identity.pid, signal.SIGKILL)
        for node in "bc":
            standing = lab.ended(node, 20)
            assert standing.state is RunState.STOPPED
            assert "host host-a" in standing.message
        lab.no_process_left()


def test_a_cut_of_twelve_seconds_is_survived_by_a_real_run(tmp_path: Path) -> None:
    """Both supervisors of a partition are up but hear nothing: here the member's is stopped for as long."""
    spec = toy_spec(endless=True, launch={"peer_limit_s": 25.0})
    with opened_nodes(tmp_path, spec) as lab:
        lab.start()
        lab.at_step("b", 3)
        before = len(lab.curve("b", "toy/value"))
        member = lab.supervisor("b")
        os.kill(member.identity.pid, signal.SIGSTOP)
        wait_for(lambda: lab.layout("b").supervisor("b").stat().st_mtime + 12 < _now(lab), "12 s of silence", 30)
        os.kill(member.identity.pid, signal.SIGCONT)
        assert lab.standing("a").state is None
        lab.at_step("b", before + 10)
        lab.request_stop("a")
        assert lab.ended("a", 15).message == "Stopped on request."
        lab.no_process_left()


def _now(lab: NodeLab) -> float:
    """Return the head's latest beat."""
    return lab.layout("a").supervisor("a").stat().st_mtime


def test_two_nodes_pause_together_without_a_process_left_and_go_on(tmp_path: Path) -> None:
    with opened_nodes(tmp_path, toy_spec(steps=300)) as lab:
        lab.start()
        lab.at_step("b", 5)
        lab.layout("a").pause_request.touch()
        for node in "ab":
            wait_for(lambda node=node: states(lab, node)[-1] is RunState.PAUSED, f"{node} to be paused", 15)
            assert lab.pids(node) == {lab.supervisor_pid(node)}
        lab.layout("a").pause_request.unlink()
        for node in "ab":
            assert lab.ended(node).state is RunState.SUCCEEDED
            assert states(lab, node)[2:5] == [RunState.PAUSING, RunState.PAUSED, RunState.PREPARING]
        steps = [step for step, _ in lab.curve("a", "toy/value")]
        assert steps == list(range(1, 301)), "nothing was done twice or left out"
        lab.no_process_left()


# Of a pair that talk to each other: one whose SIGTERM is nobody's concern, and one that falls when the other has.
PAIR = """
import os, sys, time
from pathlib import Path
pid = Path(sys.argv[1])
if os.environ["PILOTHOUSE_NODE"] == "a":
    pid.with_suffix(".new").write_text(str(os.getpid()))
    pid.with_suffix(".new").replace(pid)
    time.sleep(300)
while not pid.exists():
    time.sleep(0.005)
while Path("/proc", pid.read_text(), "cmdline").exists() and Path("/proc", pid.read_text(), "cmdline").read_bytes():
    time.sleep(0.005)
raise RuntimeError("Connection closed by peer [127.0.0.1]:1234")
"""


def test_a_script_that_falls_with_the_other_nodes_is_paused_and_has_not_failed(tmp_path: Path) -> None:
    script, pid = tmp_path / "pair.py", tmp_path / "pid"
    script.write_text(PAIR)
    fields = {"kind": "train.script", "name": "pair", "script": str(script), "args": [str(pid)], "watch": [str(pid)]}
    spec = decode_spec({**fields, "launch": {"peer_limit_s": 5.0, "stop_grace_s": 5.0}})
    with opened_nodes(tmp_path, spec) as lab:
        lab.start()
        wait_for(pid.exists, "the script to run", 30)
        for node in "ab":
            wait_for(lambda node=node: "Running" in str(lab.events(node)), f"the script of {node} to run", 30)
        lab.layout("a").pause_request.touch()
        for node in "ab":
            wait_for(lambda node=node: states(lab, node)[-1] is RunState.PAUSED, f"{node} to be paused", 15)
        lab.request_stop("a")
        for node in "ab":
            assert lab.ended(node).state is RunState.STOPPED
        lab.no_process_left()


def test_a_paused_run_can_be_stopped(tmp_path: Path) -> None:
    with opened_nodes(tmp_path, toy_spec(endless=True)) as lab:
        lab.start()
        lab.at_step("b", 3)
        lab.layout("a").pause_request.touch()
        wait_for(lambda: states(lab, "a")[-1] is RunState.PAUSED, "the pause", 15)
        lab.request_stop("a")
        assert lab.ended("a", 15).state is RunState.STOPPED
        assert lab.ended("b", 5).state is RunState.STOPPED
        lab.no_process_left()


def test_a_watch_port_in_use_fails_at_once_and_says_so(tmp_path: Path) -> None:
    import socket

    with opened_nodes(tmp_path, toy_spec(steps=3)) as lab:
        assert lab.placement.rendezvous is not None
        with socket.create_server(("127.0.0.1", lab.placement.rendezvous.watch_port)):
            lab.start("a")
            assert "is in use" in lab.ended("a", 15).message
        lab.no_process_left()


def test_two_queued_runs_on_the_same_two_hosts_go_one_after_the_other_whoever_came_first_where(tmp_path: Path) -> None:
    spec = toy_spec(steps=15, launch={"queue": True, "peer_limit_s": 10.0})
    with opened_nodes(tmp_path, spec) as first, opened_nodes(tmp_path, spec) as second:
        first.start("a")
        second.start("b")
        second.start("a")
        first.start("b")
        ends: list[tuple[float, float]] = []
        for lab in (first, second):
            for node in "ab":
                assert lab.ended(node).state is RunState.SUCCEEDED
            running = [
                event.ts
                for node in "ab"
                for event in lab.events(node)
                if isinstance(event, StateEvent | NodeEvent) and event.state is RunState.RUNNING
            ]
            ends.append((min(running), max(lab.standing(node).ended or 0.0 for node in "ab")))
            lab.no_process_left()
        (_, earlier_end), (later_begin, _) = sorted(ends)
        assert earlier_end <= later_begin + 0.5, "they never worked at the same time"
