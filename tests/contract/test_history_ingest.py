"""The index against the run directories: each event exactly once, whoever reads it, in whatever pieces."""

from __future__ import annotations

import itertools
import math
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.contracts.errors import UserError
from core.contracts.runs import RunQuery
from core.contracts.states import RunState
from core.history.history import History
from core.runlog.layout import RunLayout
from core.runlog.tail import TailBatch, read_batch
from tests.helpers.builders import EPOCH, LogFile, build_run, new_run_dir, series
from tests.helpers.history_dump import dump


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def history(home: Path) -> History:
    return History.open(home / "history.sqlite")


def drain(history: History, run_dir: Path, limit_bytes: int = 4 << 20) -> int:
    """Fold all there is; return the number of batches."""
    for count in itertools.count():
        batch = read_batch(run_dir, history.offsets(run_dir.name), limit_bytes)
        if batch.is_empty:
            return count
        history.ingest(run_dir, batch)
    raise AssertionError


def whole(history: History, run_dir: Path, key: str) -> tuple[list[int], list[float]]:
    curve = history.curve(run_dir.name, key, points=1 << 40)
    assert curve.is_exact
    return curve.step.tolist(), curve.value.tolist()


def test_a_run_is_known_whole_after_it_was_folded(home: Path, history: History) -> None:
    parent = build_run(home, name="first", number=1)
    run_dir = build_run(home, tags=("b", "a"), parent=parent.name, spec={"seed": 7})
    assert history.index([parent, run_dir]) == ()
    detail = history.detail(run_dir.name)
    head = detail.summary
    assert (head.state, head.name, head.kind, head.tags) == (RunState.SUCCEEDED, "digits", "train.image", ("a", "b"))
    assert (head.created, head.started, head.ended) == (EPOCH, EPOCH + 0.5, EPOCH + 13.0)
    assert (head.step, head.total_steps, head.progress, head.parent) == (200, 200, 1.0, parent.name)
    assert head.last_line == "Saved after 200 steps."
    assert head.final["train/loss"] == head.final["final/train/loss"] == series("train/loss", 200)[-1]
    assert detail.metric_keys == ("lr", "train/accuracy", "train/loss")
    assert detail.telemetry_keys == ("cpu.percent", "memory.used_bytes")
    assert [marker.kind for marker in detail.markers] == ["checkpoint"] * 3
    assert detail.checkpoints[0].path == str(run_dir / "checkpoints/step-66")
    assert detail.artifacts[0].meta == {"parameters": 1_200_000}
    assert detail.spec_toml == RunLayout(run_dir).spec.read_text()
    assert history.params(run_dir.name)["seed"] == 7.0
    assert history.detail(parent.name).children == (run_dir.name,)


def test_an_update_brings_exactly_the_new_points(home: Path, history: History) -> None:
    run_dir = new_run_dir(home)
    log = LogFile(RunLayout(run_dir).events("worker"))
    log.metrics({"loss": np.array([3.0, math.nan])})
    first = history.ingest(run_dir, read_batch(run_dir, {}))
    log.metrics({"loss": np.array([math.inf, 1.0])}, first_step=2)
    RunLayout(run_dir).stdout().write_text("hello\n")
    second = history.ingest(run_dir, read_batch(run_dir, history.offsets(run_dir.name)))
    assert first.points["loss"].step.tolist() == [0, 1]
    assert second.points["loss"].step.tolist() == [2, 3]
    assert math.isnan(first.points["loss"].value[1])
    assert second.points["loss"].value.tolist() == [math.inf, 1.0]
    assert second.log_size_bytes == 6
    assert not second.detail_changed
    assert second.summary.final == {"loss": 1.0}
    assert whole(history, run_dir, "loss")[0] == [0, 1, 2, 3]


def test_the_latest_metric_may_be_no_number(home: Path, history: History) -> None:
    run_dir = build_run(home, metrics={"loss": np.array([1.0, math.nan]), "up": np.array([1.0, math.inf])}, steps=2)
    history.index([run_dir])
    final = history.runs(RunQuery(sort="metric:loss")).rows[0].final
    assert math.isnan(final["loss"])
    assert final["up"] == math.inf


def test_a_torn_line_waits_and_a_damaged_one_is_told(home: Path, history: History) -> None:
    run_dir = new_run_dir(home)
    log = LogFile(RunLayout(run_dir).events("worker"))
    log.metrics({"loss": np.array([3.0])})
    line = '{"v":1,"seq":1,"ts":1e10,"type":"metric","step":1,"values":{"loss":2.0}}\n'
    with log.path.open("a") as file:
        file.write("no event at all\n" + line[:30])
    drain(history, run_dir)
    assert whole(history, run_dir, "loss")[0] == [0]
    assert "1 damaged line" in history.summary(run_dir.name).message
    with log.path.open("a") as file:
        file.write(line[30:])
    drain(history, run_dir)
    assert whole(history, run_dir, "loss") == ([0, 1], [3.0, 2.0])


