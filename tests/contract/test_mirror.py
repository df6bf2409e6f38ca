"""The mirror of a run on a host over a real sshd: byte-exact, whatever is cut, killed, huge or watched twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from core.contracts import agent as said
from core.contracts.errors import EnvironmentProblem, UserError
from core.contracts.hosts import LinkState, NoWatcher
from core.contracts.ids import RunId
from core.contracts.mirrors import LinkRecord
from core.contracts.placement import Placement
from core.contracts.states import RunState
from core.fleet.fetch import fetch
from core.fleet.mirror import Mirror
from core.jobs.processes import marked_processes
from core.runlog.layout import RunLayout
from core.runlog.tail import read_batch
from tests.helpers.remote_home import RemoteHome, opened_remote_home
from tests.helpers.toy_plugin import install_toy
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.timeout(120)
SPEC = 'kind = "test.toy"\nname = "toy"\n'


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RemoteHome]:
    install_toy(tmp_path / "plugin", monkeypatch)
    with opened_remote_home(tmp_path) as opened:
        yield opened
        for path in (opened.there.path / "runs").glob("*"):
            for pid in marked_processes(path.name):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def mirror(scene: RemoteHome) -> Iterator[Mirror]:
    opened = Mirror(scene.home, scene.pool)
    yield opened
    opened.close()


def steps(scene: RemoteHome, run_id: RunId) -> int:
    batch = read_batch(scene.home.run_dir(run_id), {}, 64 << 20)
    return max((getattr(event, "step", 0) or 0 for file in batch.files for event in file.events), default=0)


def finished(scene: RemoteHome, mirror: Mirror, run_id: RunId) -> LinkRecord:
    mirror.follow(scene.home.run_dir(run_id))
    wait_for(lambda: _is_complete(scene, run_id), "the mirror to be complete", 60)
    return scene.link(run_id)


def _is_complete(scene: RemoteHome, run_id: RunId) -> bool:
    path = RunLayout(scene.home.run_dir(run_id)).link("box")
    return path.exists() and scene.link(run_id).is_complete


def test_a_run_comes_whole_and_live(scene: RemoteHome, mirror: Mirror) -> None:
    run_id = scene.prepared(f"{SPEC}steps = 40\nhold_at = 20\nendless = false\n")
    mirror.follow(scene.home.run_dir(run_id))
    scene.start(run_id)
    wait_for(lambda: steps(scene, run_id) >= 20, "the steps to arrive while it runs")
    assert mirror.catch_up(run_id, 20)
    assert not scene.link(run_id).is_complete
    scene.pool.agent("box").ask(said.StopRun(run_id=run_id), said.Done)
    link = finished(scene, mirror, run_id)
    assert link.standing is not None
    assert (link.standing.state, link.standing.pids) == (RunState.STOPPED, ())
    assert scene.differences(run_id) == []


def test_killed_agents_and_connections_leave_neither_gap_nor_double(scene: RemoteHome, mirror: Mirror) -> None:
    run_id = scene.prepared(f"{SPEC}steps = 300\nstep_s = 0.01\n")
    mirror.follow(scene.home.run_dir(run_id))
    scene.start(run_id)
    for wanted in (20, 60):
        wait_for(lambda least=wanted: steps(scene, run_id) >= least, f"step {wanted}")
        os.kill(scene.pool.agent("box").hello.pid, signal.SIGKILL)
    wait_for(lambda: steps(scene, run_id) >= 100, "step 100")
    scene.server.stop()
    wait_for(lambda: not scene.link(run_id).is_reachable, "the silence to be noted")
    wait_for(lambda: scene.pool.status("box").state is LinkState.UNREACHABLE, "the connection to be known as lost")
    last = scene.link(run_id).last_contact
    assert last is not None
    assert time.time() - last < 60
    scene.server.start()
    finished(scene, mirror, run_id)
    assert scene.link(run_id).is_reachable
    assert scene.differences(run_id) == []


def test_two_windows_share_a_mirror_and_one_takes_over(scene: RemoteHome, mirror: Mirror) -> None:
    run_id = scene.prepared(f"{SPEC}steps = 400\nstep_s = 0.01\n")
    other_pool = scene.new_pool()
    other = Mirror(scene.home, other_pool)
    mirror.follow(scene.home.run_dir(run_id))
    scene.start(run_id)
    wait_for(lambda: steps(scene, run_id) >= 10, "the first window to mirror")
    other.follow(scene.home.run_dir(run_id))
    wait_for(lambda: steps(scene, run_id) >= 60, "step 60")
    mirror.close()
    finished(scene, other, run_id)
    assert scene.differences(run_id) == []
    other.close()
    other_pool.close()


def test_of_a_huge_output_the_newest_part_comes(scene: RemoteHome, mirror: Mirror) -> None:
    run_id = scene.prepared(f"{SPEC}steps = 2\n")
    stdout = RunLayout(scene.there.run_dir(run_id)).stdout("box")
    with stdout.open("wb") as file:
        file.write(b"old line\n" * (45 << 17))
        file.write(b"x" * (4 << 20))  # a line without an end in sight, then more of it than is kept
        file.write(b"\nlast words\n")
    scene.start(run_id)
    link = finished(scene, mirror, run_id)
    here = RunLayout(scene.home.run_dir(run_id)).stdout("box").read_bytes()
    whole = stdout.read_bytes()
    assert link.stdout_start > 32 << 20
    assert link.stdout_bytes == len(whole)
    assert here == whole[link.stdout_start :]
    assert whole[link.stdout_start - 1 : link.stdout_start] == b"\n"


def test_a_resumed_run_goes_on_in_the_same_files(scene: RemoteHome, mirror: Mirror) -> None:
    run_id = scene.prepared(f"{SPEC}steps = 6\nraise_at = 4\n")
    scene.start(run_id)
    link = finished(scene, mirror, run_id)
    assert link.standing is not None
    assert link.standing.state is RunState.FAILED
    layout = RunLayout(scene.home.run_dir(run_id))
    placement = msgspec.json.decode(layout.placement.read_bytes(), type=Placement)
    again = msgspec.structs.replace(placement, attempt=2)
    spec = layout.spec.read_text()
    scene.pool.agent("box").ask(said.PrepareRun(run_id=run_id, spec_toml=spec, placement=again), said.Done)
    layout.placement.write_bytes(msgspec.json.encode(again))
    mirror.follow(scene.home.run_dir(run_id))
    scene.start(run_id, 2)
    wait_for(
        lambda: (s := scene.link(run_id).standing) is not None and s.attempt == 2 and s.state is not None, "the end", 60
    )
    finished(scene, mirror, run_id)
    assert scene.differences(run_id) == []


def test_checkpoints_are_fetched_and_what_is_here_is_not_fetched_again(scene: RemoteHome, mirror: Mirror) -> None:
    run_id = scene.prepared(f"{SPEC}steps = 4\n")
    scene.start(run_id)
    finished(scene, mirror, run_id)
    run_dir = scene.home.run_dir(run_id)
    assert fetch(scene.pool, run_dir, "checkpoints", NoWatcher()) > 0
    there = scene.there.run_dir(run_id) / "checkpoints"
    for path in there.rglob("*"):
        if path.is_file():
            assert (run_dir / "checkpoints" / path.relative_to(there)).read_bytes() == path.read_bytes()
    assert fetch(scene.pool, run_dir, "artifacts/value.txt", NoWatcher()) > 0
    assert fetch(scene.pool, run_dir, "artifacts", NoWatcher()) == 0
    with pytest.raises(UserError, match="no 'artifacts/none'"):
        fetch(scene.pool, run_dir, "artifacts/none", NoWatcher())


def test_hostile_names_reach_no_other_folder(scene: RemoteHome) -> None:
    agent = scene.pool.agent("box")
    for name in ("", "..", "../..", "a/b", "x" * 300):
        with pytest.raises(UserError, match="no run's id"):
            agent.ask(said.StopRun(run_id=name), said.Done)
    run_id = scene.prepared(SPEC)
    with pytest.raises(UserError, match="outside"):
        agent.ask(said.Listing(run_id=run_id, folder="../.."), said.FileList)


def test_ports_are_really_reached_or_not(scene: RemoteHome) -> None:
    agent = scene.pool.agent("box")
    (port,) = agent.ask(said.Listen(token="a-token"), said.PortList).ports
    reached = agent.ask(said.Connect(address="127.0.0.1", port=port, token="a-token"), said.Connected)
    assert reached.own_address == "127.0.0.1"
    with pytest.raises(EnvironmentProblem, match="Something else answers"):
        agent.ask(said.Connect(address="127.0.0.1", port=port, token="another"), said.Connected)
    agent.ask(said.EndListen(token="a-token"), said.Done)
    with pytest.raises(EnvironmentProblem, match="cannot be reached"):
        agent.ask(said.Connect(address="127.0.0.1", port=port, token="a-token"), said.Connected)


def test_a_watched_host_reads_and_heals(scene: RemoteHome) -> None:
    seen: list[LinkState] = []
    scene.pool.on_status(lambda status: seen.append(status.state))
    scene.pool.watch("box")
    wait_for(lambda: scene.pool.status("box").readings.get("memory.used_bytes"), "readings", 30)
    scene.server.stop()
    wait_for(lambda: scene.pool.status("box").state is LinkState.UNREACHABLE, "the loss to be seen", 30)
    assert scene.pool.status("box").next_try is not None
    scene.server.start()
    wait_for(lambda: scene.pool.status("box").state is LinkState.ONLINE, "it to heal", 30)
    assert {LinkState.CONNECTING, LinkState.ONLINE, LinkState.UNREACHABLE} <= set(seen)


def test_an_agent_that_does_not_start_says_why(scene: RemoteHome) -> None:
    broken = msgspec.structs.replace(scene.record.runtime, prelude=("export PYTHONPATH=/nowhere", "cd /"))
    scene.record = msgspec.structs.replace(
        scene.record,
        runtime=msgspec.structs.replace(broken, python=sys._base_executable, wrapper=("env", "-i")),
    )
    with pytest.raises(EnvironmentProblem, match=r"does not start on box: .*core"):
        scene.pool.agent("box")


def test_the_agent_ends_with_its_input(scene: RemoteHome) -> None:
    pid = scene.pool.agent("box").hello.pid
    scene.pool.close()
    wait_for(lambda: not _is_there(pid), "the agent to end")


def _is_there(pid: int) -> bool:
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return done.returncode == 0 and not done.stdout.startswith("Z")
