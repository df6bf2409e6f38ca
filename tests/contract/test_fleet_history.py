"""The index of a run on several nodes: the head speaks for the run, and nobody else's lines become its curves."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from core.contracts.placement import NodePlacement, Placement
from core.contracts.states import RunState
from core.contracts.units import reading_of
from core.history.history import History
from core.runlog.layout import RunLayout
from core.runlog.placements import heads_of
from core.runlog.tail import read_batch
from tests.helpers.builders import EPOCH, LogFile, new_run_dir


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def history(home: Path) -> History:
    return History.open(home / "history.sqlite")


def place(run_dir: Path, *nodes: str, attempt: int = 1) -> None:
    """Write the placement of an attempt; an earlier one is put aside as a resume does."""
    path = RunLayout(run_dir).placement
    if path.exists():
        path.rename(run_dir / f"placement.attempt{attempt - 1}.json")
    placement = Placement(nodes=tuple(NodePlacement(node=node, host=node) for node in nodes), attempt=attempt)
    path.write_bytes(msgspec.json.encode(placement))


def drain(history: History, run_dir: Path) -> None:
    while not (batch := read_batch(run_dir, history.offsets(run_dir.name))).is_empty:
        history.ingest(run_dir, batch)


def placed_run(home: Path) -> tuple[Path, RunLayout]:
    run_dir = new_run_dir(home)
    place(run_dir, "h1", "h2")
    return run_dir, RunLayout(run_dir)


def test_only_the_head_says_where_the_run_stands(home: Path, history: History) -> None:
    run_dir, layout = placed_run(home)
    head = LogFile(layout.events("supervisor", "h1"))
    head.write("state", EPOCH + 1, state="running", message="", hint="")
    other = LogFile(layout.events("supervisor", "h2"))
    other.write("node", EPOCH + 2, node="h2", state="failed", message="Its part failed.", hint="")
    other.write("state", EPOCH + 3, state="failed", message="", hint="")
    LogFile(layout.events("worker", "h2")).write("progress", EPOCH + 4, done=0.9, stage="far", step=7)
    drain(history, run_dir)
    summary = history.summary(run_dir.name)
    assert (summary.state, summary.stage, summary.step) == (RunState.RUNNING, "", None)
    assert summary.host == "h1, h2"
    head.write("state", EPOCH + 5, state="succeeded", message="", hint="")
    drain(history, run_dir)
    assert history.summary(run_dir.name).state is RunState.SUCCEEDED


def test_the_heads_verdict_goes_before_what_its_own_worker_said(home: Path, history: History) -> None:
    run_dir, layout = placed_run(home)
    LogFile(layout.events("worker", "h1")).write(
        "failure", EPOCH + 1, kind="user", message="The connection was reset by a peer.", hint="x"
    )
    LogFile(layout.events("worker", "h2")).write("failure", EPOCH + 2, kind="user", message="Out of memory.", hint="")
    verdict = {"state": "failed", "message": "Rank 3 on h2 ran out of memory.", "hint": "Halve the batch."}
    LogFile(layout.events("supervisor", "h1")).write("state", EPOCH + 3, **verdict)
    drain(history, run_dir)
    summary = history.summary(run_dir.name)
    assert (summary.message, summary.hint) == ("Rank 3 on h2 ran out of memory.", "Halve the batch.")


def test_no_two_writers_share_a_curve(home: Path, history: History) -> None:
    run_dir, layout = placed_run(home)
    for name, node, value in (("worker", "h1", 1.0), ("worker", "h2", 2.0), (1, "h2", 3.0)):
        LogFile(layout.events(name, node)).metrics({"loss": np.full(4, value)})
    for node in ("h1", "h2"):
        LogFile(layout.telemetry(node)).write("sample", EPOCH, values={"cpu.percent": 5.0, "gpu.1.power_w": 7.0})
    drain(history, run_dir)
    detail = history.detail(run_dir.name)
    assert detail.metric_keys == ("loss", "loss [h2]", "loss [rank 1]")
    assert set(detail.telemetry_keys) == {f"{n}:{k}" for n in ("h1", "h2") for k in ("cpu.percent", "gpu.1.power_w")}
    assert history.curve(run_dir.name, "loss", points=100).value.tolist() == [1.0] * 4


def test_another_nodes_restart_with_a_fast_clock_voids_nothing(home: Path, history: History) -> None:
    run_dir, layout = placed_run(home)
    LogFile(layout.events("worker", "h1")).metrics({"loss": np.arange(4.0)})
    LogFile(layout.events("worker", "h2")).write("attempt", EPOCH + 900, attempt=2, resumed_from_step=None)
    drain(history, run_dir)
    assert history.curve(run_dir.name, "loss", points=100).value.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert history.summary(run_dir.name).attempt == 1


def test_a_replacement_head_with_a_slow_clock_is_believed_and_a_rebuild_agrees(home: Path, history: History) -> None:
    run_dir, layout = placed_run(home)
    LogFile(layout.events("supervisor", "h1")).write("state", EPOCH, state="running", message="", hint="")
    drain(history, run_dir)
    history.conclude(run_dir.name, RunState.LOST, "The host is gone.")
    place(run_dir, "h3", "h2", attempt=2)
    assert heads_of(run_dir) == {"h1", "h3"}
    history.add(run_dir)
    history.reopen(run_dir.name)
    assert history.summary(run_dir.name).state is RunState.QUEUED
    new = LogFile(layout.events("supervisor", "h3"))
    new.write("state", EPOCH - 500, state="running", message="", hint="")
    drain(history, run_dir)
    summary = history.summary(run_dir.name)
    assert (summary.state, summary.host) == (RunState.RUNNING, "h3, h2")
    new.write("state", EPOCH + 500, state="succeeded", message="", hint="")
    drain(history, run_dir)
    history.clear()
    history.index([run_dir])
    assert history.summary(run_dir.name).state is RunState.SUCCEEDED


def test_a_reading_of_another_host_keeps_its_unit() -> None:
    reading = reading_of("h1:gpu.2.power_w")
    assert (reading.key, reading.title, reading.unit) == ("h1:gpu.2.power_w", "h1: GPU 2 power", "W")
    assert reading.group == reading_of("gpu.0.power_w").group
    assert reading_of("val:loss").title == "val:loss"


def test_what_a_cluster_says_of_a_waiting_run_is_shown_until_the_run_speaks(home: Path, history: History) -> None:
    run_dir, layout = placed_run(home)
    history.add(run_dir)
    history.conclude(run_dir.name, RunState.QUEUED, "It waits for free nodes.", "Ask for fewer.")
    summary = history.summary(run_dir.name)
    assert (summary.state, summary.message) == (RunState.QUEUED, "It waits for free nodes.")
    assert history.conclude(run_dir.name, RunState.QUEUED, "It waits for free nodes.", "Ask for fewer.") is None
    LogFile(layout.events("supervisor", "h1")).write("state", EPOCH, state="running", message="", hint="")
    drain(history, run_dir)
    assert history.conclude(run_dir.name, RunState.QUEUED, "It waits for free nodes.") is None
    assert (history.summary(run_dir.name).state, history.summary(run_dir.name).message) == (RunState.RUNNING, "")
