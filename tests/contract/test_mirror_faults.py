"""Mirrors under rough treatment: windows killed in the middle of a write, hosts that refuse, hosts that freeze."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from core.contracts import agent as said
from core.contracts.errors import EnvironmentProblem, UserError
from core.contracts.hosts import (
    HostKeyQuestion,
    HostRecord,
    HostStatus,
    LinkState,
    NobodyToAsk,
    SecretAnswer,
    SecretQuestion,
)
from core.contracts.ids import RunId
from core.fleet.mirror import Mirror
from core.fleet.pool import FIRST_PAUSE_S, LONGEST_PAUSE_S, HostPool, pause_s
from core.jobs.processes import marked_processes
from core.runlog.layout import RunLayout
from core.security.secrets import Secrets
from core.settings.home import Home
from tests.helpers.host_lab import wait_out
from tests.helpers.remote_home import RemoteHome, opened_remote_home
from tests.helpers.toy_plugin import install_toy
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.timeout(180)

WINDOW = """
import sys, threading
from pathlib import Path
import msgspec
from core.contracts.hosts import HostRecord, NobodyToAsk
from core.fleet.mirror import Mirror
from core.fleet.pool import HostPool
from core.security.secrets import Secrets
from core.settings.home import Home
home = Home(Path(sys.argv[1]))
record = msgspec.json.decode(sys.argv[2], type=HostRecord)
pool = HostPool(lambda name: record, NobodyToAsk(), Secrets.open(home.path / "secrets"), home.path / "known_hosts")
Mirror(home, pool).follow(home.runs_dir / sys.argv[3])
threading.Event().wait()
"""


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RemoteHome]:
    install_toy(tmp_path / "plugin", monkeypatch)
    with opened_remote_home(tmp_path) as opened:
        yield opened
        for path in (opened.there.path / "runs").glob("*"):
            for pid in marked_processes(path.name):
                os.kill(pid, signal.SIGKILL)


def _window(scene: RemoteHome, run_id: RunId) -> subprocess.Popen[bytes]:
    words = [str(scene.home.path), msgspec.json.encode(scene.record).decode(), run_id]
    return subprocess.Popen([sys.executable, "-P", "-c", WINDOW, *words])


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _is_complete(scene: RemoteHome, run_id: RunId) -> bool:
    return RunLayout(scene.home.run_dir(run_id)).link("box").exists() and scene.link(run_id).is_complete


def test_windows_killed_at_any_moment_leave_exact_beginnings(scene: RemoteHome) -> None:
    run_id = scene.prepared(
        'kind = "test.toy"\nname = "toy"\nendless = true\nstep_s = 0.005\ncheckpoint_every = 100000\n'
    )
    here = RunLayout(scene.home.run_dir(run_id))
    there = RunLayout(scene.there.run_dir(run_id))
    there.stdout("box").write_bytes(os.urandom(20 << 20))
    scene.start(run_id)
    chance = random.Random(7)
    for _ in range(4):
        before = _size(here.stdout("box")) + _size(here.events("worker", "box"))
        window = _window(scene, run_id)
        least = chance.randrange(1, 4 << 20)
        wait_for(lambda start=before, least=least: _grown(here, start, least), "the mirror to grow", 60)
        window.kill()
        window.wait()
        for name in (here.stdout("box").name, here.events("worker", "box").name):
            beginning = (here.run_dir / name).read_bytes() if (here.run_dir / name).exists() else b""
            assert (there.run_dir / name).read_bytes().startswith(beginning)
    scene.pool.agent("box").ask(said.StopRun(run_id=run_id), said.Done)
    with_last = Mirror(scene.home, scene.pool)
    with_last.follow(scene.home.run_dir(run_id))
    wait_for(lambda: _is_complete(scene, run_id), "the mirror to be complete", 90)
    with_last.close()
    assert scene.differences(run_id) == []


def _grown(here: RunLayout, before: int, least: int) -> bool:
    """Return whether the mirror grew by enough, or, with the output whole, at all."""
    grown = _size(here.stdout("box")) + _size(here.events("worker", "box")) - before
    return grown >= (least if before < 20 << 20 else 1)


class _CountingAsker(NobodyToAsk):
    """Refuses unknown keys until told otherwise, and counts."""

    def __init__(self) -> None:
        self.calls = 0
        self.is_willing = False

    def trust_host_key(self, question: HostKeyQuestion) -> bool:
        self.calls += 1
        return self.is_willing

    def secret(self, question: SecretQuestion) -> SecretAnswer | None:
        return None


def test_who_said_no_is_not_asked_again_until_somebody_acts(scene: RemoteHome) -> None:
    run_id = scene.prepared('kind = "test.toy"\nname = "toy"\nsteps = 3\n')
    scene.start(run_id)
    (scene.home.path / "strangers").touch()
    asker = _CountingAsker()
    secrets = Secrets.open(scene.home.path / "secrets")
    pool = HostPool(lambda _: scene.record, asker, secrets, scene.home.path / "strangers")
    mirror = Mirror(scene.home, pool)
    mirror.follow(scene.home.run_dir(run_id))
    wait_for(lambda: asker.calls, "the question")
    wait_for(lambda: pool.status("box").state is LinkState.REFUSED, "the refusal")
    wait_out(3 * FIRST_PAUSE_S)
    assert asker.calls == 1
    asker.is_willing = True
    pool.set_asker(asker)
    wait_for(lambda: _is_complete(scene, run_id), "the run to come", 60)
    assert asker.calls == 2
    mirror.close()
    pool.close()


def test_a_frozen_agent_is_given_up_and_replaced(scene: RemoteHome) -> None:
    """The host's SSH server answers, its agent does not: the mirror notes that and starts another."""
    run_id = scene.prepared('kind = "test.toy"\nname = "toy"\nsteps = 2000\nstep_s = 0.01\n')
    mirror = Mirror(scene.home, scene.pool)
    mirror.follow(scene.home.run_dir(run_id))
    scene.start(run_id)
    log = RunLayout(scene.home.run_dir(run_id)).events("worker", "box")
    wait_for(lambda: _size(log), "the first events")
    frozen = scene.pool.agent("box").hello.pid
    os.kill(frozen, signal.SIGSTOP)
    try:
        wait_for(lambda: scene.pool.agent("box").hello.pid != frozen, "another agent", 60)
    finally:
        os.kill(frozen, signal.SIGCONT)
    wait_for(lambda: _is_complete(scene, run_id), "the mirror to be complete", 90)
    assert scene.differences(run_id) == []
    mirror.close()


