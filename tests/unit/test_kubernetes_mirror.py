"""The lines in a pod's log, and the mirror that is made of them: byte for byte, once, and nowhere else."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.contracts.placement import NodePlacement, Placement
from core.contracts.states import RunState
from core.fleet.kubernetes.echo import RunEcho
from core.fleet.kubernetes.log_lines import (
    MARK,
    PIECE_BYTES,
    Beat,
    Begin,
    End,
    Part,
    Piece,
    line_of,
    packed,
    parts_of,
    record_of,
    unpacked,
)
from core.fleet.kubernetes.node_mirror import MissingPiece, NodeMirror, OtherFiles
from core.fleet.kubernetes.pod_run_dir import prepare
from core.jobs.identity import own_identity
from core.jobs.records import ExitRecord, SupervisorRecord, write_record

TOKEN = "0123456789abcdef"


def piece(offset: int, data: bytes, file: str = "stdout.node0.log") -> Piece:
    return Piece(file=file, offset=offset, data=packed(data))


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


@pytest.fixture
def mirror(run_dir: Path) -> NodeMirror:
    return NodeMirror(run_dir, "node0", holds_exit=False)


@given(st.binary(max_size=3000))
def test_any_bytes_travel_in_one_printable_line(data: bytes):
    line = line_of(piece(7, data))
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert all(32 <= byte < 127 for byte in line[:-1])
    record = record_of(b"2026-11-24T00:00:00.1Z " + line)
    assert isinstance(record, Piece)
    assert unpacked(record.data) == data


def test_a_line_is_shorter_than_what_container_runtimes_cut():
    data = os.urandom(PIECE_BYTES)
    assert len(line_of(piece(1 << 50, data, "events.node9999.supervisor.jsonl"))) < 12 << 10
    assert all(len(line_of(part)) < 12 << 10 for part in parts_of("environment.json", 1 << 62, data * 5))


@pytest.mark.parametrize("line", [b"", b"hello", MARK, MARK + b"{", MARK + b'{"type":"other"}', MARK + b"\xff\xfe"])
def test_what_is_no_record_is_none(line: bytes):
    assert record_of(line) is None


def test_a_bomb_is_refused():
    with pytest.raises(ValueError, match="too large"):
        unpacked(packed(bytes(10 << 20)))


# -- mirror ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 40), min_size=1, max_size=30), st.binary(min_size=41, max_size=41))
def test_overlaps_are_taken_once(starts: list[int], whole: bytes):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        mirror = NodeMirror(Path(folder), "node0", holds_exit=False)
        for start in [0, *starts]:
            mirror.take(piece(0, whole[:start]))
            mirror.take(piece(min(start, _size(folder)), whole[min(start, _size(folder)) :][:5]))
        mirror.take(piece(0, whole))
        assert (Path(folder) / "stdout.node0.log").read_bytes() == whole


def _size(folder: str) -> int:
    path = Path(folder) / "stdout.node0.log"
    return path.stat().st_size if path.exists() else 0


def test_a_gap_is_noticed_and_filled_only_when_told(mirror: NodeMirror, run_dir: Path):
    mirror.take(piece(0, b"one\n"))
    with pytest.raises(MissingPiece):
        mirror.take(piece(10, b"three\n"))
    assert (run_dir / "stdout.node0.log").read_bytes() == b"one\n"
    mirror.take(piece(10, b"three\n"), fill=True)
    assert (run_dir / "stdout.node0.log").read_bytes() == b"one\n     \nthree\n"
    assert mirror.lost_bytes == 6


@pytest.mark.parametrize(
    "name",
    [
        "../outside.jsonl",
        "/etc/passwd",
        "spec.toml",
        "placement.json",
        "link.node0.json",
        "events.node1.0.jsonl",
        "events.node0.a/b.jsonl",
        "checkpoints/x",
        "",
    ],
)
def test_only_the_files_of_the_node_are_written(name: str, mirror: NodeMirror, run_dir: Path):
    mirror.take(piece(0, b"x", name))
    mirror.take(Part(file=name, version=1, number=0, total=1, data=packed(b"x")))
    assert list(run_dir.parent.rglob("*")) == [run_dir]


def test_small_files_are_replaced_as_a_whole_and_never_by_an_older_one(mirror: NodeMirror, run_dir: Path):
    new = list(parts_of("environment.json", 2, os.urandom(20_000)))
    old = list(parts_of("environment.json", 1, b"old"))
    assert len(new) == 3
    mirror.take(new[2])
    mirror.take(new[0])
    assert not (run_dir / "environment.json").exists()
    mirror.take(old[0])
    mirror.take(new[1])
    assert (run_dir / "environment.json").read_bytes() == b"".join(unpacked(part.data) for part in new)
    NodeMirror(run_dir, "node1", holds_exit=False).take(old[0])
    assert (run_dir / "environment.json").stat().st_size == 20_000


def test_other_files_under_the_same_names_are_refused(mirror: NodeMirror, run_dir: Path):
    mirror.take(Begin(node="node0", token=TOKEN, attempt=1, ts=0))
    again = NodeMirror(run_dir, "node0", holds_exit=False)
    again.take(Begin(node="node0", token=TOKEN, attempt=2, ts=0))
    with pytest.raises(OtherFiles, match="replaced"):
        again.take(Begin(node="node0", token="f" * 16, attempt=1, ts=0))


def test_an_exit_record_is_kept_back_while_the_cluster_may_start_the_node_again(run_dir: Path):
    mirror = NodeMirror(run_dir, "node0", holds_exit=True)
    for part in parts_of("exit.node0.json", 1, b"{}"):
        mirror.take(part)
    assert not (run_dir / "exit.node0.json").exists()
    assert mirror.has_exit
    assert mirror.release()
    assert (run_dir / "exit.node0.json").read_bytes() == b"{}"


def test_beats_and_the_last_word(mirror: NodeMirror, run_dir: Path):
    record = run_dir / "supervisor.node0.json"
    record.write_text("{}")
    os.utime(record, (1, 1))
    mirror.take(Beat(ts=1.0, sizes={}))
    assert record.stat().st_mtime > 1
    mirror.take(End(ts=2.0, state="succeeded", sizes={}))
    assert (mirror.beats, mirror.ended) == (1, "succeeded")


def test_what_else_the_pod_prints_is_kept_within_bounds(mirror: NodeMirror, run_dir: Path):
    for _ in range(200):
        mirror.take_other(b"\x1b[31m\x00" + b"x" * 5000 + b"\n")
    assert 200_000 < (run_dir / "pod.node0.log").stat().st_size < 300_000
    assert len(mirror.last_other) <= 400


# -- echo -----------------------------------------------------------------------------------------------------------


def test_an_echo_prints_what_is_new_once_and_the_supervisors_log_last(
    tmp_path: Path, mirror: NodeMirror, run_dir: Path
):
    pod = tmp_path / "pod"
    pod.mkdir()
    lines: list[bytes] = []
    echo = RunEcho(pod, "node0", lines.append)
    (pod / "events.node0.supervisor.jsonl").write_bytes(b"s\n")
    (pod / "events.node0.0.jsonl").write_bytes(b"a\n")
    (pod / "events.node1.0.jsonl").write_bytes(b"not mine\n")
    (pod / "stdout.node0.log").write_bytes(os.urandom(700_000))
    assert echo.sweep()  # more than one sweep takes
    echo.end("succeeded")
    with (pod / "events.node0.0.jsonl").open("ab") as file:
        file.write(b"b\n")
    echo.sweep()
    records = [record for line in lines if (record := record_of(line)) is not None]
    first = [record.file for record in records if isinstance(record, Piece)]
    assert first.index("events.node0.supervisor.jsonl") > first.index("stdout.node0.log")
    for record in records:
        mirror.take(record)
    for name in ("events.node0.supervisor.jsonl", "events.node0.0.jsonl", "stdout.node0.log"):
        assert (run_dir / name).read_bytes() == (pod / name).read_bytes()
    assert not (run_dir / "events.node1.0.jsonl").exists()
    pieces = [(record.file, record.offset) for record in records if isinstance(record, Piece)]
    assert len(pieces) == len(set(pieces))


# -- the run directory in a pod ---------------------------------------------------------------------------------------


def test_a_pod_joins_the_attempt_that_goes_on_and_begins_the_next_where_all_have_ended(tmp_path: Path):
    files, home = tmp_path / "files", tmp_path / "volume"
    files.mkdir()
    (files / "spec.toml").write_text('kind = "train.script"\n')
    nodes = tuple(NodePlacement(node=f"node{index}") for index in range(2))
    write_record(files / "placement.json", Placement(nodes=nodes, engine="kubernetes"))

    def start(node: str) -> int:
        pod = prepare(files, home, "run", node)
        me = own_identity()
        record = SupervisorRecord(identity=me, node=node, attempt=pod.attempt, started=time.time())
        write_record(pod.run_dir / f"supervisor.{node}.json", record)
        return pod.attempt

    assert start("node0") == 1
    # Its pod is taken away before the other one has ever begun.
    assert start("node0") == 2
    assert start("node1") == 2
    for node in ("node0", "node1"):
        ended = ExitRecord(state=RunState.FAILED, message="", attempt=2, started=0.0, ended=1.0)
        write_record(home / "runs" / "run" / f"exit.{node}.json", ended)
    assert start("node1") == 3
    assert start("node0") == 3
    os.utime(home / "runs" / "run" / "supervisor.node0.json", (1, 1))
    assert start("node1") == 4, "one that is silent is gone, and comes back with the next number"
