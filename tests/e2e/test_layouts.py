"""Every parallel layout trains as one process does, and pipelines idle and hold as much as theory says."""

from __future__ import annotations

from typing import Any

import pytest

from core.train.parallel.cases import CASES
from core.train.parallel.equality import TOLERANCE, prove
from tests.helpers.odd_networks import norms_of_steps
from tests.helpers.rank_group import run_in_ranks
from tests.helpers.slow_blocks import measure

# One start of each group serves all its tests, so the first of them waits for it; cores may be busy.
pytestmark = pytest.mark.timeout(480)

TWO = (
    "ddp",
    "zero1",
    "zero2",
    "zero3-tied",
    "tensor-tied",
    "tensor-without-sequence",
    "context",
    "gpipe",
    "1f1b-tied",
    "interleaved",
    "looped-bfs",
    "interleaved-zero-bubble",
    "zbv-tied",
    "dualpipev",
)
FOUR = ("hsdp", "zero3-x-tensor", "tensor-x-1f1b", "context-x-zero3")
WRONG = "zbv-x-zero3"


@pytest.fixture(scope="module")
def two() -> dict[str, dict[str, Any]]:
    return _rows(2, TWO)


@pytest.fixture(scope="module")
def four() -> dict[str, dict[str, Any]]:
    return _rows(4, (*FOUR, WRONG))


def _rows(processes: int, names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    by_rank = run_in_ranks(prove, processes, names=names, device="cpu")
    assert all(rows == by_rank[0] for rows in by_rank), "ranks see different losses"
    return {row["name"]: row for row in by_rank[0]}


@pytest.mark.parametrize("name", TWO)
def test_two_processes_equal_one(two: dict[str, dict[str, Any]], name: str) -> None:
    assert two[name]["ok"], two[name]


@pytest.mark.parametrize("name", FOUR)
def test_four_processes_equal_one(four: dict[str, dict[str, Any]], name: str) -> None:
    assert four[name]["ok"], four[name]


def test_zero_bubble_with_sharded_weights_still_trains_wrong(four: dict[str, dict[str, Any]]) -> None:
    """torch loses gradients here without an error; once it does not, ``check_layout`` need not refuse it any more."""
    assert not four[WRONG]["ok"]
    assert four[WRONG]["max_loss_diff"] > 100 * TOLERANCE


def test_every_proved_layout_has_a_size_that_is_known() -> None:
    assert {case.parallel.processes for case in CASES.values()} == {2, 4, 8}


@pytest.fixture(scope="module")
def measured() -> list[dict[str, dict[str, float]]]:
    return run_in_ranks(
        measure, 2, schedules=("gpipe", "1f1b", "interleaved"), ranks=2, amount=4, forward_s=0.05, backward_s=0.1
    )


@pytest.mark.parametrize(
    ("schedule", "theory"),
    [("gpipe", 1 / (4 + 1)), ("1f1b", 1 / (4 + 1)), ("interleaved", 0.5 / (4 + 0.5))],
)
def test_pipelines_idle_as_theory_says(
    measured: list[dict[str, dict[str, float]]], schedule: str, theory: float
) -> None:
    """(p - 1) / (m + p - 1) of the step; with v stages a rank the start and the end are v times shorter."""
    assert measured[0][schedule]["bubble"] == pytest.approx(theory, abs=0.05)


def test_1f1b_holds_as_many_micro_batches_as_stages_and_gpipe_all(
    measured: list[dict[str, dict[str, float]]],
) -> None:
    assert [rank["gpipe"]["peak"] for rank in measured] == [4, 4]
    assert [rank["1f1b"]["peak"] for rank in measured] == [2, 1]


def test_a_network_that_leaves_weights_out_trains_over_data_ranks() -> None:
    alone = norms_of_steps(["none"])[0]
    for norms in run_in_ranks(norms_of_steps, 2, shardings=["none", "zero1", "zero3"])[0]:
        assert norms == pytest.approx(alone, rel=1e-5)