def test_a_run_that_is_let_go_of_may_be_taken_up_again(scene: RemoteHome) -> None:
    run_id = scene.prepared('kind = "test.toy"\nname = "toy"\nendless = true\nstep_s = 0.01\n')
    mirror = Mirror(scene.home, scene.pool)
    run_dir = scene.home.run_dir(run_id)
    mirror.follow(run_dir)
    scene.start(run_id)
    log = RunLayout(run_dir).events("worker", "box")
    wait_for(lambda: _size(log), "the first events")
    mirror.unfollow(run_id)
    size = _size(log)
    there = RunLayout(scene.there.run_dir(run_id)).events("worker", "box")
    wait_for(lambda: _size(there) > size + 4096, "the run to go on")
    assert _size(log) == size
    other = Mirror(scene.home, scene.pool)
    other.follow(run_dir)
    wait_for(lambda: _size(log) > size + 4096, "the run to be followed again")
    other.close()
    mirror.follow(run_dir)
    scene.pool.agent("box").ask(said.StopRun(run_id=run_id), said.Done)
    wait_for(lambda: _is_complete(scene, run_id), "the mirror to be complete", 60)
    mirror.close()
    assert scene.differences(run_id) == []


def test_many_who_need_a_host_share_one_connection(scene: RemoteHome) -> None:
    seen: list[LinkState] = []
    pool = scene.new_pool()
    pool.on_status(lambda status: seen.append(status.state))
    agents: list[int] = []
    threads = [threading.Thread(target=lambda: agents.append(pool.agent("box").hello.pid)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(agents) == 6
    assert len(set(agents)) == 1
    assert seen.count(LinkState.CONNECTING) == 1
    pool.close()


def test_a_disconnected_host_is_idle_and_a_watched_one_returns(scene: RemoteHome) -> None:
    pool = scene.new_pool()
    pool.agent("box")
    pool.disconnect("box")
    assert pool.status("box").state is LinkState.IDLE
    pool.watch("box")
    wait_for(lambda: pool.status("box").readings, "readings")
    pool.disconnect("box")
    first = pool.status("box").readings_ts or 0.0
    wait_for(lambda: (pool.status("box").readings_ts or 0.0) > first, "readings of a new connection")
    assert pool.status("box").clock_skew_s is not None
    pool.unwatch("box")
    pool.close()


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[HostPool]:
    home = Home(tmp_path)
    home.prepare()

    def hosts(name: str) -> HostRecord:
        if name != "off":
            raise UserError(f"There is no host {name!r}.")
        return HostRecord(name=name, address="127.0.0.1", port=9, connect_timeout_s=2.0)

    pool = HostPool(hosts, NobodyToAsk(), Secrets.open(tmp_path / "secrets"), home.known_hosts)
    yield pool
    pool.close()


def test_a_host_that_is_off_is_tried_again_and_says_when(empty: HostPool) -> None:
    seen: list[HostStatus] = []
    empty.on_status(seen.append)
    empty.watch("off")
    wait_for(
        lambda: len([one for one in seen if one.state is LinkState.UNREACHABLE and one.next_try]) >= 2, "two tries"
    )
    status = next(one for one in seen if one.next_try)
    assert status.message
    assert status.hint
    assert status.next_try is not None
    assert status.next_try - time.time() < LONGEST_PAUSE_S
    with pytest.raises(EnvironmentProblem):
        empty.link("off")
    with pytest.raises(UserError, match="no host"):
        empty.link("unheard of")


def test_this_machine_is_a_host_without_a_record(empty: HostPool) -> None:
    agent = empty.agent("local")
    assert agent.hello.python == sys.executable
    assert empty.status("local").state is LinkState.ONLINE


def test_pauses_grow_to_a_minute() -> None:
    for failures, whole in ((1, 1.0), (2, 2.0), (3, 4.0), (7, 60.0), (99, 60.0)):
        pauses = {pause_s(failures) for _ in range(50)}
        assert len(pauses) > 1
        assert all(0.75 * whole <= pause <= whole for pause in pauses)


def test_a_mirror_that_is_deleted_meanwhile_holds_up_no_other_run_of_the_host(scene: RemoteHome) -> None:
    endless = 'kind = "test.toy"\nname = "toy"\nendless = true\nstep_s = 0.02\ncheckpoint_every = 100000\n'
    gone, other = scene.prepared(endless), scene.prepared(endless, "other")
    log = RunLayout(scene.home.run_dir(other)).events("worker", "box")
    mirror = Mirror(scene.home, scene.pool)
    try:
        for run_id in (gone, other):
            scene.start(run_id)
            mirror.follow(scene.home.run_dir(run_id))
        wait_for(lambda: RunLayout(scene.home.run_dir(gone)).events("worker", "box").exists(), "the first run", 60)
        scene.home.run_dir(gone).rename(scene.home.path / "taken away")
        os.kill(scene.pool.agent("box").hello.pid, signal.SIGKILL)
        size = _size(log)
        wait_for(lambda: _size(log) > size, "the other run to come on", 30)
        assert mirror.catch_up(other, 20)
        assert scene.link(other).is_reachable
        assert not scene.home.run_dir(gone).exists()
    finally:
        mirror.close()
        for run_id in (gone, other):
            scene.pool.agent("box").ask(said.StopRun(run_id=run_id), said.Done)
