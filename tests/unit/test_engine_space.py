"""How much room checkpoints take, and what is said when the disk has less."""

from __future__ import annotations

import shutil
from typing import NamedTuple

import pytest

from core.train.space import check_space, checkpoint_bytes


class Usage(NamedTuple):
    """What ``shutil.disk_usage`` returns."""

    total: int
    used: int
    free: int


def test_room_is_weights_and_optimizer_state_of_every_checkpoint_kept_and_of_the_one_being_written() -> None:
    assert checkpoint_bytes(1000, averaged=False, keep_last=2) == 12 * 1000 * 4
    assert checkpoint_bytes(1000, averaged=True, keep_last=2) == 16 * 1000 * 4
    assert checkpoint_bytes(1000, averaged=False, keep_last=1, keep_best=False, algorithm="sgd") == 8 * 1000 * 2
    assert checkpoint_bytes(1000, averaged=False, keep_last=1, algorithm="adafactor") < 5 * 1000 * 3


def test_too_little_room_is_one_problem_with_both_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 0, 200 << 20))
    assert check_space(100 << 20, "The checkpoints") == ()
    (problem,) = check_space(500 << 20, "The checkpoints")
    assert "need about 500 MiB" in problem.message
    assert "200 MiB free" in problem.message
    assert "keep fewer" in problem.hint
