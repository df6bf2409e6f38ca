"""The stability guard in real trainings: a spike, a batch of NaN and a slow rank are met, and without it the run is ruined.

The faults are in the data, by sample: a first run tells which samples a step gets, and later runs damage these. Margins: the
guarded run ends within 5 % of the clean run's validation loss; the unguarded one at more than ten times of it, or not at all.
"""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import nn

from core.contracts.errors import UserError
from core.contracts.worker import RunContext
from core.train.engine.contracts import Batch, DataPart, Evaluation, Mesh, Outcome, SampleKey
from core.train.engine.train import train
from core.train.specs.checkpoints import CheckpointSpec
from core.train.specs.optimizer import OptimizerSpec
from core.train.specs.parallel import ParallelSpec
from core.train.specs.stability import StabilitySpec
from core.train.specs.training import TrainingSpec
from tests.helpers.rank_group import run_in_ranks
from tests.helpers.recording_context import RecordingContext, as_context

pytestmark = pytest.mark.timeout(300)
STEPS = 120
BATCH = 16
FAULT_STEP = 60
MARGIN = 0.05
SPEC = TrainingSpec(
    steps=STEPS,
    micro_batch=BATCH,
    evaluate_every=STEPS,
    seed=3,
    device="cpu",
    optimizer=OptimizerSpec(algorithm="sgd", lr=0.05, max_grad_norm=0.0, schedule="cosine"),
    checkpoints=CheckpointSpec(every_steps=20, asynchronous=False),
    stability=StabilitySpec(window_steps=32),
)
CLASSES = 4
FEATURES = 16


class Clusters:
    """Points around four centres. Faults: ``poison`` maps (number, epoch) to what the values are multiplied by."""

    def __init__(self, size: int, seed: int, poison: Mapping[tuple[int, int], float] | None = None) -> None:
        draw = torch.Generator().manual_seed(seed)
        centres = torch.randn(CLASSES, FEATURES, generator=torch.Generator().manual_seed(1))
        self.labels = torch.randint(CLASSES, (size,), generator=draw)
        self.points = centres[self.labels] + 0.8 * torch.randn(size, FEATURES, generator=draw)
        self.poison = poison or {}
        self.used: list[tuple[int, int]] = []
        self.slow_from: int | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, key: SampleKey) -> tuple[torch.Tensor, torch.Tensor]:
        self.used.append((key.number, key.epoch))
        if self.slow_from is not None and len(self.used) > self.slow_from:
            time.sleep(0.03)
        return self.points[key.number] * self.poison.get((key.number, key.epoch), 1.0), self.labels[key.number]


