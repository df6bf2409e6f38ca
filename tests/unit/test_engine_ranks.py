"""Several ranks: equal losses, stops and failures agreed on, checkpoints of one layout read into another, no shared disk.

One start of two ranks trains all cases; what they save is resumed in other layouts by the same ranks and in this process.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.engine_runs import run_cases
from tests.helpers.rank_group import run_in_ranks

pytestmark = pytest.mark.timeout(480)
Outcomes = dict[str, list[dict[str, Any]]]

_COMMON: dict[str, Any] = {"steps": 6, "micro_batch": 4, "evaluate_every": 3}
_EMA = {"lr": 0.003, "ema_decay": 0.9}


def case(home: Path, *, parallel: dict[str, Any], accum: int = 2, steps: int = 6, **more: Any) -> dict[str, Any]:
    """Return a training of 16 tokens rows a step on two ranks, 8 of them data ranks' own where accum is 2."""
    optimizer = {"lr": 0.003, "grad_accum_steps": accum, **more.pop("optimizer", {})}
    spec = {**_COMMON, "steps": steps, "parallel": {"processes": 2, **parallel}, "optimizer": optimizer}
    return {"home": str(home), "spec": spec, **more}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def outcomes(base: Path) -> Outcomes:
    """Return what every rank made of each case, by name."""
    zero3 = {"sharding": "zero3"}
    named = {
        "ddp": case(base / "ddp", parallel={}),
        "zero3": case(base / "zero3", parallel=zero3, optimizer=_EMA),
        "zero3 as pipeline": case(
            base / "zero3", parallel={"pipeline": 2}, accum=4, steps=9, attempt=2, optimizer=_EMA
        ),
        "tensor": case(base / "tensor", parallel={"tensor": 2}, accum=4),
        "apart": case(base / "apart", parallel=zero3, own_homes=True),
        "apart as tensor": case(base / "apart", parallel={"tensor": 2}, accum=4, steps=9, own_homes=True, attempt=2),
        "full": case(base / "full", parallel=zero3, fault="disk of rank 1 full"),
        "stopped": case(base / "rows", parallel={}, task="rows", fault="stop rank 1"),
        "resumed": case(base / "rows", parallel={}, task="rows", attempt=2),
        "whole": case(base / "whole", parallel={}, task="rows"),
        "fp16": case(base / "fp16", parallel=zero3, task="rows", fault="overflow of rank 1"),
        "running": case(base / "running", parallel={}, task="running"),
        "running zero3": case(base / "running-zero3", parallel=zero3, task="running"),
        "running half": case(base / "half", parallel={"sharding": "zero2"}, task="running", optimizer=_EMA),
        "nan": case(base / "nan", parallel={}, task="rows", fault="nan on rank 1"),
    }
    named["fp16"]["spec"] |= {"precision": "fp16", "compute": {"initial_loss_scale": 256.0}}
    named["running half"]["spec"] |= {"precision": "bf16"}
    by_rank = run_in_ranks(run_cases, 2, timeout_s=400.0, cases=list(named.values()))
    return {name: [found[number] for found in by_rank] for number, name in enumerate(named)}


@pytest.fixture(scope="module")
def alone(base: Path) -> dict[str, Any]:
    """Return the same training in one process, longer, with the average of the weights."""
    return _alone(base / "alone", optimizer={**_EMA, "grad_accum_steps": 4})


def _alone(home: Path, *, attempt: int = 1, optimizer: dict[str, Any]) -> dict[str, Any]:
    spec = {**_COMMON, "steps": 9, "optimizer": optimizer}
    return run_cases([{"home": str(home), "spec": spec, "attempt": attempt}])[0]


def values(outcome: dict[str, Any], *, first: int = 1, last: int = 9) -> list[float]:
    return [loss for step, loss in outcome["losses"].items() if first <= int(step) <= last]


@pytest.mark.parametrize("name", ["ddp", "zero3", "tensor", "apart"])
def test_losses_and_validation_equal_one_process(outcomes: Outcomes, base: Path, name: str) -> None:
    optimizer = {"lr": 0.003, "grad_accum_steps": 4, **(_EMA if name == "zero3" else {})}
    spec = {**_COMMON, "optimizer": optimizer}
    (reference,) = run_cases([{"home": str(base / f"reference-{name}"), "spec": spec}])
    main = outcomes[name][0]
    assert main["error"] == ""
    assert values(main) == pytest.approx(values(reference), rel=1e-5)
    assert main["validation"] == pytest.approx(reference["validation"], rel=1e-5)
    assert main["weights"].keys() == reference["weights"].keys()
    assert list(main["weights"].values()) == pytest.approx(list(reference["weights"].values()), rel=1e-4)


