"""Ranks as their logs show them: last steps, delays at the same step, and which one holds the others up."""

from __future__ import annotations

from pathlib import Path

from core.fleet.rank_progress import rank_statuses, straggler_sentence
from core.runlog.layout import RunLayout
from tests.helpers.builders import EPOCH, LogFile

NODES = ("h1", "h2")


def write(run_dir: Path, node: str, rank: int, steps: range, *, late_s: float = 0.0) -> None:
    log = LogFile(RunLayout(run_dir).events(rank, node))
    for step in steps:
        log.write("metric", EPOCH + step + late_s, step=step, values={"loss": 1.0})


def sentence(run_dir: Path) -> str:
    return straggler_sentence(rank_statuses(run_dir, NODES), run_dir, NODES)


def test_steps_nodes_and_delays_of_each_rank(tmp_path: Path) -> None:
    write(tmp_path, "h1", 0, range(10))
    write(tmp_path, "h2", 1, range(9), late_s=0.125)
    LogFile(RunLayout(tmp_path).events("worker", "h1")).write("progress", EPOCH, done=0.1, stage="", step=3)
    found = rank_statuses(tmp_path, NODES)
    assert [(rank.rank, rank.node, rank.step, rank.lag_s) for rank in found] == [
        (0, "h1", 9, 0.0),
        (1, "h2", 8, 0.125),
    ]
    assert sentence(tmp_path) == ""


def test_a_late_rank_is_named_and_a_wrong_clock_is_not_held_against_it(tmp_path: Path) -> None:
    write(tmp_path, "h1", 0, range(10))
    write(tmp_path, "h2", 1, range(10), late_s=0.5)
    assert sentence(tmp_path) == "Rank 1 on h2 comes to each step 0.5 s after the first."
    corrected = rank_statuses(tmp_path, NODES, {"h2": 0.5})
    assert straggler_sentence(corrected, tmp_path, NODES) == ""


def test_a_rank_that_is_stuck_is_named(tmp_path: Path) -> None:
    write(tmp_path, "h1", 0, range(20))
    write(tmp_path, "h2", 1, range(8))
    assert sentence(tmp_path) == "Rank 1 on h2 is at step 7, while rank 0 is at 19."


def test_a_resume_from_an_earlier_step_counts_from_there(tmp_path: Path) -> None:
    write(tmp_path, "h1", 0, range(100))
    log = LogFile(RunLayout(tmp_path).events(0, "h1"))
    log.write("metric", EPOCH + 500, step=50, values={"loss": 1.0})
    assert rank_statuses(tmp_path, NODES)[0].step == 50


def test_a_rank_that_moved_is_on_its_new_node_and_other_nodes_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, "h1", 0, range(5))
    write(tmp_path, "h2", 0, range(5, 9))
    write(tmp_path, "h9", 1, range(5))
    assert [(rank.rank, rank.node, rank.step) for rank in rank_statuses(tmp_path, NODES)] == [(0, "h2", 8)]


def test_nothing_is_said_of_one_rank_or_none(tmp_path: Path) -> None:
    assert rank_statuses(tmp_path, NODES) == ()
    write(tmp_path, "h1", 0, range(3))
    assert rank_statuses(tmp_path, NODES)[0].lag_s is None
    assert sentence(tmp_path) == ""