def collate(samples: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> Batch:
    return {"pixels": torch.stack([one for one, _ in samples]), "labels": torch.stack([one for _, one in samples])}


class ClusterTask:
    """Classifies the points with a small network."""

    unit = "samples"

    def __init__(self, data: Clusters) -> None:
        self.data = data
        self.loss_at_end = math.nan

    def build_model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(FEATURES, 32), nn.ReLU(), nn.Linear(32, CLASSES))

    def training(self) -> DataPart:
        return DataPart(samples=self.data, collate=collate)

    def validation(self) -> DataPart | None:
        return DataPart(samples=Clusters(256, seed=99), collate=collate)

    def count(self, batch: Batch) -> int:
        return len(batch["labels"])

    def forward(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        return model(batch["pixels"])

    def loss(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        return nn.functional.cross_entropy(output, batch["labels"], reduction="sum")

    def score(self, output: torch.Tensor, batch: Batch) -> dict[str, float]:
        return {"loss": float(self.loss(output, batch)), "count": float(len(batch["labels"]))}

    def evaluation(self, sums: Mapping[str, float]) -> Evaluation:
        loss = sums["loss"] / sums["count"]
        return Evaluation(values={"val/loss": loss}, score=(-loss if math.isfinite(loss) else -math.inf,))

    def training_flops(self, units: int) -> float:
        del units
        return 0.0

    def after_validation(self, model: nn.Module, step: int) -> None:
        del model, step

    def finish(self, weights: Mapping[str, torch.Tensor], outcome: Outcome) -> None:
        del weights
        self.loss_at_end = outcome.best_values.get("val/loss", math.nan)


def run(
    folder: Path, poison: Mapping[tuple[int, int], float] | None = None, **stability: Any
) -> tuple[ClusterTask, RecordingContext]:
    """Train in this process; return the task and what was reported."""
    spec = msgspec.structs.replace(SPEC, stability=msgspec.structs.replace(SPEC.stability, **stability))
    task, context = ClusterTask(Clusters(512, seed=7, poison=poison)), RecordingContext(folder)

    def make_task(mesh: Mesh, context: RunContext) -> ClusterTask:
        del mesh, context
        return task

    train(spec, as_context(context), make_task)
    return task, context


@pytest.fixture(scope="module")
def clean() -> tuple[float, list[tuple[int, int]]]:
    """The loss of a run that nothing is wrong with, and the samples that it used in order; the guard must stay silent."""
    with tempfile.TemporaryDirectory() as folder:
        task, context = run(Path(folder))
    assert acted_on(context) == []
    return task.loss_at_end, task.data.used


def samples_of(used: list[tuple[int, int]], step: int) -> list[tuple[int, int]]:
    return used[(step - 1) * BATCH : step * BATCH]


def acted_on(context: RecordingContext) -> list[tuple[str, str]]:
    return [(signal, action) for _, signal, action, _ in context.stabilities if action != "note"]


@pytest.mark.parametrize(
    ("policies", "acted"),
    [
        ({}, [("loss_spike", "roll-back")]),
        ({"on_loss_spike": "skip", "on_gradient_spike": "skip"}, [("loss_spike", "skip")]),
        ({"on_loss_spike": "clip"}, [("loss_spike", "clip")]),
    ],
    ids=["roll-back", "skip", "clip"],
)
def test_a_spike_is_recovered_from(
    tmp_path: Path, clean: tuple[float, list[tuple[int, int]]], policies: dict[str, Any], acted: list[tuple[str, str]]
) -> None:
    loss, used = clean
    poison = dict.fromkeys(samples_of(used, FAULT_STEP), -300.0)
    task, context = run(tmp_path, poison, **policies)
    assert acted_on(context) == acted
    step, _, _, reason = next(event for event in context.stabilities if event[2] != "note")
    assert step == FAULT_STEP
    assert "robust deviations above its recent median" in reason
    assert context.curve("train/loss")[-1][0] == STEPS
    assert task.loss_at_end == pytest.approx(loss, rel=MARGIN)


def test_a_spike_ruins_the_unguarded_run(tmp_path: Path, clean: tuple[float, list[tuple[int, int]]]) -> None:
    loss, used = clean
    task, context = run(tmp_path, dict.fromkeys(samples_of(used, FAULT_STEP), -300.0), guard=False)
    assert context.stabilities == []
    assert task.loss_at_end > 10 * loss


def test_a_batch_of_nan_is_skipped(tmp_path: Path, clean: tuple[float, list[tuple[int, int]]]) -> None:
    loss, used = clean
    task, context = run(tmp_path, {samples_of(used, FAULT_STEP)[0]: math.nan})
    (event,) = [one for one in context.stabilities if one[2] != "note"]
    assert event == (FAULT_STEP, "not_finite", "skip", "The loss is nan.")
    assert task.loss_at_end == pytest.approx(loss, rel=MARGIN)


def test_a_batch_of_nan_ends_the_unguarded_run(tmp_path: Path, clean: tuple[float, list[tuple[int, int]]]) -> None:
    _, used = clean
    with pytest.raises(UserError, match=f"became nan at step {FAULT_STEP}"):
        run(tmp_path, {samples_of(used, FAULT_STEP)[0]: math.nan}, guard=False)


def test_trouble_without_end_stops_the_run_with_a_sentence(
    tmp_path: Path, clean: tuple[float, list[tuple[int, int]]]
) -> None:
    _, used = clean
    poison = dict.fromkeys({key for step in range(FAULT_STEP, STEPS) for key in samples_of(used, step)}, math.nan)
    with pytest.raises(UserError, match="The stability guard stopped the run at step") as raised:
        run(tmp_path, poison, max_actions=2)
    assert "2 attempts to recover (the limit) did not help" in raised.value.message


def train_with_faults(folder: str) -> dict[str, Any]:
    """Train on this rank; rank 1 meets NaN in its data, and at the end it loads slowly. Called in every rank."""
    rank = int(os.environ["RANK"])
    spec = msgspec.structs.replace(SPEC, micro_batch=BATCH // 2, parallel=ParallelSpec(processes=2))
    context = RecordingContext(Path(folder))
    data = Clusters(512, seed=7)
    if rank == 1:
        data.slow_from = BATCH // 2 * (STEPS - 20)
        data.poison = {(number, 0): math.nan for number in range(0, 512, 128)}
    task = ClusterTask(data)
    train(spec, as_context(context), lambda mesh, context: task)
    return {"loss": task.loss_at_end, "events": context.stabilities, "steps": len(context.curve("train/loss"))}


@pytest.fixture(scope="module")
def two_ranks() -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        return run_in_ranks(train_with_faults, 2, folder=folder)


def test_a_slow_rank_is_named_and_the_training_is_not_disturbed(two_ranks: list[dict[str, Any]]) -> None:
    slow = [(action, reason) for _, signal, action, reason in two_ranks[0]["events"] if signal == "slow_step"]
    assert slow
    assert all(action == "note" for action, _ in slow)
    assert any("slowest rank is 1" in reason or reason.startswith("Rank 1 ") for _, reason in slow), slow
    assert two_ranks[0]["steps"] == STEPS


def test_both_ranks_skip_a_step_that_only_one_of_them_sees_nan_in(
    two_ranks: list[dict[str, Any]], clean: tuple[float, list[tuple[int, int]]]
) -> None:
    found = two_ranks[0]
    skipped = [step for step, signal, action, _ in found["events"] if (signal, action) == ("not_finite", "skip")]
    assert skipped
    assert max(skipped) <= 512 // BATCH, "the first epoch's"
    assert found["loss"] == pytest.approx(clean[0], rel=MARGIN)
    assert two_ranks[1]["events"] == [], "rank 0 reports for all"
