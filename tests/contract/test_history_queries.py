"""The run table's questions, answered by a real index."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from core.contracts.errors import UserError
from core.contracts.runs import RunQuery
from core.contracts.states import RunState
from core.history.history import History
from core.runlog.layout import RunLayout
from core.runlog.tail import read_batch
from tests.helpers.builders import EPOCH, LogFile, build_run, fill_history, new_run_dir


def small(home: Path, number: int, **fields: object) -> Path:
    arguments = {"steps": 3, "telemetry": False, "checkpoints": False, "created": EPOCH + number, "number": number}
    return build_run(home, **{**arguments, **fields})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("queries")
    losses = [0.5, math.nan, 0.1, math.inf, 0.9]
    runs = [
        small(home, n, name=f"River {n}", metrics={"loss": np.full(3, loss)}, tags=["nightly"] if n % 2 else [], seed=n)
        for n, loss in enumerate(losses)
    ]
    runs.append(small(home, 5, name="größe", kind="train.language", state=RunState.FAILED, tags=["nightly", "paper"]))
    runs.append(small(home, 6, name="100%_sure", kind="train.script", state=RunState.STOPPED, spec={"epochs": 9}))
    history = History.open(home / "history.sqlite")
    assert history.index(runs) == ()
    history.close()
    return home


@pytest.fixture
def history(home: Path) -> History:
    return History.open(home / "history.sqlite")


def names(history: History, **query: object) -> list[str]:
    return [row.name for row in history.runs(RunQuery(**query)).rows]


def test_the_newest_come_first_and_pages_follow_each_other(history: History) -> None:
    everything = names(history)
    assert everything[:2] == ["100%_sure", "größe"]
    pages = [names(history, offset=at, limit=3) for at in (0, 3, 6, 9)]
    assert [name for page in pages for name in page] == everything
    assert history.runs(RunQuery(offset=6, limit=3)).total == 7


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("river", 5),
        ("RIVER 3", 1),
        ("ver", 5),
        ("ve", 5),
        ("r 3", 1),
        ("größe", 1),
        ("GRÖSSE", 0),
        ("paper", 1),
        ("language", 1),
        ("river nightly", 2),
        ("%_s", 1),
        ("%", 1),
        ('say "river"', 0),
        ("river*", 0),
        ("nope", 0),
        ("  ", 7),
    ],
)
def test_text_finds_any_part_of_name_id_kind_and_tags(history: History, text: str, found: int) -> None:
    page = history.runs(RunQuery(text=text))
    assert (len(page.rows), page.total) == (found, found)


def test_filters_hold_together(history: History) -> None:
    assert names(history, states=(RunState.FAILED, RunState.STOPPED)) == ["100%_sure", "größe"]
    assert names(history, kinds=("train.language",)) == ["größe"]
    assert names(history, tags=("nightly", "paper")) == ["größe"]
    assert names(history, tags=("nightly",), states=(RunState.SUCCEEDED,)) == ["River 3", "River 1"]
    assert history.tags() == ("nightly", "paper")


def test_a_metric_sorts_numbers_first_then_what_has_none(history: History) -> None:
    rising = names(history, sort="metric:loss", descending=False)
    assert rising[:4] == ["River 2", "River 0", "River 4", "River 3"]
    assert set(rising[4:]) == {"River 1", "größe", "100%_sure"}
    assert names(history, sort="metric:loss")[:4] == ["River 3", "River 4", "River 0", "River 2"]
    paged = [names(history, sort="metric:loss", descending=False, offset=at, limit=2) for at in range(0, 8, 2)]
    assert [name for page in paged for name in page] == rising


def test_values_of_the_spec_sort(history: History) -> None:
    assert names(history, sort="param:epochs", limit=1, text="sure") == ["100%_sure"]
    assert names(history, sort="param:name", descending=False, kinds=("train.image",))[0] == "River 0"


@pytest.mark.parametrize(
    "sort",
    [
        "name",
        "kind",
        "state",
        "created",
        "started",
        "ended",
        "duration",
        "progress",
        "step",
        "host",
        "attempt",
        "run_id",
    ],
)
def test_every_column_sorts_both_ways(history: History, sort: str) -> None:
    up, down = names(history, sort=sort, descending=False), names(history, sort=sort)
    assert up == down[::-1]
    assert len(up) == 7


@pytest.mark.parametrize("sort", ["nope", "", "metric", "name; DROP TABLE runs", "other:loss"])
def test_an_unknown_sort_is_a_sentence(history: History, sort: str) -> None:
    with pytest.raises(UserError, match="cannot be sorted"):
        history.runs(RunQuery(sort=sort))


def test_names_of_metrics(history: History) -> None:
    assert "loss" in history.metric_keys()
    river = history.runs(RunQuery(text="river 2")).rows[0].run_id
    assert history.metric_keys([river]) == ("final/loss", "loss")


def test_an_id_is_found_by_its_start_or_end(history: History) -> None:
    run_id = history.runs(RunQuery(text="größe")).rows[0].run_id
    assert history.match_ids(run_id) == (run_id,)
    assert history.match_ids(run_id[-6:]) == (run_id,)
    assert len(history.match_ids(run_id[:8])) == 7
    assert history.match_ids("") == ()
    assert history.match_ids("%") == ()


def test_a_run_in_the_bin_is_in_no_list_and_comes_back_whole(tmp_path: Path) -> None:
    run_dir = small(tmp_path, 1)
    history = History.open(tmp_path / "history.sqlite")
    history.index([run_dir])
    before = history.detail(run_dir.name)
    history.delete(run_dir.name)
    assert history.runs(RunQuery()).total == 0
    assert history.run_ids() == set()
    history.restore(run_dir.name)
    assert history.detail(run_dir.name) == before
    history.delete(run_dir.name)
    history.add(run_dir)
    assert history.run_ids() == {run_dir.name}
    history.purge([run_dir.name, "unknown"])
    with pytest.raises(UserError, match="no run"):
        history.summary(run_dir.name)
    assert history.runs(RunQuery(text="digits")).total == 0


def test_lineage_goes_both_ways_and_cycles_end(tmp_path: Path) -> None:
    base = small(tmp_path, 1)
    child = small(tmp_path, 2, parent=base.name)
    grandchild = small(tmp_path, 3, parent=child.name)
    pipeline = new_run_dir(tmp_path, number=4, created=EPOCH + 4)
    LogFile(RunLayout(pipeline).events("worker")).write("child", run_id=base.name, role="train")
    looped = small(tmp_path, 5, parent=pipeline.name)
    LogFile(RunLayout(looped).events("late")).write("child", run_id=pipeline.name, role="again")
    history = History.open(tmp_path / "history.sqlite")
    history.index([base, child, grandchild, pipeline, looped])
    assert history.ancestors(grandchild.name)[:3] == (child.name, base.name, pipeline.name)
    assert history.descendants(base.name) == (child.name, grandchild.name)
    assert set(history.descendants(pipeline.name)) == {base.name, child.name, grandchild.name, looped.name}
    assert [row.run_id for row in history.runs(RunQuery(parent=base.name)).rows] == [child.name]
    assert history.detail(pipeline.name).children == (base.name, looped.name)


def test_what_the_spec_says_can_be_renewed(tmp_path: Path) -> None:
    run_dir = small(tmp_path, 1, tags=["old"])
    history = History.open(tmp_path / "history.sqlite")
    history.index([run_dir])
    spec = RunLayout(run_dir).spec
    spec.write_text(spec.read_text().replace('"old"', '"new"').replace('name = "digits"', 'name = "renamed"'))
    assert history.add(run_dir).tags == ("new",)
    assert names(history, text="renamed", tags=("new",)) == ["renamed"]
    assert names(history, text="digits old") == []
    assert history.ingest(run_dir, read_batch(run_dir, history.offsets(run_dir.name))).points == {}


def test_very_many_runs_are_found_by_index_and_not_by_looking_at_each(tmp_path: Path) -> None:
    fill_history(tmp_path / "history.sqlite", 2000, metrics=3, params=3)
    history = History.open(tmp_path / "history.sqlite")
    assert history.runs(RunQuery()).total == 2000
    best = history.runs(RunQuery(sort="metric:metric/1", limit=5)).rows
    assert [row.final["metric/1"] for row in best] == sorted((row.final["metric/1"] for row in best), reverse=True)
    one = history.runs(RunQuery(text="-1234")).rows
    assert [row.name.rpartition("-")[2] for row in one] == ["1234"]
    with history._database.read() as connection:
        for order in ("created", "name", "kind", "state", "started", "ended", "ended - started"):
            plan = connection.exec_driver_sql(
                f"EXPLAIN QUERY PLAN SELECT id FROM runs WHERE deleted IS NULL ORDER BY {order} DESC, id DESC LIMIT 50"
            ).all()
            assert "USING" in plan[0][3], order
            assert not any("TEMP B-TREE" in step[3] for step in plan), order
