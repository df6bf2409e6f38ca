"""The mirror of a host's nodes: what continues it is appended, what does not is asked for anew, nothing else is touched."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.contracts import agent as said
from core.contracts.mirrors import LinkRecord
from core.contracts.placement import NodePlacement, Placement
from core.contracts.states import RunState
from core.fleet.node_mirror import NodeMirrors
from core.fleet.standing import standing_of
from core.jobs.pushing import NodeFiles, RunPusher
from core.jobs.records import write_record
from core.runlog.layout import RunLayout

NODES = ("head", "n-1")
LOG = "events.head.0.jsonl"


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    run_dir = tmp_path / "20261124-061203-toy-3f9a1c"
    run_dir.mkdir()
    return RunLayout(run_dir)


@pytest.fixture
def mirrors(layout: RunLayout) -> Iterator[NodeMirrors]:
    opened = NodeMirrors(layout.run_dir, NODES, placement())
    assert opened.take_over()
    yield opened
    opened.close()


def placement(attempt: int = 1) -> Placement:
    return Placement(nodes=tuple(NodePlacement(node=node, host="box") for node in NODES), attempt=attempt)


def chunk(data: bytes, offset: int = 0, name: str = LOG, **fields: object) -> said.FileChunk:
    whole = {"run_id": "r", "name": name, "offset": offset, "data": data, **fields}
    return msgspec.convert(whole, said.FileChunk)


def caught_up(began: float, state: RunState | None, attempt: int = 1) -> said.CaughtUp:
    standings = tuple(said.NodeStanding(node=node, state=state, attempt=attempt, pids=()) for node in NODES)
    return said.CaughtUp(run_id="r", began=began, standings=standings)


def link(layout: RunLayout, node: str = "head") -> LinkRecord:
    return msgspec.json.decode(layout.link(node).read_bytes(), type=LinkRecord)


def test_what_continues_is_appended_and_what_is_known_is_not_doubled(mirrors: NodeMirrors, layout: RunLayout) -> None:
    assert mirrors.take(chunk(b"one\n"), 0.0)
    assert mirrors.take(chunk(b"ne\ntwo\n", 1), 0.0)
    assert not mirrors.take(chunk(b"two\n", 4), 0.0)
    assert (layout.run_dir / LOG).read_bytes() == b"one\ntwo\n"
    assert mirrors.offsets() == {LOG: 8}
    assert not mirrors.wants_restart()


def test_a_gap_is_refused_and_asked_for_anew(mirrors: NodeMirrors, layout: RunLayout) -> None:
    mirrors.take(chunk(b"one\n"), 0.0)
    assert not mirrors.take(chunk(b"three\n", 8), 0.0)
    assert not mirrors.take(chunk(b"two\n", 4), 0.0), "until it is asked for anew, nothing can be trusted to continue"
    mirrors.take(caught_up(1.0, RunState.SUCCEEDED), 0.0)
    assert not link(layout).is_complete
    assert mirrors.wants_restart()
    mirrors.take(chunk(b"two\nthree\n", 4), 0.0)
    assert (layout.run_dir / LOG).read_bytes() == b"one\ntwo\nthree\n"


HOSTILE = """spec.toml placement.json ../x.jsonl events.head.../x.jsonl events.head.a/../../x.jsonl x.head.jsonl
    events.other.0.jsonl link.head.json exit.head./../spec.toml control/stop events.head.\0.jsonl ."""


@pytest.mark.parametrize("name", HOSTILE.split())
@pytest.mark.parametrize("is_record", [False, True])
def test_a_host_writes_nothing_else_here(mirrors: NodeMirrors, layout: RunLayout, name: str, is_record: bool) -> None:
    before = sorted(layout.run_dir.parent.rglob("*"))
    assert not mirrors.take(chunk(b"evil", name=name, is_record=is_record), 0.0)
    assert sorted(layout.run_dir.parent.rglob("*")) == before


def test_a_record_replaces_the_former(mirrors: NodeMirrors, layout: RunLayout) -> None:
    mirrors.take(chunk(b"{}", name="exit.n-1.json", is_record=True), 0.0)
    mirrors.take(chunk(b"[]", name="exit.n-1.json", is_record=True), 0.0)
    assert layout.exit_record("n-1").read_bytes() == b"[]"
    assert not mirrors.take(chunk(b"x", name="exit.n-1.json"), 0.0), "a record does not grow"


def test_one_process_mirrors_and_the_next_takes_over(mirrors: NodeMirrors, layout: RunLayout) -> None:
    other = NodeMirrors(layout.run_dir, NODES, placement())
    assert not other.take_over()
    assert not other.take(chunk(b"one\n"), 0.0)
    assert other.wants_restart()
    mirrors.take(chunk(b"one\n"), 0.0)
    mirrors.close()
    assert other.take_over()
    assert other.offsets() == {LOG: 4}
    other.close()


def test_an_output_begun_anew_keeps_its_offsets(mirrors: NodeMirrors, layout: RunLayout) -> None:
    name = layout.stdout("head").name
    mirrors.take(chunk(b"old", name=name, size=3), 0.0)
    mirrors.take(chunk(b"new line\n", 1000, name, restart=True, size=1009), 0.0)
    assert layout.stdout("head").read_bytes() == b"new line\n"
    assert (link(layout).stdout_start, link(layout).stdout_bytes) == (1000, 1009)
    mirrors.close()
    again = NodeMirrors(layout.run_dir, NODES, placement())
    assert again.take_over()
    assert again.offsets() == {name: 1009}
    again.close()


def test_complete_is_said_by_the_host_for_this_attempt(mirrors: NodeMirrors, layout: RunLayout) -> None:
    mirrors.take(caught_up(50.0, None), 7.0)
    assert mirrors.is_here(43.0)
    assert not mirrors.is_here(43.1)
    assert not mirrors.is_finished()
    mirrors.take(caught_up(60.0, RunState.SUCCEEDED), 7.0)
    assert mirrors.is_finished()
    assert link(layout).is_complete
    mirrors.close()
    later = NodeMirrors(layout.run_dir, NODES, placement(attempt=2))
    assert not later.is_finished()
    assert later.take_over()
    later.take(caught_up(70.0, RunState.SUCCEEDED, attempt=1), 7.0)
    assert not later.is_finished()
    later.close()


def test_silence_keeps_the_last_contact(mirrors: NodeMirrors, layout: RunLayout) -> None:
    mirrors.take(caught_up(1.0, None), 0.0)
    contact = link(layout).last_contact
    assert mirrors.note_silence("It does not answer.")
    noted = link(layout)
    assert (noted.is_reachable, noted.message) == (False, "It does not answer.")
    assert noted.last_contact is not None
    assert contact is not None
    assert noted.last_contact >= contact
    assert not mirrors.note_silence("It does not answer.")
    assert mirrors.take(caught_up(2.0, None), 0.0)
    assert link(layout).is_reachable


def test_what_cannot_be_read_there_is_said_and_completes_nothing(layout: RunLayout, tmp_path: Path) -> None:
    there = tmp_path / "there"
    layout.run_dir.rename(there)
    (there / LOG).mkdir()
    pusher = RunPusher(there, NODES, {}, backlog_bytes=1 << 20, tail_bytes=1 << 10)
    with pytest.raises(IsADirectoryError):
        list(pusher.chunks())


def test_an_absent_run_has_nothing_to_push(tmp_path: Path) -> None:
    assert list(RunPusher(tmp_path / "none", NODES, {}, backlog_bytes=1, tail_bytes=1).chunks()) == []


@given(st.text(max_size=30))
def test_only_names_of_the_nodes_are_followed(text: str) -> None:
    files = NodeFiles(NODES)
    for name in (text, f"events.head.{text}.jsonl", f"exit.head.{text}", f"stdout.{text}.log"):
        if files.node_of_stream(name) or files.is_record(name):
            assert Path("/run", name).name == name
            assert "\0" not in name


def test_growth_is_pushed_exactly_once(layout: RunLayout, tmp_path: Path) -> None:
    there = RunLayout(tmp_path / "there" / "r")
    there.run_dir.mkdir(parents=True)
    pusher = RunPusher(there.run_dir, NODES, {}, backlog_bytes=1 << 20, tail_bytes=1 << 10)
    mirrors = NodeMirrors(layout.run_dir, NODES, placement())
    assert mirrors.take_over()
    for number in range(50):
        with there.events(number % 3, NODES[number % 2]).open("ab") as file:
            file.write(b"x" * number)
        write_record(there.supervisor("head"), LinkRecord(stdout_bytes=number // 10))
        for one in pusher.chunks():
            mirrors.take(one, 0.0)
    mirrors.close()
    for path in there.run_dir.iterdir():
        assert (layout.run_dir / path.name).read_bytes() == path.read_bytes()
    assert list(pusher.chunks()) == []


def not_there() -> said.CaughtUp:
    standings = tuple(said.NodeStanding(node=node, is_there=False) for node in NODES)
    return said.CaughtUp(run_id="r", began=1.0, standings=standings)


def test_a_folder_that_a_launch_has_yet_to_make_is_waited_for(mirrors: NodeMirrors, layout: RunLayout) -> None:
    layout.spec.touch()
    mirrors.take(not_there(), 0.0)
    assert not mirrors.is_finished()
    assert not link(layout).is_complete
    mirrors.take(chunk(b"one\n"), 0.0)
    assert (layout.run_dir / LOG).read_bytes() == b"one\n"


def test_a_folder_that_was_removed_from_its_host_makes_the_run_lost_and_is_asked_for_anew_later(
    mirrors: NodeMirrors, layout: RunLayout
) -> None:
    write_record(layout.placement, placement())
    layout.spec.touch()
    os.utime(layout.spec, (1.0, 1.0))
    mirrors.take(not_there(), 0.0)
    assert mirrors.is_finished()
    standing = standing_of(layout.run_dir)
    assert (standing.state, standing.message) == (RunState.LOST, "box: The run's folder is not there any more.")
    mirrors.close()
    assert not NodeMirrors(layout.run_dir, NODES, placement()).is_finished()