def test_ranks_other_than_the_first_report_their_memory_and_step_time_only(outcomes: Outcomes) -> None:
    assert outcomes["ddp"][1]["metrics"] == ["memory/peak_bytes", "train/step_time_s"]
    assert outcomes["ddp"][1]["weights"] == {}


def test_a_checkpoint_goes_on_in_another_layout_and_in_one_process(
    outcomes: Outcomes, base: Path, alone: dict[str, Any]
) -> None:
    pipeline = outcomes["zero3 as pipeline"][0]
    assert pipeline["error"] == ""
    assert pipeline["starts"] == [6]
    assert any("is read as data 1 x tensor 1 x pipeline 2" in line for line in pipeline["logs"])
    # The schedule knows the total, so the steps before the change are those of a shorter run.
    by_itself = _alone(base / "zero3", attempt=3, optimizer={**_EMA, "grad_accum_steps": 4})
    assert by_itself["error"] == ""
    assert by_itself["starts"] == [9], "the pipeline's last checkpoint is read by one process"
    assert pipeline["weights"].keys() == alone["weights"].keys()
    assert pipeline["weights"] == pytest.approx(by_itself["weights"], rel=1e-6)


def test_hosts_without_a_shared_disk_gather_a_checkpoint_and_go_on_from_it(outcomes: Outcomes, base: Path) -> None:
    first = next(iter((base / "apart" / "node0").glob("runs/*/checkpoints")))
    assert sorted(path.name for path in max(first.glob("step-*")).glob("*.distcp")) == ["__0_0.distcp", "__1_0.distcp"]
    other = next(iter((base / "apart" / "node1").glob("runs/*/checkpoints")))
    assert list(other.iterdir()) == [], "the second host keeps no half of a checkpoint"
    resumed = outcomes["apart as tensor"]
    assert [found["error"] for found in resumed] == ["", ""]
    assert resumed[0]["starts"] == [6]
    assert sorted(map(int, resumed[0]["losses"])) == [7, 8, 9]


def test_a_full_disk_of_one_rank_ends_all_with_one_sentence_and_the_older_checkpoint_is_intact(
    outcomes: Outcomes, base: Path
) -> None:
    assert all("The disk is full: the checkpoint of step" in found["error"] for found in outcomes["full"])
    folder = next(iter((base / "full").glob("runs/*/checkpoints")))
    assert [path.name for path in folder.iterdir()] == ["step-0000000003"]


def test_a_stop_seen_by_one_rank_stops_all_and_the_resume_is_bit_for_bit(outcomes: Outcomes) -> None:
    stopped, resumed, whole = (outcomes[name][0] for name in ("stopped", "resumed", "whole"))
    assert stopped["weights"] == {}
    assert 1 <= len(stopped["losses"]) <= 3
    assert resumed["starts"] == [len(stopped["losses"])]
    assert stopped["losses"] | resumed["losses"] == whole["losses"]
    assert resumed["weights"] == whole["weights"]


def test_a_nan_on_one_rank_is_skipped_by_all(outcomes: Outcomes) -> None:
    main, other = outcomes["nan"]
    assert [(step, action) for step, _, action in main["acts"]] == [(3, "skip")]
    assert other["acts"] == [], "only the first rank reports"
    assert main["error"] == other["error"] == ""
    assert len(main["weights"]) > 0


def test_an_overflow_on_one_rank_halves_the_scale_of_all_and_skips_the_step(outcomes: Outcomes) -> None:
    main, other = outcomes["fp16"]
    assert main["error"] == other["error"] == ""
    assert main["scales"] == [256.0, 256.0, 128.0, 128.0, 128.0, 128.0]
    assert len(main["weights"]) > 0


def test_running_statistics_are_the_same_for_every_rank_and_layout(outcomes: Outcomes) -> None:
    """Each rank scores its own share with them: were they those of its own samples, the validations would differ."""
    ddp, zero3, half = (outcomes[name][0] for name in ("running", "running zero3", "running half"))
    assert ddp["validation"] == pytest.approx(zero3["validation"], rel=1e-5)
    assert ddp["weights"] == pytest.approx(zero3["weights"], rel=1e-5)
    assert half["error"] == "", "sharded, in half precision and averaged"
    assert half["weights"].keys() == ddp["weights"].keys()