def test_a_batch_that_comes_twice_or_late_or_from_far_ahead_counts_once(home: Path, history: History) -> None:
    run_dir = build_run(home, steps=500)
    batches: list[TailBatch] = []
    offsets: dict[str, int] = {}
    while not (batch := read_batch(run_dir, offsets, 9_000)).is_empty:
        batches.append(batch)
        offsets.update({file.name: file.end for file in batch.files})
    shown: dict[int, float] = {}
    for batch in [*batches[:2], *batches, batches[0], batches[-1]]:
        update = history.ingest(run_dir, batch)
        if "train/loss" in update.points:
            points = update.points["train/loss"]
            shown.update(zip(points.step.tolist(), points.value.tolist(), strict=True))
    ahead = History.open(home / "other.sqlite")
    ahead.ingest(run_dir, batches[-1])
    drain(ahead, run_dir)
    expected = series("train/loss", 500).tolist()
    assert whole(history, run_dir, "train/loss") == (list(range(500)), expected)
    assert list(shown.values()) == expected, "whoever reads along sees every point, also those already stored"
    assert dump(home / "other.sqlite") == dump(home / "history.sqlite")


def restarted_run(home: Path, from_step: int | None, steps: int = 9000, resume_steps: int = 300) -> Path:
    run_dir = new_run_dir(home)
    log = LogFile(RunLayout(run_dir).events("worker"))
    log.write("attempt", attempt=1, resumed_from_step=None)
    log.metrics({"loss": np.arange(steps, dtype=float), "lr": np.ones(steps)})
    telemetry = LogFile(RunLayout(run_dir).telemetry())
    telemetry.write("sample", values={"cpu.percent": 10.0, "gpu.0.power_w": None})
    log.write("attempt", attempt=2, resumed_from_step=from_step)
    begin = 0 if from_step is None else from_step + 1
    log.metrics({"loss": -np.arange(begin, begin + resume_steps, dtype=float)}, first_step=begin)
    telemetry.write("sample", log.ts + 5.0, values={"cpu.percent": 20.0, "gpu.0.power_w": 5.0})
    return run_dir


@pytest.mark.parametrize("limit_bytes", [20_000, 300_000, 4 << 20])
@pytest.mark.parametrize("from_step", [None, 0, 100, 4095, 4096, 6000, 8998])
def test_a_restart_voids_what_came_after_its_step(
    home: Path, history: History, from_step: int | None, limit_bytes: int
) -> None:
    run_dir = restarted_run(home, from_step)
    drain(history, run_dir, limit_bytes)
    kept = 0 if from_step is None else from_step + 1
    assert whole(history, run_dir, "loss") == (
        list(range(kept + 300)),
        [*map(float, range(kept)), *(-float(step) for step in range(kept, kept + 300))],
    )
    assert history.curve(run_dir.name, "cpu.percent").value.tolist() == [10.0, 20.0], "telemetry is never cut"
    assert history.curve(run_dir.name, "gpu.0.power_w").step.tolist() == [1]
    detail = history.detail(run_dir.name)
    assert ("lr" in detail.metric_keys) == (from_step is not None)
    assert detail.summary.final.get("lr") == (None if from_step is None else 1.0)
    assert [marker.step for marker in detail.markers if marker.kind == "restart"] == [from_step]
    few = history.curve(run_dir.name, "loss", points=100)
    assert few.value.max() == max(kept - 1, 0)
    assert few.value.min() == -(kept + 299)
    other = History.open(home / "other.sqlite")
    drain(other, run_dir, 1 << 30)
    assert dump(home / "other.sqlite") == dump(home / "history.sqlite")


def test_an_update_tells_where_a_restart_cuts(home: Path, history: History) -> None:
    run_dir = new_run_dir(home)
    log = LogFile(RunLayout(run_dir).events("worker"))
    log.metrics({"loss": np.arange(10.0)})
    assert history.ingest(run_dir, read_batch(run_dir, {})).truncated_at is None
    log.metrics({"loss": np.arange(10.0, 20.0)}, first_step=10)
    log.write("attempt", attempt=2, resumed_from_step=12)
    log.metrics({"loss": np.array([-1.0])}, first_step=13)
    update = history.ingest(run_dir, read_batch(run_dir, history.offsets(run_dir.name)))
    assert update.truncated_at == 13
    assert update.points["loss"].step.tolist() == [10, 11, 12, 13]
    assert update.detail_changed


