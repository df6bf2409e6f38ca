"""The event writer and the reader by offset: whole lines, numbering, torn lines, non-finite numbers, kill -9."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.contracts.events import LogEvent, MetricEvent, StateEvent, UnknownEvent
from core.contracts.states import RunState
from core.runlog import emit
from core.runlog.emit import EventWriter
from core.runlog.tail import parse_line, read_batch
from tests.helpers.waiting import wait_for


def test_what_is_written_is_read_back_in_order(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path / "events.local.0.jsonl")
    writer.write("state", state="running")
    writer.metric(1, {"loss": 0.5, "lr": 1e-3})
    writer.write("log", message='tab\t, quote " and ünïcode\nnewline', level="warning")
    writer.close()
    (file,) = read_batch(tmp_path, {}).files
    state, metric, log = file.events
    assert isinstance(state, StateEvent)
    assert state.state is RunState.RUNNING
    assert isinstance(metric, MetricEvent)
    assert metric.values == {"loss": 0.5, "lr": 1e-3}
    assert isinstance(log, LogEvent)
    assert log.message == 'tab\t, quote " and ünïcode\nnewline'
    assert [event.seq for event in file.events] == [0, 1, 2]


def test_non_finite_values_travel_as_their_names(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path / "events.local.0.jsonl")
    writer.metric(1, {"a": float("nan"), "b": float("inf"), "c": float("-inf"), "d": 1.0})
    writer.close()
    (file,) = read_batch(tmp_path, {}).files
    assert isinstance(file.events[0], MetricEvent)
    assert file.events[0].values == {"a": "nan", "b": "inf", "c": "-inf", "d": 1.0}
    json.loads((tmp_path / "events.local.0.jsonl").read_text(), parse_constant=pytest.fail)


def test_a_torn_last_line_waits_and_is_closed_by_the_next_writer(tmp_path: Path) -> None:
    path = tmp_path / "events.local.0.jsonl"
    writer = EventWriter(path)
    writer.metric(1, {"loss": 1.0})
    writer.close()
    whole = path.stat().st_size
    with path.open("ab") as file:
        file.write(b'{"v":1,"seq":1,"ts":1.0,"type":"metr')
    first = read_batch(tmp_path, {})
    assert first.files[0].end == whole
    assert read_batch(tmp_path, {path.name: whole}).is_empty
    writer = EventWriter(path)
    writer.metric(2, {"loss": 0.5})
    writer.close()
    (rest,) = read_batch(tmp_path, {path.name: whole}).files
    assert rest.damaged_lines == 1
    assert [event.seq for event in rest.events] == [1]


@pytest.mark.parametrize("torn", ["", '{"v":1,"seq":2,"ty'])
def test_the_numbering_goes_on_after_a_very_long_line(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "events.local.0.jsonl"
    writer = EventWriter(path)
    writer.write("log", message="short")
    writer.write("log", message="x" * 300_000)
    writer.close()
    with path.open("a") as file:
        file.write(torn)
    writer = EventWriter(path)
    writer.write("log", message="next")
    writer.close()
    events = [event for file in read_batch(tmp_path, {}).files for event in file.events]
    assert [event.seq for event in events] == [0, 1, 2]


def test_unknown_types_are_kept_and_unknown_fields_ignored() -> None:
    unknown = parse_line(b'{"v":2,"seq":3,"ts":1.5,"type":"hologram","depth":3}')
    assert unknown == UnknownEvent(seq=3, ts=1.5, v=2, original_type="hologram")
    known = parse_line(b'{"v":2,"seq":3,"ts":1.5,"type":"log","message":"m","colour":"red"}')
    assert isinstance(known, LogEvent)
    for damaged in (b"", b"{", b"null", b'{"type":"log"}', b"\xff\xfe", b'{"seq":"x","ts":1,"v":1,"type":"t"}'):
        assert parse_line(damaged) is None


@given(
    sizes=st.lists(st.integers(1, 400), min_size=1, max_size=30),
    values=st.lists(st.floats(allow_nan=False), max_size=20),
)
def test_any_split_into_batches_reads_the_same_events(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], values: list[float]
) -> None:
    folder = tmp_path_factory.mktemp("run")
    writer = EventWriter(folder / "events.local.0.jsonl")
    for step, value in enumerate(values):
        writer.metric(step, {"v": value})
    writer.close()
    whole = [event for file in read_batch(folder, {}).files for event in file.events]
    pieces: list[object] = []
    offsets: dict[str, int] = {}
    turn = 0
    while not (batch := read_batch(folder, offsets, 200 + sizes[turn % len(sizes)])).is_empty:
        turn += 1
        for file in batch.files:
            pieces += file.events
            offsets[file.name] = file.end
    assert pieces == whole


def test_the_limit_says_that_there_is_more(tmp_path: Path) -> None:
    for rank in (0, 1):
        writer = EventWriter(tmp_path / f"events.local.{rank}.jsonl")
        for step in range(100):
            writer.metric(step, {"v": 1.0})
        writer.close()
    first = read_batch(tmp_path, {}, 1000)
    assert first.more
    assert not read_batch(tmp_path, {}).more


def test_a_line_handed_over_survives_kill_9(tmp_path: Path) -> None:
    code = (
        "import sys; from core.runlog.emit import EventWriter\n"
        "writer = EventWriter(sys.argv[1]); step = 0\n"
        "while True:\n"
        "    writer.metric(step, {'v': float(step)}); print(step, flush=True); step += 1\n"
    )
    path = tmp_path / "events.local.0.jsonl"
    with subprocess.Popen([sys.executable, "-P", "-c", code, str(path)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        acknowledged = [int(child.stdout.readline()) for _ in range(200)]
        os.kill(child.pid, signal.SIGKILL)
        acknowledged += [int(line) for line in child.stdout if line.endswith(b"\n")]
    (file,) = read_batch(tmp_path, {}, 64 << 20).files
    steps = [event.step for event in file.events if isinstance(event, MetricEvent)]
    assert steps[: len(acknowledged)] == acknowledged


def test_the_module_functions_write_only_when_launched_by_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emit, "_writer", None)
    monkeypatch.delenv("PILOTHOUSE_EVENTS", raising=False)
    emit.metric(1, loss=0.5)
    monkeypatch.setenv("PILOTHOUSE_EVENTS", str(tmp_path))
    monkeypatch.setenv("RANK", "3")
    emit.metric(1, loss=0.5)
    emit.log("hello")
    emit.progress(0.5, "half")
    emit.result(accuracy=0.9)
    (file,) = read_batch(tmp_path, {}).files
    assert file.name == "events.local.3.jsonl"
    assert len(file.events) == 4
    writer = emit._own_writer()
    assert writer is not None
    writer.close()


def test_the_writer_needs_the_standard_library_only(tmp_path: Path) -> None:
    copy = tmp_path / "pilothouse_emit.py"
    copy.write_bytes(Path(emit.__file__).read_bytes())
    code = "import pilothouse_emit as p; p.metric(2, loss=1.5)"
    environment = {**os.environ, "PILOTHOUSE_EVENTS": str(tmp_path), "PYTHONPATH": str(tmp_path)}
    subprocess.run([sys.executable, "-S", "-c", code], env=environment, check=True, cwd=tmp_path)
    assert len(read_batch(tmp_path, {}).files) == 1


def test_a_full_disk_raises_at_the_call_whose_line_was_lost_and_the_next_line_is_whole(tmp_path: Path) -> None:
    """A file size limit stands in for a full disk: the kernel writes a part of the line, then refuses."""
    code = (
        "import resource, signal, sys; from core.runlog.emit import EventWriter\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "writer = EventWriter(sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500, resource.RLIM_INFINITY))\n"
        "written = 0\n"
        "try:\n"
        "    while True: writer.metric(written, {'v': 1.0}); written += 1\n"
        "except OSError: pass\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "writer.metric(written, {'v': 2.0}); print(written)\n"
    )
    path = tmp_path / "events.local.0.jsonl"
    done = subprocess.run([sys.executable, "-P", "-c", code, str(path)], capture_output=True, check=True)
    (file,) = read_batch(tmp_path, {}).files
    assert [event.seq for event in file.events] == list(range(int(done.stdout) + 1))
    assert file.damaged_lines <= 1


def test_a_growing_file_is_followed(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path / "events.local.0.jsonl")
    offsets: dict[str, int] = {}
    for step in range(3):
        writer.metric(step, {"v": 1.0})
        (file,) = wait_for(lambda: read_batch(tmp_path, offsets).files, "the line")
        assert len(file.events) == 1
        offsets[file.name] = file.end
    writer.close()
