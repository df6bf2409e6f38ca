"""The arithmetic of the pyramid, and blocks of bytes, against plain reference code."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from core.history import blocks
from core.history.extremes import (
    ABSENT,
    Points,
    combine,
    decimate,
    extremes_of,
    pack_extremes,
    unpack_extremes,
)

_values = hnp.arrays(np.float64, st.integers(0, 300), elements=st.floats(width=64))
_ints = hnp.arrays(np.int64, st.integers(0, 300), elements=st.integers(-(2**63), 2**63 - 1))


def points_of(value: np.ndarray) -> Points:
    count = len(value)
    return Points(np.arange(count, dtype=np.int64) * 3, 1e9 + np.arange(count) / 7, np.asarray(value, np.float64))


@given(_values)
def test_floats_come_back_to_the_bit(value: np.ndarray) -> None:
    back = blocks.unpack_floats(blocks.pack_floats(value), len(value))
    assert back.tobytes() == value.tobytes()


@given(_ints)
def test_steps_come_back_even_where_differences_overflow(steps: np.ndarray) -> None:
    assert (blocks.unpack_steps(blocks.pack_axis(steps), len(steps)) == steps).all()


@given(_values)
def test_times_come_back_to_the_bit(ts: np.ndarray) -> None:
    assert blocks.unpack_times(blocks.pack_axis(ts), len(ts)).tobytes() == ts.tobytes()


def test_a_steady_axis_costs_almost_nothing() -> None:
    assert len(blocks.pack_axis(np.arange(4096, dtype=np.int64))) < 100


@pytest.mark.parametrize("damage", [b"", b"\x00" * 40, None])
def test_damaged_blocks_are_named_as_such(damage: bytes | None) -> None:
    data = blocks.pack_floats(np.arange(5.0)) if damage is None else damage
    with pytest.raises(blocks.DamagedBlock):
        blocks.unpack_floats(data, 6)


def reference(points: Points, first: int, size: int) -> list[list[int]]:
    found: list[list[int]] = []
    for start in range(0, len(points), size):
        part = list(enumerate(points.value[start : start + size].tolist(), start=first + start))
        finite = [(index, value) for index, value in part if math.isfinite(value)]
        low = min(finite, key=lambda p: (p[1], p[0]))[0] if finite else ABSENT
        high = max(finite, key=lambda p: (p[1], -p[0]))[0] if finite else ABSENT
        odd = next((index for index, value in part if not math.isfinite(value)), ABSENT)
        found.append([low, high, odd])
    return found


@given(hnp.arrays(np.float64, 96, elements=st.floats(width=16)))
def test_buckets_hold_lowest_highest_and_first_non_finite(value: np.ndarray) -> None:
    points = points_of(value)
    fine = extremes_of(points, 96, 8)
    assert fine.index.tolist() == reference(points, 96, 8)
    assert combine(fine, 4).index.tolist() == reference(points, 96, 32)
    assert combine(fine, 4).value.tolist() == extremes_of(points, 96, 32).value.tolist() or np.isnan(value).any()


@given(hnp.arrays(np.float64, 64, elements=st.floats(width=16)))
def test_packed_buckets_come_back(value: np.ndarray) -> None:
    made = extremes_of(points_of(value), 4096, 8)
    back = unpack_extremes(pack_extremes(made, 4096), len(made), 4096)
    for name in ("index", "step", "ts", "value"):
        assert getattr(back, name).tobytes() == np.ascontiguousarray(getattr(made, name)).tobytes()


@given(hnp.arrays(np.float64, 64, elements=st.floats(width=16)))
def test_points_of_buckets_are_in_order_and_unique(value: np.ndarray) -> None:
    kept = extremes_of(points_of(value), 0, 16).points()
    assert (np.diff(kept.step) > 0).all()
    assert np.isnan(kept.value).any() == any(math.isnan(v[0]) for v in first_odd(value, 16))


def first_odd(value: np.ndarray, size: int) -> list[list[float]]:
    parts = [value[at : at + size] for at in range(0, len(value), size)]
    return [[float(part[~np.isfinite(part)][0])] for part in parts if (~np.isfinite(part)).any()]


@given(hnp.arrays(np.float64, st.integers(0, 2000), elements=st.floats(width=16)), st.integers(1, 400))
def test_decimation_keeps_to_its_limit_both_ends_and_the_extremes(value: np.ndarray, limit: int) -> None:
    points = points_of(value)
    kept = decimate(points, limit)
    assert len(kept) <= max(limit, 16)
    assert (np.diff(kept.step) > 0).all()
    if len(points):
        assert kept.step[0] == points.step[0]
        assert kept.step[-1] == points.step[-1]
    finite = value[np.isfinite(value)]
    if len(finite):
        assert kept.value[np.isfinite(kept.value)].max() == finite.max()
        assert kept.value[np.isfinite(kept.value)].min() == finite.min()
    assert np.isfinite(kept.value).all() == np.isfinite(value).all(), "non-finite points are still seen"


def test_every_spike_survives_decimation_of_a_long_curve() -> None:
    value = np.zeros(100_000)
    spikes = np.arange(500, 100_000, 5000)
    value[spikes] = 1.0 + spikes
    kept = decimate(points_of(value), 400)
    assert set(spikes * 3) <= set(kept.step.tolist())


def test_few_points_are_left_as_they_are() -> None:
    points = points_of(np.arange(50.0))
    assert decimate(points, 50) is points
