"""A sweep on parallel axes: scales, ticks, ranks, ranges."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from app.viewmodels.sweep_axes import picture_of
from core.contracts.sweeps import SweepParameter, SweepReport, SweepTrial


def report(*values: float | None, goal: str = "minimize") -> SweepReport:
    trials = tuple(
        SweepTrial(
            number=n,
            state="failed" if value is None else "finished",
            values={"lr": 10.0 ** -(n % 4), "mode": "ab"[n % 2], "width": 16 + 16 * (n % 3)},
            value=value,
        )
        for n, value in enumerate(values)
    )
    parameters = (
        SweepParameter(path="lr", label="Rate", kind="number", text="", low=1e-3, high=1.0, log=True),
        SweepParameter(path="mode", label="Mode", kind="choice", text="", choices=("a", "b")),
        SweepParameter(path="width", label="Width", kind="integer", text="", low=16, high=48),
    )
    made = SweepReport(
        metric="val/loss",
        goal="minimize",
        sampler="tpe",
        pruner="none",
        planned=9,
        parameters=parameters,
        trials=trials,
    )
    return msgspec.structs.replace(made, goal=goal)


def test_numbers_lie_on_the_scale_of_their_range() -> None:
    rate, mode, width, metric = picture_of(report(1.0, 2.0, 3.0, 4.0)).axes
    assert rate.positions == pytest.approx([1.0, 2 / 3, 1 / 3, 0.0])
    assert mode.positions == pytest.approx([0.25, 0.75, 0.25, 0.75])
    assert width.positions == pytest.approx([0.0, 0.5, 1.0, 0.0])
    assert metric.positions == pytest.approx([0.0, 1 / 3, 2 / 3, 1.0])
    assert rate.text_at(1 / 3) == "0.01"
    assert width.text_at(0.5) == "32"
    assert mode.text_at(0.7) == "b"


def test_a_trial_without_a_value_ends_before_the_metric() -> None:
    picture = picture_of(report(1.0, None, 3.0))
    assert math.isnan(picture.axes[-1].positions[1])
    assert math.isnan(picture.goodness[1])
    assert not math.isnan(picture.axes[0].positions[1])


def test_one_trial_that_diverged_does_not_flatten_the_others() -> None:
    picture = picture_of(report(0.1, 0.2, 0.4, 1e6))
    positions = picture.axes[-1].positions
    assert picture.axes[-1].log
    assert positions[1] - positions[0] > 0.03
    assert picture.goodness == pytest.approx([1.0, 2 / 3, 1 / 3, 0.0])


@pytest.mark.parametrize(("goal", "best"), [("minimize", 0), ("maximize", 2)])
def test_goodness_follows_the_goal(goal: str, best: int) -> None:
    assert int(np.argmax(picture_of(report(1.0, 2.0, 3.0, goal=goal)).goodness)) == best


def test_one_trial_and_none_are_drawn_too() -> None:
    one = picture_of(report(2.0))
    assert one.axes[-1].positions == pytest.approx([0.5])
    assert one.goodness == pytest.approx([1.0])
    none = picture_of(report())
    assert [len(axis.positions) for axis in none.axes] == [0, 0, 0, 0]


def test_ranges_keep_what_lies_in_all_of_them() -> None:
    picture = picture_of(report(1.0, None, 3.0, 4.0))
    assert picture.kept({}).all()
    assert picture.kept({1: (0.0, 0.5)}).tolist() == [True, False, True, False]
    assert picture.kept({1: (0.0, 0.5), 3: (0.5, 1.0)}).tolist() == [False, False, True, False]
    assert picture.kept({3: (0.0, 1.0)}).tolist() == [True, False, True, True]


def test_ticks_are_round_and_begin_and_end_with_the_range() -> None:
    for axis in picture_of(report(0.137, 0.9, 1.413)).axes:
        positions = [position for position, _ in axis.ticks]
        assert positions == sorted(positions)
        if axis.title != "Mode":
            assert (positions[0], positions[-1]) == pytest.approx((0.0, 1.0))
    assert [text for _, text in picture_of(report(1.0, 2.0)).axes[0].ticks] == ["0.001", "0.01", "0.1", "1"]
