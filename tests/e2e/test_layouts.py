"""Every parallel layout trains as one process does, and pipelines idle and hold as much as theory says."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any

import psutil
import pytest

from core.train.parallel.cases import CASES
from core.train.parallel.equality import TOLERANCE, prove
from core.train.parallel.local_ranks import RanksFailed, call_in_ranks
from tests.helpers.odd_networks import norms_of_steps
from tests.helpers.rank_group import run_in_ranks
from tests.helpers.slow_blocks import measure
from tests.helpers.waiting import wait_for

# One start of each group serves all its tests, so the first of them waits for it; cores may be busy.
pytestmark = pytest.mark.timeout(480)

COMMAND = [sys.executable, "-P", "-m", "app.command", "check-layouts", "--devices", "cpu"]
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
FOUR = ("hsdp", "zero3-x-tensor", "zero3-x-1f1b", "context-x-zero3")
WRONG = "zbv-x-zero3"


@pytest.fixture(scope="module")
def two() -> dict[str, dict[str, Any]]:
    """The rows of the command's JSON document."""
    chosen = [word for name in TWO for word in ("--layout", name)]
    done = subprocess.run([*COMMAND, *chosen, "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return {row["name"]: row for row in json.loads(done.stdout)["layouts"]}


@pytest.fixture(scope="module")
def four() -> dict[str, dict[str, Any]]:
    by_rank = run_in_ranks(prove, 4, names=(*FOUR, WRONG), device="cpu")
    assert all(rows == by_rank[0] for rows in by_rank), "ranks see different losses"
    return {row["name"]: row for row in by_rank[0]}


@pytest.mark.parametrize("name", TWO)
def test_two_processes_equal_one(two: dict[str, dict[str, Any]], name: str) -> None:
    row = two[name]
    assert (row["processes"], row["ok"]) == (2, True), row
    assert 0 <= row["max_loss_diff"] <= TOLERANCE


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


def test_an_unknown_layout_is_named_with_those_there_are() -> None:
    done = subprocess.run([*COMMAND, "--layout", "nonsense"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no layout named 'nonsense'" in done.stderr
    assert "zero3-x-tensor" in done.stderr


def _heed_interrupts() -> None:
    """Undo what a shell does to the commands that it starts in the background: they ignore interrupts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_no_rank_outlives_the_command(ending: signal.Signals) -> None:
    command = subprocess.Popen(
        [*COMMAND, "--layout", "ddp"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=_heed_interrupts,  # noqa: PLW1509 - it only sets a signal
    )
    ranks = wait_for(lambda: _two_children(command.pid), "two ranks", 120)
    command.send_signal(ending)
    assert command.wait(60) != 0
    wait_for(lambda: not any(rank.is_running() for rank in ranks), "the ranks to end")


def _two_children(pid: int) -> list[psutil.Process]:
    found = [child for child in psutil.Process(pid).children() if "local_ranks" in " ".join(child.cmdline())]
    return found if len(found) == 2 else []


def test_a_rank_that_fails_is_quoted() -> None:
    with pytest.raises(RanksFailed, match="JSONDecodeError: Expecting property name") as caught:
        call_in_ranks("json:loads", 2, {"s": "{"}, timeout_s=60)
    assert "--- rank 1" in str(caught.value)
