"""The agent as a real program on a local pipe: asked much at once, flooded, fed damage, left alone."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from core.cli.agent_line import WINDOW_BYTES
from core.contracts import agent as said
from core.contracts.errors import EnvironmentProblem, UserError
from core.contracts.hosts import LOCAL_HOST, HostRecord, RuntimeRecord
from core.contracts.ids import new_run_id
from core.contracts.placement import NodePlacement, Placement
from core.fleet.agent_client import AgentClient
from core.jobs.pushing import CHUNK_BYTES
from core.runlog.frames import MARK, FrameReader, frame
from core.ssh.local import LocalLink
from tests.helpers.host_lab import wait_out
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def record(tmp_path: Path) -> HostRecord:
    runtime = RuntimeRecord(kind="interpreter", python=sys.executable)
    return HostRecord(name=LOCAL_HOST, work_dir=str(tmp_path / "host's $(home)\nof runs"), runtime=runtime)


@pytest.fixture
def agent(record: HostRecord) -> Iterator[AgentClient]:
    client = AgentClient.start(LocalLink(), record)
    yield client
    client.close()


@pytest.fixture
def deaf() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield int(listener.getsockname()[1])


def prepared(agent: AgentClient, record: HostRecord, node: str = "box") -> tuple[str, Path]:
    run_id = new_run_id("toy")
    run_dir = Path(record.work_dir) / "runs" / run_id
    placed = NodePlacement(node=node, work_dir=record.work_dir, run_dir=str(run_dir), python=sys.executable)
    asked = said.PrepareRun(run_id=run_id, spec_toml='kind = "test.toy"\n', placement=Placement(nodes=(placed,)))
    agent.ask(asked, said.Done)
    return run_id, run_dir


def test_it_introduces_itself_and_answers_of_the_host(agent: AgentClient, record: HostRecord) -> None:
    assert agent.hello.work_dir == record.work_dir
    assert agent.hello.python == sys.executable
    assert abs(agent.clock_skew_s) < 5
    report = agent.ask(said.Probe(), said.Hardware).report
    assert report.cpu.logical_cores == psutil.cpu_count()
    assert agent.ask(said.Usage(), said.DiskSpace).total_bytes > 0
    versions = agent.ask(said.Packages(names=("msgspec", "no-such-package")), said.PackageVersions).versions
    assert versions == {"msgspec": msgspec.__version__, "no-such-package": None}
    found = agent.ask(said.Interfaces(), said.InterfaceList).interfaces
    assert ("127.0.0.1", True) in {(one.address, one.is_loopback) for one in found}
    ports = agent.ask(said.FreePorts(count=5), said.PortList).ports
    assert len(set(ports)) == 5


def test_slow_requests_block_no_other_and_too_many_are_refused(agent: AgentClient, deaf: int) -> None:
    slow = said.Connect(address="127.0.0.1", port=deaf, token="t", timeout_s=8.0)
    refusals: list[str] = []

    def ask() -> None:
        try:
            agent.ask(slow, said.Connected)
        except EnvironmentProblem as error:
            refusals.append(error.message)

    threads = [threading.Thread(target=ask) for _ in range(40)]
    for thread in threads:
        thread.start()
    wait_for(lambda: sum("busy" in message for message in refusals) == 8, "those beyond the limit to be refused")
    assert agent.ping() < 4
    assert len(refusals) == 8, "the slow ones go on meanwhile"
    for thread in threads:
        thread.join()
    assert len(refusals) == 40
    assert agent.ask(said.FreePorts(), said.PortList).ports


def test_readings_come_at_once_and_end(agent: AgentClient) -> None:
    seen: list[said.Readings] = []
    agent.telemetry(seen.append, 0.05)
    wait_for(lambda: len(seen) >= 4, "readings")
    assert (seen[0].values["memory.total_bytes"] or 0) > 0
    assert seen[0].values["cpu.percent"] is None, "there is no share without an interval"
    wait_for(lambda: seen[-1].values["cpu.percent"] is not None, "shares")
    agent.telemetry(None)
    count = len(seen)
    assert agent.ping() > 0
    assert len(seen) <= count + 1


class _Raw:
    """An agent without its near end: what it sends is taken in, and credited only when the test says so."""

    def __init__(self, record: HostRecord) -> None:
        argv = [sys.executable, "-P", "-m", "core.cli.agent", "--home", record.work_dir]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.received = 0
        self.credits = False
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def send(self, body: said.AnyRequest, start: bytes = b"") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(start + frame(msgspec.msgpack.encode(said.Asked(number=1, body=body))))
        self.process.stdin.flush()

    def _read(self) -> None:
        assert self.process.stdout is not None
        reader = FrameReader()
        decode = msgspec.msgpack.Decoder(said.FromAgent).decode
        while data := os.read(self.process.stdout.fileno(), 1 << 18):
            for message in map(decode, reader.feed(data)):
                if isinstance(message, said.FileChunk) and not message.is_record:
                    assert message.offset == self.received
                    self.received += len(message.data)
                    if self.credits:
                        self.send(said.Credit(amount=len(message.data)))

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self._thread.join()
        self.process.stdout.close()
        assert self.process.wait(20) == 0


def test_only_a_few_megabytes_are_on_their_way_and_in_memory(agent: AgentClient, record: HostRecord) -> None:
    run_id, run_dir = prepared(agent, record)
    with (run_dir / "events.box.0.jsonl").open("wb") as file:
        for _ in range(100):
            file.write(os.urandom(1 << 20))  # one line without an end, which does not compress
    raw = _Raw(record)
    raw.send(said.Follow(run_id=run_id, nodes=("box",), offsets={}), MARK)
    wait_for(lambda: raw.received >= WINDOW_BYTES, "the window to be filled")
    before = psutil.Process(raw.process.pid).memory_info().rss
    wait_out(1.0)
    assert raw.received <= WINDOW_BYTES + CHUNK_BYTES, "nothing more comes before something is credited"
    raw.credits = True
    raw.send(said.Credit(amount=raw.received))
    most = before
    while raw.received < 100 << 20:
        most = max(most, psutil.Process(raw.process.pid).memory_info().rss)
        wait_out(0.01)
    assert most - before < 24 << 20
    raw.close()


def test_a_run_with_a_backlog_does_not_hold_up_another(agent: AgentClient, record: HostRecord) -> None:
    large_id, large = prepared(agent, record)
    small_id, small = prepared(agent, record)
    (large / "events.box.0.jsonl").write_bytes(os.urandom(64 << 20))
    (small / "events.box.0.jsonl").write_bytes(b"{}\n")
    order: list[tuple[str, int]] = []

    def sink(message: said.OfRun) -> None:
        if isinstance(message, said.FileChunk):
            order.append((message.run_id, len(message.data)))

    agent.follow(large_id, ("box",), {}, sink)
    agent.follow(small_id, ("box",), {}, sink)
    wait_for(lambda: sum(size for run, size in order if run == large_id) == 64 << 20, "the large one")
    first_small = next(index for index, (run, _) in enumerate(order) if run == small_id)
    assert sum(size for run, size in order[:first_small] if run == large_id) < 48 << 20


def test_what_cannot_be_read_is_said_and_healed(agent: AgentClient, record: HostRecord) -> None:
    run_id, run_dir = prepared(agent, record)
    blocked = run_dir / "events.box.0.jsonl"
    blocked.mkdir()
    seen: list[said.OfRun] = []
    agent.follow(run_id, ("box",), {}, seen.append)
    wait_for(lambda: any(isinstance(message, said.Unread) for message in seen), "the fault to be said")
    assert not any(isinstance(message, said.CaughtUp) for message in seen)
    blocked.rmdir()
    blocked.write_bytes(b"{}\n")
    wait_for(lambda: isinstance(seen[-1], said.CaughtUp), "it to heal")
    assert [message.data for message in seen if isinstance(message, said.FileChunk)] == [b"{}\n"]


def test_a_prepared_run_is_started_only_once_it_is_there(agent: AgentClient, record: HostRecord) -> None:
    run_id, run_dir = prepared(agent, record)
    standing = agent.ask(said.StandingOf(run_id=run_id, nodes=("box", "other")), said.StandingList).standings
    assert [(one.node, one.is_there) for one in standing] == [("box", True), ("other", True)]
    agent.ask(said.RemoveRun(run_id=run_id), said.Done)
    assert not run_dir.exists()
    with pytest.raises(UserError, match="no run"):
        agent.ask(said.StartRun(run_id=run_id, node="box", attempt=1), said.Done)
    gone = agent.ask(said.StandingOf(run_id=run_id, nodes=("box",)), said.StandingList).standings
    assert not gone[0].is_there


def _raw(record: HostRecord, data: bytes) -> tuple[list[said.FromAgent], int]:
    """Feed an agent bytes and the end of its input; return what it says and its exit status."""
    argv = [sys.executable, "-P", "-m", "core.cli.agent", "--home", record.work_dir]
    done = subprocess.run(argv, input=data, capture_output=True, timeout=60, check=False)
    reader = FrameReader()
    decode = msgspec.msgpack.Decoder(said.FromAgent).decode
    return [decode(payload) for payload in reader.feed(done.stdout)], done.returncode


@pytest.mark.parametrize(
    "damage",
    [b"\xff\xff\xff\xff\x00", frame(b"\xc1"), frame(msgspec.msgpack.encode({"type": "Format", "disk": "all"}))],
    ids=["no frame", "no message", "an unknown request"],
)
def test_damage_is_answered_once_and_ends_the_agent(record: HostRecord, damage: bytes) -> None:
    good = frame(msgspec.msgpack.encode(said.Asked(number=7, body=said.Ping())))
    messages, code = _raw(record, MARK + good + damage + good)
    assert code == 0
    assert isinstance(messages[0], said.Hello)
    answers = [message for message in messages if isinstance(message, said.Answered)]
    assert isinstance(answers[-1].body, said.Refused)
    assert [answer.number for answer in answers] in ([7, -1], [-1])


def test_a_home_that_cannot_be_made_is_told(record: HostRecord, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    inside = msgspec.structs.replace(record, work_dir=str(tmp_path / "file" / "home"))
    with pytest.raises(EnvironmentProblem, match="does not start on local"):
        AgentClient.start(LocalLink(), inside)


def test_who_waits_is_told_when_the_agent_is_killed(agent: AgentClient, deaf: int) -> None:
    faults: list[EnvironmentProblem] = []
    agent.on_close(faults.append)
    pid = agent.hello.pid
    threading.Timer(0.2, psutil.Process(pid).kill).start()
    with pytest.raises(EnvironmentProblem, match="lost"):
        agent.ask(said.Connect(address="127.0.0.1", port=deaf, token="t", timeout_s=30.0), said.Connected)
    wait_for(lambda: faults, "the loss to be told")
    assert not agent.is_alive()
    with pytest.raises(EnvironmentProblem, match="lost"):
        agent.ping()