def test_ranks_are_told_apart(home: Path, history: History) -> None:
    run_dir = new_run_dir(home)
    for rank in (0, 1):
        LogFile(RunLayout(run_dir).events(rank)).metrics({"loss": np.full(3, float(rank))})
    LogFile(RunLayout(run_dir).telemetry("far")).write("sample", values={"cpu.percent": 1.0})
    drain(history, run_dir)
    detail = history.detail(run_dir.name)
    assert detail.metric_keys == ("loss", "loss [rank 1]")
    assert detail.telemetry_keys == ("far:cpu.percent",)
    assert whole(history, run_dir, "loss [rank 1]")[1] == [1.0] * 3


def test_names_that_come_and_go_keep_their_order(home: Path, history: History) -> None:
    run_dir = new_run_dir(home)
    log = LogFile(RunLayout(run_dir).events("worker"))
    for step in range(6):
        log.write("metric", step=step, values={"a": step, **({"b": -step} if step % 2 else {})})
    drain(history, run_dir)
    assert whole(history, run_dir, "a") == (list(range(6)), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    assert whole(history, run_dir, "b") == ([1, 3, 5], [-1.0, -3.0, -5.0])


def test_a_removed_checkpoint_is_no_longer_listed_and_its_mark_stays(home: Path, history: History) -> None:
    run_dir = new_run_dir(home)
    log = LogFile(RunLayout(run_dir).events("worker"))
    fields = {"step": 5, "path": "checkpoints/step-5", "size_bytes": 1, "sha256": "0"}
    log.write("checkpoint", **fields)
    drain(history, run_dir)
    assert len(history.detail(run_dir.name).checkpoints) == 1
    log.write("checkpoint", **fields, removed=True)
    drain(history, run_dir)
    detail = history.detail(run_dir.name)
    assert (detail.checkpoints, [marker.kind for marker in detail.markers]) == ((), ["checkpoint"])


def test_tables_and_children_and_unknown_events(home: Path, history: History) -> None:
    run_dir = new_run_dir(home)
    log = LogFile(RunLayout(run_dir).events("worker"))
    log.write("table", name="t", columns=["a"], rows=[[1]])
    log.write("table", name="t", columns=["a", "b"], rows=[[1, "x"], [None, True]])
    log.write("child", run_id="20260101-000000-child-000001", role="trial")
    log.write("stability", step=3, signal="nan", action="skipped")
    log.write("from-the-future", anything=1)
    drain(history, run_dir)
    detail = history.detail(run_dir.name)
    assert [(table.columns, table.rows) for table in detail.tables] == [(("a", "b"), ((1, "x"), (None, True)))]
    assert detail.children == ("20260101-000000-child-000001",)
    assert [(marker.kind, marker.text) for marker in detail.markers] == [("stability", "nan: skipped")]


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1 << 30))
def test_any_pieces_and_a_rebuild_give_the_same_index(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    home = tmp_path / str(seed)
    run_dir = new_run_dir(home, number=seed)
    clock = EPOCH
    logs = {rank: LogFile(RunLayout(run_dir).events(rank)) for rank in ("worker", 1, "supervisor")}
    step = 0
    for attempt in range(1, rng.randint(2, 4)):
        logs["supervisor"].write("state", clock, state="running", message="", hint="")
        start = None if attempt == 1 or rng.random() < 0.2 else rng.randint(0, step)
        step = 0 if start is None else start + 1
        logs["worker"].write("attempt", clock + 0.25, attempt=attempt, resumed_from_step=start)
        count = rng.randint(1, 6000)
        for rank in ("worker", 1):
            logs[rank].ts = clock + 1.0
            logs[rank].metrics({"loss": series("loss", count, attempt), "x": series("x", count, attempt)}, step)
        step += count - 1
        clock += 1000.0
        logs["supervisor"].write("state", clock - 1.0, state="failed", message="why", hint="")
    rebuilt = History.open(home / "rebuilt.sqlite")
    assert rebuilt.index([run_dir]) == ()
    history = History.open(home / "history.sqlite")
    offsets: dict[str, int] = {}
    while True:
        batch = read_batch(run_dir, offsets, rng.choice([5_000, 40_000, 400_000]))
        if batch.is_empty:
            break
        files = list(batch.files)
        rng.shuffle(files)
        files = files[: rng.randint(1, len(files))]
        history.ingest(run_dir, TailBatch(tuple(files), more=True))
        offsets.update({file.name: file.end for file in files})
    assert dump(home / "history.sqlite") == dump(home / "rebuilt.sqlite")


def test_a_cleared_index_is_rebuilt_as_it_was(home: Path, history: History) -> None:
    run_dirs = [build_run(home, number=n, steps=50 + n, state=list(RunState)[n % 10]) for n in range(20)]
    for run_dir in run_dirs:
        history.add(run_dir)
        drain(history, run_dir, 3_000)
    before = dump(history.path)
    history.clear()
    assert history.runs(RunQuery()).total == 0
    seen: list[int] = []
    assert history.index(run_dirs, seen.append) == ()
    assert dump(history.path) == before
    assert seen[-1] == 20


def test_a_folder_without_a_spec_is_named_and_does_not_stop_the_others(home: Path, history: History) -> None:
    good, bad, damaged = build_run(home), home / "runs" / "no-run", new_run_dir(home, number=9)
    bad.mkdir()
    RunLayout(damaged).spec.write_text("name = [")
    problems = history.index([bad, damaged, good])
    assert [(path, "no run directory" in reason) for path, reason in problems] == [(bad, True)]
    assert "spec.toml is damaged" in history.summary(damaged.name).message
    assert history.summary(good.name).state is RunState.SUCCEEDED
    with pytest.raises(UserError, match="no run directory"):
        history.add(bad)


def test_a_process_killed_while_it_folds_leaves_neither_gaps_nor_doubles(home: Path, history: History) -> None:
    run_dir = build_run(home, steps=20_000, metrics=("train/loss", "lr", "x"))
    history.add(run_dir)
    command = [sys.executable, "-m", "tests.helpers.ingest_process", str(history.path), str(run_dir), "30000"]
    for batches in (1, 4, 9):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for _ in range(batches):
                assert process.stdout.readline() == b"batch\n"
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert 0 < history.curve(run_dir.name, "x").total < 20_000, "it was killed on its way"
    drain(history, run_dir)
    other = History.open(home / "other.sqlite")
    other.index([run_dir])
    assert dump(home / "other.sqlite") == dump(history.path)


def test_two_processes_that_fold_the_same_run_at_once_count_each_event_once(home: Path, history: History) -> None:
    run_dir = build_run(home, steps=20_000, metrics=("train/loss", "lr"))
    commands = [
        [sys.executable, "-m", "tests.helpers.ingest_process", str(history.path), str(run_dir), limit]
        for limit in ("40000", "70000")
    ]
    processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for command in commands]
    for process in processes:
        _, errors = process.communicate(timeout=50)
        assert process.returncode == 0, errors.decode()
    assert whole(history, run_dir, "train/loss") == (list(range(20_000)), series("train/loss", 20_000).tolist())
    other = History.open(home / "other.sqlite")
    other.index([run_dir])
    assert dump(home / "other.sqlite") == dump(history.path)


