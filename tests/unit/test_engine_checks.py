"""What is refused before a launch about optimizer, precision and starting checkpoint, all at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.train import compute_checks
from core.train.compute_checks import check_compute
from tests.helpers.digit_task import row_spec


def fields(*, is_elsewhere: bool = False, **spec: Any) -> list[str]:
    return [problem.field for problem in check_compute(row_spec(**spec), is_elsewhere=is_elsewhere)]


@pytest.mark.parametrize("algorithm", ["muon", "adamw-8bit", "adafactor"])
@pytest.mark.parametrize("parallel", [{"sharding": "zero3"}, {"tensor": 2}])
def test_optimizers_of_whole_matrices_are_refused_where_these_are_cut(algorithm: str, parallel: dict[str, Any]) -> None:
    cut = {"processes": 2, **parallel}
    assert fields(optimizer={"algorithm": algorithm}, parallel=cut) == ["optimizer.algorithm"]
    assert fields(optimizer={"algorithm": "adamw"}, parallel=cut) == []
    assert fields(optimizer={"algorithm": algorithm}, parallel={"processes": 2, "pipeline": 2}) == []


def test_all_problems_are_found_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(compute_checks, "find_spec", lambda name: None)
    spec: dict[str, Any] = {
        "precision": "fp8",
        "optimizer": {"algorithm": "adamw-8bit"},
        "parallel": {"processes": 2, "tensor": 2},
        "checkpoints": {"start_from": str(tmp_path)},
    }
    everything = ["optimizer.algorithm", "precision", "optimizer.algorithm", "precision", "checkpoints.start_from"]
    assert fields(**spec) == everything
    assert fields(is_elsewhere=True, **spec) == everything[:2], "files and libraries of other hosts are not known here"


def test_a_start_is_a_checkpoint_folder_or_a_run_with_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute_checks, "default_home", lambda: tmp_path)
    step = tmp_path / "runs" / "some-run" / "checkpoints" / "step-0000000004"
    step.mkdir(parents=True)
    (step / "training.pt").touch()
    (tmp_path / "runs" / "bare-run" / "checkpoints").mkdir(parents=True)
    for start in (str(step), "some-run"):
        assert fields(checkpoints={"start_from": start}) == []
    for start in ("bare-run", "no-run", str(tmp_path)):
        assert fields(checkpoints={"start_from": start}) == ["checkpoints.start_from"]
