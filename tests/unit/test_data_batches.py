"""Micro-batches: every sample once an epoch, the same for every layout, resumed to the bit, sentences when loading dies."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from core.contracts.errors import EnvironmentProblem, UserError
from core.train.data.batches import make_batches, validation_batches
from core.train.data.order import EpochOrder
from core.train.engine.contracts import Batch, Batches, DataPart, Mesh, SampleKey
from core.train.specs.loading import LoadingSpec
from tests.helpers.waiting import wait_for


class Numbers:
    """Samples that say who they are, and a random value that belongs to this use of them."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: SampleKey) -> tuple[int, int, float]:
        if key.number == 1000:
            raise UserError("The row 1000 of numbers.csv cannot be read.", "Repair it.")
        drawn = np.random.default_rng((7, key.epoch, key.number)).random()
        return key.number, key.epoch, float(drawn)


def collate(samples: Sequence[Any]) -> Batch:
    numbers, epochs, drawn = zip(*samples, strict=True)
    return {"number": torch.tensor(numbers), "epoch": torch.tensor(epochs), "drawn": torch.tensor(drawn)}


def part(count: int) -> DataPart:
    return DataPart(samples=Numbers(count), collate=collate)


def mesh(rank: int = 0, ranks: int = 1) -> Mesh:
    return Mesh(device=torch.device("cpu"), rank=rank, world=ranks, data_rank=rank, data_size=ranks)


def batches(count: int = 23, *, rank: int = 0, ranks: int = 1, micro_batch: int = 2, processes: int = 0) -> Batches:
    loading = LoadingSpec(loading_processes=processes, prefetch_batches=3)
    return make_batches(part(count), mesh(rank, ranks), micro_batch=micro_batch, seed=5, loading=loading)


def rows(steps: list[list[Batch]]) -> list[tuple[int, int, float]]:
    """Return all samples, in order."""
    return [
        row
        for step in steps
        for batch in step
        for row in zip(batch["number"].tolist(), batch["epoch"].tolist(), batch["drawn"].tolist(), strict=True)
    ]


@pytest.mark.parametrize("count", [1, 2, 3, 10, 64, 1000, 4097])
def test_every_epoch_is_another_permutation(count: int) -> None:
    keys = EpochOrder(count, seed=3).keys(0, 3 * count)
    orders = [[key.number for key in keys[epoch * count : (epoch + 1) * count]] for epoch in range(3)]
    assert all(sorted(order) == list(range(count)) for order in orders)
    assert [key.epoch for key in keys] == [epoch for epoch in range(3) for _ in range(count)]
    assert count < 10 or len({tuple(order) for order in orders}) == 3


def test_the_order_is_found_at_any_place_and_looks_random() -> None:
    count = 2000
    order = EpochOrder(count, seed=0)
    whole = order.keys(0, 2 * count)
    assert EpochOrder(count, seed=0).keys(1990, 30) == whole[1990:2020]
    numbers = np.array([key.number for key in whole[:count]])
    # Neither the place nor the number before tells the number: correlations of a random order are about 1/sqrt(count).
    assert abs(np.corrcoef(np.arange(count), numbers)[0, 1]) < 4 / np.sqrt(count)
    assert abs(np.corrcoef(numbers[1:], numbers[:-1])[0, 1]) < 4 / np.sqrt(count)
    assert EpochOrder(10**12, seed=1).keys(10**12 - 1, 2)[1].epoch == 1


