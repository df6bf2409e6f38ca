"""Exports read back by the programs they are for."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from pyarrow import csv, parquet

from core.contracts.errors import EnvironmentProblem, UserError
from core.history.history import History
from tests.helpers.builders import build_run, new_run_dir

LENGTH = 9000


@pytest.fixture(scope="module")
def columns() -> dict[str, np.ndarray]:
    values = np.random.default_rng(0).normal(size=LENGTH) / 3
    values[5], values[6], values[7] = math.nan, math.inf, -math.inf
    return {"loss": values, 'odd "name", with comma': -values}


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory, columns: dict[str, np.ndarray]) -> tuple[History, str]:
    home = tmp_path_factory.mktemp("exports")
    run_dir = build_run(home, metrics=columns, steps=LENGTH)
    history = History.open(home / "history.sqlite")
    history.index([run_dir])
    return history, run_dir.name


@pytest.mark.parametrize("file_format", ["csv", "parquet"])
def test_tables_hold_every_point_exactly(
    history: tuple[History, str], columns: dict[str, np.ndarray], tmp_path: Path, file_format: str
) -> None:
    opened, run_id = history
    target = tmp_path / "new folder" / f"metrics.{file_format}"
    assert opened.export(run_id, file_format, target) == target
    table = csv.read_csv(target) if file_format == "csv" else parquet.read_table(target)
    assert table.column_names == ["metric", "step", "ts", "value"]
    names = table["metric"].to_pylist()
    for key, values in columns.items():
        rows = np.array([name == key for name in names])
        assert table["step"].to_numpy()[rows].tolist() == list(range(LENGTH))
        assert np.array_equal(table["value"].to_numpy()[rows], values, equal_nan=True)
        assert table["ts"].to_numpy()[rows].tobytes() == opened.curve(run_id, key, points=LENGTH).ts.tobytes()
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_tensorboard_reads_every_point(
    history: tuple[History, str], columns: dict[str, np.ndarray], tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    opened, run_id = history
    (tmp_path / "kept.txt").write_text("")
    assert opened.export(run_id, "tensorboard", tmp_path) == tmp_path
    reader = EventAccumulator(str(tmp_path), size_guidance={SCALARS: 0})
    reader.Reload()
    assert sorted(reader.Tags()["scalars"]) == sorted(columns)
    for key, values in columns.items():
        events = reader.Scalars(key)
        assert [event.step for event in events] == list(range(LENGTH))
        assert np.array_equal(np.array([event.value for event in events]), values.astype(np.float32), equal_nan=True)
        assert events[-1].wall_time == opened.curve(run_id, key).ts[-1]
    assert len(list(tmp_path.iterdir())) == 2


def test_what_cannot_be_exported_is_a_sentence(history: tuple[History, str], tmp_path: Path) -> None:
    opened, run_id = history
    with pytest.raises(UserError, match="'xlsx'"):
        opened.export(run_id, "xlsx", tmp_path / "x")
    empty = new_run_dir(tmp_path, number=77)
    opened.add(empty)
    with pytest.raises(UserError, match="no metrics"):
        opened.export(empty.name, "csv", tmp_path / "x.csv")
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentProblem, match="cannot be written"):
        opened.export(run_id, "csv", tmp_path / "file" / "x.csv")
    (tmp_path / "folder" / "full").mkdir(parents=True)
    with pytest.raises(EnvironmentProblem, match="cannot be written"):
        opened.export(run_id, "csv", tmp_path / "folder")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".folder")], "nothing half-done is left"
