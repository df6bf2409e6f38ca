"""A training that is stopped and goes on repeats the undisturbed one bit for bit, in every parallel layout.

One start of the ranks trains each layout three times: whole, stopped in the middle, and on from there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.engine_runs import run_cases
from tests.helpers.rank_group import run_in_ranks

pytestmark = pytest.mark.timeout(600)
STEPS = 6
TWO_RANKS: dict[str, dict[str, Any]] = {
    "ddp": {},
    "zero1": {"sharding": "zero1"},
    "zero2": {"sharding": "zero2"},
    "zero3": {"sharding": "zero3"},
    "tensor": {"tensor": 2},
    "tensor-without-sequence": {"tensor": 2, "sequence": False},
    "context": {"context": 2},
    "gpipe": {"pipeline": 2, "schedule": "gpipe"},
    "1f1b": {"pipeline": 2, "schedule": "1f1b"},
    "interleaved": {"pipeline": 2, "schedule": "interleaved"},
    "looped-bfs": {"pipeline": 2, "schedule": "looped-bfs"},
    "interleaved-zero-bubble": {"pipeline": 2, "schedule": "interleaved-zero-bubble"},
    "zbv": {"pipeline": 2, "schedule": "zbv"},
    "dualpipev": {"pipeline": 2, "schedule": "dualpipev"},
}
FOUR_RANKS: dict[str, dict[str, Any]] = {
    "hsdp": {"sharding": "zero3", "replicas": 2},
    "zero3-x-tensor": {"sharding": "zero3", "tensor": 2},
    "zero3-x-1f1b": {"sharding": "zero3", "pipeline": 2},
    "tensor-x-1f1b": {"tensor": 2, "pipeline": 2},
}


def _cases(base: Path, layouts: dict[str, dict[str, Any]], processes: int) -> list[dict[str, Any]]:
    """Return three trainings of each layout: whole, stopped after three steps, and on from there."""
    found: list[dict[str, Any]] = []
    for name, parallel in layouts.items():
        spec = {
            "steps": STEPS,
            "micro_batch": 4,
            "evaluate_every": STEPS,
            "parallel": {"processes": processes, **parallel},
            "optimizer": {"lr": 0.003, "grad_accum_steps": 4, "ema_decay": 0.9},
        }
        whole = {"home": str(base / f"{name}-whole"), "spec": spec}
        stopped = {"home": str(base / name), "spec": spec, "fault": "stop after 3 steps"}
        found += [whole, stopped, {"home": str(base / name), "spec": spec, "attempt": 2}]
    return found


def _outcomes(base: Path, layouts: dict[str, dict[str, Any]], processes: int) -> dict[str, list[dict[str, Any]]]:
    cases = _cases(base, layouts, processes)
    main = run_in_ranks(run_cases, processes, timeout_s=540.0, cases=cases)[0]
    return {name: main[3 * number : 3 * number + 3] for number, name in enumerate(layouts)}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    return _outcomes(tmp_path_factory.mktemp("two"), TWO_RANKS, 2)


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    return _outcomes(tmp_path_factory.mktemp("four"), FOUR_RANKS, 4)


def _assert_repeated(whole: dict[str, Any], stopped: dict[str, Any], resumed: dict[str, Any]) -> None:
    assert [whole["error"], stopped["error"], resumed["error"]] == ["", "", ""]
    done = max(map(int, stopped["losses"]))
    assert 3 <= done < STEPS
    assert resumed["starts"] == [done]
    assert stopped["losses"] | resumed["losses"] == whole["losses"]
    assert resumed["validation"] == whole["validation"]
    assert resumed["weights"] == whole["weights"]


@pytest.mark.parametrize("name", TWO_RANKS)
def test_two_ranks_go_on_bit_for_bit(two: dict[str, list[dict[str, Any]]], name: str) -> None:
    _assert_repeated(*two[name])


@pytest.mark.parametrize("name", FOUR_RANKS)
def test_four_ranks_go_on_bit_for_bit(four: dict[str, list[dict[str, Any]]], name: str) -> None:
    _assert_repeated(*four[name])
