"""Statistics of the benchmark against known values and against what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.infer.statistics import median_interval, percentile, upper_bound, wilson_interval


def test_percentiles_are_nearest_rank() -> None:
    values = np.arange(1.0, 101.0)
    assert percentile(values, 0.5) == 50.0
    assert percentile(values, 0.99) == 99.0
    assert percentile(values, 1.0) == 100.0
    assert percentile(np.array([7.0]), 0.99) == 7.0


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300), st.floats(0.01, 1.0))
def test_a_percentile_is_the_smallest_value_that_covers_its_share(values: list[float], share: float) -> None:
    ordered = np.sort(np.array(values))
    found = percentile(ordered, share)
    assert (ordered <= found).mean() >= share - 1e-12
    below = ordered[ordered < found]
    assert len(below) == 0 or (ordered <= below[-1]).mean() < share + 1e-12


@pytest.mark.parametrize(("correct", "total", "low", "high"), [(471, 497, 0.92445, 0.96405), (10, 10, 0.72247, 1.0)])
def test_wilson_agrees_with_published_values(correct: int, total: int, low: float, high: float) -> None:
    interval = wilson_interval(correct, total)
    assert interval.low == pytest.approx(low, abs=1e-5)
    assert interval.high == pytest.approx(high, abs=1e-5)


def test_p99_has_no_bound_below_299_values_and_one_from_there() -> None:
    values = np.sort(np.random.default_rng(0).exponential(size=299))
    assert upper_bound(values[:298], 0.99) is None
    assert upper_bound(values, 0.99) == values[-1]


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    median, p99 = np.log(2.0), -np.log(0.01)
    trials, covered, bounded = 400, 0, 0
    for _ in range(trials):
        values = np.sort(rng.exponential(size=500))
        interval = median_interval(values)
        covered += interval.low <= median <= interval.high
        bound = upper_bound(values, 0.99)
        assert bound is not None
        bounded += bound >= p99
    assert 0.92 <= covered / trials <= 0.99
    assert 0.92 <= bounded / trials <= 0.995