def test_what_a_reader_concludes_is_shown_until_the_run_speaks_again(home: Path, history: History) -> None:
    run_dir = build_run(home, state=RunState.RUNNING)
    history.index([run_dir])
    assert history.open_run_ids() == (run_dir.name,)
    assert history.conclude(run_dir.name, None) is None
    silent = history.conclude(run_dir.name, None, silent_since=5.0)
    assert silent is not None
    assert silent.silent_since == 5.0
    lost = history.conclude(run_dir.name, RunState.LOST, "Gone.", "Resume it.", ended=EPOCH + 9)
    assert lost is not None
    assert (lost.state, lost.message, lost.ended, lost.silent_since) == (RunState.LOST, "Gone.", EPOCH + 9, None)
    assert history.conclude(run_dir.name, RunState.LOST, "Gone.", "Resume it.", ended=EPOCH + 9) is None
    assert history.open_run_ids() == ()
    reopened = history.reopen(run_dir.name)
    assert reopened is not None
    assert (reopened.state, reopened.ended) == (RunState.QUEUED, None)
    log = LogFile(RunLayout(run_dir).events("supervisor.2"), EPOCH + 20)
    log.write("state", state="running", message="", hint="")
    drain(history, run_dir)
    assert history.reopen(run_dir.name) is None, "it has already said that it runs"
    assert history.summary(run_dir.name).state is RunState.RUNNING


def test_a_sign_of_life_ends_the_silence(home: Path, history: History) -> None:
    run_dir = build_run(home, state=RunState.RUNNING)
    history.index([run_dir])
    history.conclude(run_dir.name, None, silent_since=EPOCH + 100)
    log = LogFile(RunLayout(run_dir).events("late"), EPOCH + 200)
    log.write("log", message="still here")
    drain(history, run_dir)
    assert history.summary(run_dir.name).silent_since is None
