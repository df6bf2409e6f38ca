"""Stored curves against the points they were made from: exact, windows, decimation, live appends."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.contracts.errors import UserError
from core.history.curves import CHUNK
from core.history.history import History
from core.runlog.layout import RunLayout
from core.runlog.tail import read_batch
from tests.helpers.builders import EPOCH, LogFile, build_run, new_run_dir

LENGTH = 150_000


@pytest.fixture(scope="module")
def values() -> np.ndarray:
    found = np.cumsum(np.random.default_rng(3).normal(size=LENGTH))
    found[[10, 70_000, 149_990]] = math.nan
    found[[20, 80_000]] = math.inf
    found[90_000] = -math.inf
    found[100_001], found[33_333] = 1e6, -1e6
    return found


@pytest.fixture(scope="module")
def long_run(tmp_path_factory: pytest.TempPathFactory, values: np.ndarray) -> tuple[History, str]:
    home = tmp_path_factory.mktemp("curves") / "home"
    run_dir = build_run(home, metrics={"x": values, "loss": -values}, steps=LENGTH, step_time_s=0.5)
    history = History.open(home / "history.sqlite")
    assert history.index([run_dir]) == ()
    return history, run_dir.name


def test_all_points_come_back_to_the_bit(long_run: tuple[History, str], values: np.ndarray) -> None:
    history, run_id = long_run
    curve = history.curve(run_id, "x", points=LENGTH)
    assert curve.is_exact
    assert curve.value.tobytes() == values.tobytes()
    assert (curve.step == np.arange(LENGTH)).all()
    assert np.allclose(curve.ts, EPOCH + 2.5 + np.arange(LENGTH) / 2, atol=1e-5)


@pytest.mark.parametrize("points", [16, 100, 640, 2000, 20_000, 149_999])
def test_few_points_hold_the_extremes_and_what_is_no_number(
    long_run: tuple[History, str], values: np.ndarray, points: int
) -> None:
    history, run_id = long_run
    curve = history.curve(run_id, "x", points=points)
    assert points // 3 <= len(curve.value) <= points
    assert (curve.total, curve.is_exact) == (LENGTH, False)
    assert curve.value.tolist()[-1] == values[-1]
    assert set(curve.value[np.isfinite(curve.value)]) >= {1e6, -1e6}
    assert np.array_equal(curve.value, values[curve.step], equal_nan=True), "every point given is a point written"
    if points >= 100:
        assert {10, 70_000, 80_000, 90_000, 149_990} <= set(curve.step.tolist())


@pytest.mark.parametrize("points", [16, 300, 3000, 10**9])
@pytest.mark.parametrize(
    ("first", "last"),
    [
        (0, 149_999),
        (-5, 10**9),
        (4095, 4096),
        (4096, 8191),
        (1, 131_072),
        (12_345, 123_456),
        (140_000, 149_999),
        (7, 7),
        (200_000, 300_000),
        (-10, -1),
        (100, 50),
        (0.5, 2.5),
        (147_456, None),
        (None, 128),
    ],
)
def test_a_window_holds_its_own_points_only(
    long_run: tuple[History, str], values: np.ndarray, first: float | None, last: float | None, points: int
) -> None:
    history, run_id = long_run
    curve = history.curve(run_id, "x", first=first, last=last, points=points)
    steps = np.arange(LENGTH)
    inside = (steps >= (0 if first is None else first)) & (steps <= (LENGTH if last is None else last))
    assert curve.total == inside.sum()
    assert set(curve.step.tolist()) <= set(steps[inside].tolist())
    expected = values[inside]
    if curve.is_exact:
        assert np.array_equal(curve.value, expected, equal_nan=True)
        return
    finite = expected[np.isfinite(expected)]
    kept = curve.value[np.isfinite(curve.value)]
    assert (kept.min(), kept.max()) == (finite.min(), finite.max())
    assert (curve.step[0], curve.step[-1]) == (steps[inside][0], steps[inside][-1])
    by_ts = history.curve(
        run_id,
        "x",
        first=None if first is None else EPOCH + 2.5 + first / 2 - 0.1,
        last=None if last is None else EPOCH + 2.5 + last / 2 + 0.1,
        points=points,
        by="ts",
    )
    assert by_ts.step.tolist() == curve.step.tolist()


def test_a_name_that_is_not_there_is_a_sentence(long_run: tuple[History, str]) -> None:
    history, run_id = long_run
    with pytest.raises(UserError, match="no metric 'nope'"):
        history.curve(run_id, "nope")
    with pytest.raises(UserError, match="no run"):
        history.curve("nope", "x")


def test_curves_written_together_share_their_axis(long_run: tuple[History, str]) -> None:
    history, _ = long_run
    with history._database.read() as connection:
        axes = connection.exec_driver_sql("SELECT count(*) FROM axes WHERE length(step) > 0").scalar_one()
        chunks = connection.exec_driver_sql(
            "SELECT count(*) FROM chunks JOIN curves ON curves.id = chunks.curve WHERE source = 'metric'"
        ).scalar_one()
    assert chunks == 2 * math.ceil(LENGTH / CHUNK)
    assert axes <= chunks / 2 + 1


def test_steps_that_fall_are_kept_in_the_order_written(tmp_path: Path) -> None:
    run_dir = new_run_dir(tmp_path)
    log = LogFile(RunLayout(run_dir).events("worker"))
    log.metrics({"x": np.arange(5000.0)}, first_step=1000)
    log.metrics({"x": np.arange(5000.0)}, first_step=0)
    history = History.open(tmp_path / "history.sqlite")
    history.index([run_dir])
    assert history.curve(run_dir.name, "x", points=10**6).step.tolist() == [*range(1000, 6000), *range(5000)]
    window = history.curve(run_dir.name, "x", first=4990, last=5100, points=10**6)
    assert window.step.tolist() == [*range(4990, 5101), *range(4990, 5000)]
    assert len(history.curve(run_dir.name, "x", first=10, points=100).value) <= 100


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=st.lists(st.integers(1, 9000), min_size=1, max_size=4), seed=st.integers(0, 1000))
def test_a_curve_that_grew_in_pieces_is_the_curve(tmp_path: Path, lengths: list[int], seed: int) -> None:
    home = tmp_path / f"{seed}-{'-'.join(map(str, lengths))}"
    value = np.random.default_rng(seed).normal(size=sum(lengths))
    run_dir = new_run_dir(home) if not home.exists() else home / "again"
    if run_dir.name == "again":
        return
    log = LogFile(RunLayout(run_dir).events("worker"))
    history = History.open(home / "history.sqlite")
    at = 0
    for length in lengths:
        log.metrics({"x": value[at : at + length]}, first_step=at)
        at += length
        history.ingest(run_dir, read_batch(run_dir, history.offsets(run_dir.name)))
        few = history.curve(run_dir.name, "x", points=200)
        assert few.total == at
        assert (few.value.min(), few.value.max(), few.value[-1]) == (value[:at].min(), value[:at].max(), value[at - 1])
    assert history.curve(run_dir.name, "x", points=10**6).value.tobytes() == value.tobytes()
    history.close()
