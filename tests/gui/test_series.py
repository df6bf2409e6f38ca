"""Curves as the plots see them: no spike is lost, smoothing is exact, truncation and seams leave no trace."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.viewmodels.curve_set import CurveRequest, CurveSet
from app.viewmodels.extrema import ExtremaPyramid
from app.viewmodels.metric_series import Axis, MetricSeries, TimeScale, ViewRange
from app.viewmodels.smoothing import EmaCurve
from core.contracts.ids import RunId
from core.contracts.runs import Curve, RunSummary, RunUpdate
from core.contracts.states import RunState

START = 1_790_000_000.0
SUMMARY = RunSummary(
    run_id=RunId("20261124-061203-digits-3f9a1c"), name="d", kind="train.image", state=RunState.RUNNING
)


def curve_of(values, first=0, key="train/loss", total=None, stride=1):
    value = np.asarray(values, dtype=np.float64)
    step = np.arange(first, first + len(value) * stride, stride, dtype=np.int64)
    return Curve(key=key, step=step, ts=START + step * 0.5, value=value, total=total or len(value))


def whole(points=400, axis=Axis.STEP, last=1e18, log_x=False):
    return ViewRange(axis=axis, first=-1e18, last=last, points=points, log_x=log_x)


def reference_ema(values, weight):
    smooth, count, out = 0.0, 0, []
    for value in values:
        if np.isfinite(value):
            smooth, count = weight * smooth + (1 - weight) * value, count + 1
            out.append(smooth / (1 - weight**count))
        else:
            out.append(value)
    return np.array(out)


def test_few_points_are_drawn_as_they_are():
    series = MetricSeries("loss")
    series.load(curve_of([3.0, 1.0, 2.0]))
    window = series.window(whole(), TimeScale())
    assert window.x.tolist() == [0, 1, 2]
    assert window.y.tolist() == [3.0, 1.0, 2.0]


@pytest.mark.parametrize("size", [5_000, 70_000, 300_001])
def test_every_spike_is_drawn(size):
    values = np.random.default_rng(0).normal(size=size)
    spikes = np.linspace(3, size - 2, 23).astype(int)
    values[spikes] = 50.0 + np.arange(len(spikes))
    series = MetricSeries("loss")
    series.load(curve_of(values))
    window = series.window(whole(points=600), TimeScale())
    assert len(window.x) <= 640
    assert set(spikes.tolist()) <= set(window.x.astype(int).tolist())
    assert window.x[0] == 0
    assert window.x[-1] == size - 1
    assert (np.diff(window.x) > 0).all()


def test_appending_in_pieces_gives_the_same_picture_as_at_once():
    values = np.random.default_rng(1).normal(size=50_000)
    at_once, pieces = MetricSeries("a"), MetricSeries("a")
    at_once.load(curve_of(values))
    pieces.load(curve_of(values[:7]))
    for start in range(7, len(values), 997):
        pieces.extend(curve_of(values[start : start + 997], first=start))
    one, other = at_once.window(whole(), TimeScale()), pieces.window(whole(), TimeScale())
    assert np.array_equal(one.x, other.x)
    assert np.array_equal(one.y, other.y)


@given(st.integers(1, 9_000), st.integers(0, 9_000), st.integers(4, 700), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_extremes_of_any_range_are_kept(size, first, points, seed):
    values = np.random.default_rng(seed).normal(size=size)
    first = first % size
    pyramid = ExtremaPyramid()
    pyramid.fold(values)
    chosen = pyramid.select(values, first, size, points)
    part = values[first:]
    assert part[chosen - first].max() == part.max()
    assert part[chosen - first].min() == part.min()
    assert (np.diff(chosen) > 0).all()


def test_values_that_are_no_number_become_marks_and_hide_no_extreme():
    values = np.random.default_rng(2).normal(size=40_000)
    values[[100, 20_000]] = np.nan
    values[30_000] = np.inf
    values[30_001] = 77.0
    series = MetricSeries("loss")
    series.load(curve_of(values))
    window = series.window(whole(), TimeScale())
    assert window.mark_x.tolist() == [100, 20_000, 30_000]
    assert np.isnan(window.mark_y[:2]).all()
    assert window.mark_y[2] == np.inf
    assert 30_001 in window.x
    assert np.nanmax(window.y) == 77.0


def test_a_curve_of_nothing_but_nan_still_shows_its_marks():
    series = MetricSeries("loss")
    series.load(curve_of(np.full(5_000, np.nan)))
    window = series.window(whole(), TimeScale())
    assert np.isnan(window.y).all()
    assert 0 < len(window.mark_x) <= 400


def test_a_restart_drops_what_it_made_void():
    series = MetricSeries("loss")
    series.set_smoothing(0.9)
    series.load(curve_of(np.arange(10_000.0)))
    series.advance_smoothing(10_000)
    series.truncate_from(6_000)
    series.extend(curve_of(np.full(100, -1.0), first=6_000))
    series.advance_smoothing(10_000)
    assert len(series) == 6_100
    window = series.window(whole(), TimeScale())
    assert np.nanmax(window.y) == 5_999.0
    assert window.x[-1] == 6_099
    expected = reference_ema([*range(6_000), *[-1.0] * 100], 0.9)
    assert window.smooth_y[-1] == pytest.approx(expected[-1])


def test_points_that_came_twice_are_drawn_once():
    series = MetricSeries("loss")
    series.load(curve_of([1.0, 2.0, 3.0]))
    series.extend(curve_of([2.0, 3.0, 4.0], first=1))
    assert series.steps.tolist() == [0, 1, 2, 3]
    assert series.is_exact


@pytest.mark.parametrize("weight", [0.1, 0.6, 0.97, 0.999])
def test_smoothing_equals_the_plain_formula(weight):
    values = np.random.default_rng(3).normal(size=3_000)
    values[[0, 5, 1_000]] = np.nan
    ema = EmaCurve(weight)
    assert ema.advance(values, 10_000)
    np.testing.assert_allclose(ema.values, reference_ema(values, weight), rtol=1e-9)


@given(st.lists(st.integers(1, 200), min_size=1, max_size=20))
@settings(max_examples=30, deadline=None)
def test_smoothing_does_not_depend_on_how_points_arrive(sizes):
    values = np.random.default_rng(4).normal(size=sum(sizes))
    at_once, pieces = EmaCurve(0.9), EmaCurve(0.9)
    at_once.advance(values, len(values))
    for end in np.cumsum(sizes):
        pieces.advance(values[:end], 10_000)
    np.testing.assert_allclose(pieces.values, at_once.values, rtol=1e-9)


def test_a_logarithmic_axis_keeps_detail_at_its_left_end():
    series = MetricSeries("loss")
    series.load(curve_of(np.random.default_rng(5).normal(size=1_000_000)))
    window = series.window(whole(points=700, log_x=True), TimeScale())
    assert (window.x < 1_000).sum() > 100
    assert len(window.x) < 1_000


def test_axes_agree_on_where_a_sample_is():
    series = MetricSeries("loss")
    series.load(curve_of(np.arange(100.0)))
    scale = TimeScale(start=START)
    at_step = series.sample_at(40.2, Axis.STEP, scale)
    at_time = series.sample_at(20.1, Axis.RELATIVE, scale)
    at_clock = series.sample_at(START + 20.1, Axis.WALL, scale)
    assert at_step is not None
    assert at_time is not None
    assert at_clock is not None
    assert at_step.step == at_time.step == at_clock.step == 40
    assert at_time.x == pytest.approx(20.0)


def test_telemetry_lies_on_the_step_axis_by_its_time():
    curves = CurveSet()
    curves.declare(["train/loss", "cpu.percent"], START)
    curves.load(curve_of(np.arange(100.0)))
    curves.load(Curve(key="cpu.percent", step=np.arange(5), ts=START + np.arange(5) * 10.0, value=np.ones(5), total=5))
    window = curves.series["cpu.percent"].window(whole(), curves.scale)
    assert window.x.tolist() == [0, 20, 40, 60, 80]


def test_live_points_wait_for_the_stored_part_and_leave_no_gap():
    curves = CurveSet()
    curves.declare(["train/loss"], START)
    assert curves.apply(RunUpdate(summary=SUMMARY, points={"train/loss": curve_of([9.0, 9.0], first=4)})) == set()
    curves.load(curve_of([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert curves.series["train/loss"].steps.tolist() == [0, 1, 2, 3, 4, 5]
    assert curves.series["train/loss"].values.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0, 9.0]


def test_a_restart_also_drops_live_points_that_wait():
    curves = CurveSet()
    curves.declare(["train/loss"], START)
    curves.apply(RunUpdate(summary=SUMMARY, points={"train/loss": curve_of([9.0] * 5, first=10)}))
    curves.apply(RunUpdate(summary=SUMMARY, truncated_at=12))
    curves.load(curve_of(np.zeros(10)))
    assert curves.series["train/loss"].steps[-1] == 11


def test_curves_share_charts_by_metric_and_by_group_of_readings():
    curves = CurveSet()
    curves.declare(["train/loss", "val/loss", "lr", "gpu.0.power_w", "gpu.1.power_w", "gpu.0.throttle_reasons"], START)
    plans = {plan.name: plan.keys for plan in curves.charts()}
    assert plans["loss"] == ("train/loss", "val/loss")
    assert plans["GPU power"] == ("gpu.0.power_w", "gpu.1.power_w")
    assert "gpu.0.throttle_reasons" not in curves.series
    assert [plan.name for plan in curves.charts("val")] == ["loss"]


def test_zooming_a_long_curve_asks_for_the_stretch_in_detail_once():
    curves = CurveSet()
    curves.declare(["train/loss"], START)
    curves.load(curve_of(np.zeros(2_000), total=1_000_000, stride=500))
    view = ViewRange(axis=Axis.STEP, first=1_000, last=2_000, points=800)
    request = curves.request_for("train/loss", view)
    assert request is not None
    assert request.first is not None
    assert request.first <= 1_000
    curves.load_detail(request, curve_of(np.ones(2_001), first=500, total=2_001))
    assert curves.request_for("train/loss", view) is None
    window = curves.best("train/loss", view).window(view, curves.scale)
    assert len(window.x) > 100
    assert set(window.y) == {1.0}
    assert curves.request_for("train/loss", ViewRange(axis=Axis.STEP, first=-1, last=1e6, points=800)) is None


def test_smoothing_a_long_curve_asks_for_all_of_it():
    curves = CurveSet()
    curves.set_smoothing(0.9)
    curves.declare(["train/loss"], START)
    curves.load(curve_of(np.zeros(2_000), total=1_000_000, stride=500))
    request = curves.request_for("train/loss", whole())
    assert request == CurveRequest(key="train/loss", first=None, last=None, points=1_000_000)


def test_a_million_points_are_drawn_in_a_few_milliseconds():
    series = MetricSeries("loss")
    series.load(curve_of(np.random.default_rng(6).normal(size=1_000_000)))
    began = time.process_time()
    for _ in range(20):
        series.window(whole(points=700), TimeScale())
    # Without the pyramid one drawing takes about 5 ms of CPU; with it 0.2 ms.
    assert (time.process_time() - began) / 20 < 0.003