@pytest.mark.parametrize("ranks", [2, 4])
def test_the_samples_of_a_step_do_not_depend_on_the_ranks(ranks: int) -> None:
    alone = batches(micro_batch=8)
    shared = [batches(rank=rank, ranks=ranks, micro_batch=8 // ranks) for rank in range(ranks)]
    for _ in range(7):
        expected = rows([alone.next_step(1)])
        assert rows([one.next_step(1) for one in shared]) == expected


def test_an_epoch_has_no_duplicates_and_no_gaps_over_ranks_and_micro_batches() -> None:
    shared = [batches(24, rank=rank, ranks=2, micro_batch=2) for rank in range(2)]
    found = rows([one.next_step(3) for one in shared for _ in range(2)])
    assert sorted(number for number, epoch, _ in found if epoch == 0) == list(range(24))
    assert shared[0].epoch() == 1.0
    assert shared[0].steps_per_epoch == 6


@pytest.mark.parametrize("processes", [0, 2])
def test_a_resume_in_mid_epoch_is_exact_with_prefetching_processes(processes: int) -> None:
    whole = batches(processes=processes)
    before = [whole.next_step(2) for _ in range(3)]
    state = whole.state_dict()
    after = [whole.next_step(3) for _ in range(4)]  # more accumulation from here on, in mid-run
    assert rows(before + after) == rows([batches().next_step(24 // 2 - 6 // 2 + 9)])
    resumed = batches(processes=2 - processes)
    resumed.load_state_dict(state)
    assert rows([resumed.next_step(3) for _ in range(4)]) == rows(after)
    assert resumed.state_dict() == whole.state_dict()
    shared = [batches(rank=rank, ranks=2, micro_batch=3) for rank in range(2)]
    for one in shared:
        one.load_state_dict(state)
    assert rows([one.next_step(1) for one in shared]) == rows(after)[:6]
    for one in (whole, resumed):
        one.close()


@pytest.mark.parametrize("processes", [0, 1])
def test_skipping_leaves_out_one_step(processes: int) -> None:
    reference = batches()
    steps = [reference.next_step(2) for _ in range(3)]
    skipping = batches(processes=processes)
    first = skipping.next_step(2)
    skipping.skip(2)
    assert rows([first, skipping.next_step(2)]) == rows([steps[0], steps[2]])
    assert skipping.state_dict() == reference.state_dict()
    skipping.close()


def test_a_position_of_other_data_is_refused() -> None:
    state = batches(23).state_dict()
    with pytest.raises(UserError, match="23 samples.*24"):
        batches(24).load_state_dict(state)
    with pytest.raises(UserError, match="streaming"):
        batches(23).load_state_dict({"stream": [0, 0, 0, 0]})
    with pytest.raises(UserError, match="empty"):
        batches(0)


@pytest.mark.parametrize("processes", [0, 1])
def test_a_sample_that_cannot_be_read_is_named_from_within_a_loading_process(processes: int) -> None:
    bad = batches(1001, micro_batch=1001, processes=processes)
    with pytest.raises(UserError) as caught:
        bad.next_step(1)
    assert caught.value.message == "The row 1000 of numbers.csv cannot be read."
    assert caught.value.hint == "Repair it."
    bad.close()


def test_a_killed_loading_process_becomes_a_sentence() -> None:
    handler = signal.getsignal(signal.SIGCHLD)
    others = {process.pid for process in psutil.Process().children()}
    loaded = batches(processes=1)
    loaded.next_step(1)
    assert signal.getsignal(signal.SIGCHLD) == handler
    children = {process.pid for process in psutil.Process().children()}
    (pid,) = children - others
    child = psutil.Process(pid)
    os.kill(child.pid, signal.SIGKILL)
    wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "the loading process to die")
    with pytest.raises(EnvironmentProblem, match="loading process of rank 0 was ended"):
        loaded.next_step(20)  # more than was prefetched
    loaded.close()


def test_waiting_is_measured_and_random_numbers_of_the_training_are_left_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    loaded = batches()
    loaded.next_step(4)
    assert loaded.last_wait_s > 0
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize(("count", "ranks"), [(10, 2), (9, 2), (1, 3), (12, 4)])
def test_validation_covers_the_part_once_in_step(count: int, ranks: int) -> None:
    found = [list(validation_batches(part(count), mesh(rank, ranks), 2)) for rank in range(ranks)]
    assert len({len(one) for one in found}) == 1
    scored = [number for one in found for batch, is_scored in one if is_scored for number in batch["number"].tolist()]
    assert sorted(scored) == list(range(count))


def test_an_empty_validation_part_gives_no_batches() -> None:
    assert list(validation_batches(part(0), mesh(), 2)) == []
