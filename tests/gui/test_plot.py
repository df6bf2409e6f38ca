"""Charts: draw what is there, zoom together, show values, hide and isolate, export, and never hold up the window."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtGui import QImage, QWheelEvent
from PySide6.QtWidgets import QApplication, QFileDialog

from app.controllers.curve_table import write_shown
from app.viewmodels.curve_set import CurveSet
from app.viewmodels.metric_series import Axis
from app.views.theme import apply_theme
from app.views.widgets.curve_board import CurveBoard
from app.views.widgets.metric_plot import MetricPlot
from app.views.widgets.plot_export import save_picture
from app.views.widgets.plot_toolbar import position_of, weight_of
from core.contracts.ids import RunId
from core.contracts.runs import Curve, MarkerRecord, RunSummary, RunUpdate
from core.contracts.states import RunState
from tests.helpers.run_pages import StallWatch

START = 1_790_000_000.0
SUMMARY = RunSummary(
    run_id=RunId("20261124-061203-digits-3f9a1c"), name="d", kind="train.image", state=RunState.RUNNING
)


def curve_of(key: str, values, first=0, step_time_s=0.5) -> Curve:
    value = np.asarray(values, dtype=np.float64)
    step = np.arange(first, first + len(value), dtype=np.int64)
    return Curve(key=key, step=step, ts=START + step * step_time_s, value=value, total=len(value))


@pytest.fixture
def board(qtbot, qapp):
    apply_theme(qapp, "light")
    made = CurveBoard()
    qtbot.addWidget(made)
    made.resize(1000, 800)
    made.show()
    curves = CurveSet()
    curves.declare(["train/loss", "val/loss", "lr", "cpu.percent"], START)
    curves.load(curve_of("train/loss", np.linspace(2, 0.2, 1_000)))
    curves.load(curve_of("val/loss", np.linspace(2.2, 0.5, 1_000)))
    curves.load(curve_of("lr", np.full(1_000, 1e-3)))
    curves.load(curve_of("cpu.percent", np.full(100, 40.0), step_time_s=5.0))
    made.set_curves(curves)
    drawn(qtbot, made)
    return made


def drawn(qtbot, board: CurveBoard) -> None:
    def is_drawn() -> bool:
        visible = board._visible_plots()
        lacking = [slot for slot in board._slots.values() if slot.plot is None and not slot.visibleRegion().isEmpty()]
        return bool(visible) and not lacking and not any(plot.is_dirty for plot in visible)

    qtbot.waitUntil(is_drawn, timeout=10_000)


def chart(board: CurveBoard, name: str) -> MetricPlot:
    return next(plot for plot in board.plots if plot.plan.name == name)


def y_range(plot: MetricPlot) -> tuple[float, float]:
    low, high = plot._box.viewRange()[1]
    return low, high


def x_range(plot: MetricPlot) -> tuple[float, float]:
    first, last = plot._box.viewRange()[0]
    return first, last


def drag_zoom(plot: MetricPlot, first: float, last: float) -> None:
    plot._box.setXRange(first, last, padding=0)
    plot._on_range_dragged()


def test_charts_show_all_of_the_run_and_telemetry_lies_under_the_same_steps(board):
    assert list(board.chart_names) == ["loss", "lr", "Processor"]
    for plot in board.plots:
        first, last = x_range(plot)
        assert first <= 0
        assert last >= 999
        assert last < 1_100
    low, high = y_range(chart(board, "loss"))
    assert low < 0.2
    assert high > 2.2
    assert y_range(chart(board, "Processor")) == pytest.approx((0.0, 102.0))


def test_live_points_extend_the_picture_and_a_restart_cuts_it(qtbot, board):
    plot = chart(board, "loss")
    changed = board.curves.apply(
        RunUpdate(summary=SUMMARY, points={"train/loss": curve_of("train/loss", [9.0] * 500, 1_000)})
    )
    board.curves_changed(changed)
    drawn(qtbot, board)
    assert x_range(plot)[1] >= 1_499
    assert y_range(plot)[1] > 9
    changed = board.curves.apply(
        RunUpdate(summary=SUMMARY, truncated_at=500, points={"train/loss": curve_of("train/loss", [1.0], 500)})
    )
    board.curves_changed(changed)
    drawn(qtbot, board)
    assert x_range(plot)[1] < 600
    assert y_range(plot)[1] < 9


def test_zooming_one_chart_zooms_all_and_a_double_click_shows_all_again(qtbot, board):
    plot, other = chart(board, "loss"), chart(board, "lr")
    drag_zoom(plot, 200, 300)
    drawn(qtbot, board)
    assert x_range(other) == pytest.approx((200, 300))
    board.curves_changed(
        board.curves.apply(RunUpdate(summary=SUMMARY, points={"lr": curve_of("lr", [1.0] * 50, 1_000)}))
    )
    drawn(qtbot, board)
    assert x_range(other) == pytest.approx((200, 300)), "live data must not move a view that the user chose"
    plot._box.reset_wanted.emit()
    drawn(qtbot, board)
    assert x_range(plot)[1] > 1_000
    assert x_range(other)[1] > 1_000


def test_zooming_a_long_curve_asks_for_detail(qtbot, board):
    lr = Curve(
        key="lr",
        step=np.arange(0, 1_000_000, 500),
        ts=START + np.arange(0, 1_000_000, 500) * 0.5,
        value=np.zeros(2_000),
        total=1_000_000,
    )
    board.curves.load(lr)
    board.curves_changed({"lr"})
    drawn(qtbot, board)
    with qtbot.waitSignal(board.details_wanted, timeout=5_000) as asked:
        drag_zoom(chart(board, "lr"), 1_000, 5_000)
    request = asked.args[0][0]
    assert request.key == "lr"
    assert request.first <= 1_000
    assert request.last >= 5_000


@pytest.mark.parametrize("axis", list(Axis))
def test_every_axis_shows_the_same_curves(qtbot, board, axis):
    board.set_options(replace(board._options, axis=axis))
    drawn(qtbot, board)
    begin = {Axis.STEP: 0.0, Axis.RELATIVE: 0.0, Axis.WALL: START}[axis]
    length = 999 if axis is Axis.STEP else 499.5
    first, last = x_range(chart(board, "loss"))
    assert first <= begin
    assert begin + length <= last <= begin + length * 1.1


def test_logarithmic_axes_leave_out_what_has_no_logarithm(qtbot, board):
    board.curves.load(curve_of("lr", [-1.0, 0.0, 1e-4, 1e-2]))
    board.set_options(replace(board._options, log_x=True, log_y=True))
    drawn(qtbot, board)
    low, high = y_range(chart(board, "lr"))
    assert -4.5 < low < -4
    assert -2 < high < -1.5
    first, last = x_range(chart(board, "loss"))
    assert first == pytest.approx(0.0)
    assert last == pytest.approx(np.log10(999), abs=0.01)


def test_a_spike_is_clipped_only_when_asked_and_the_chart_says_so(qtbot, board):
    values = np.linspace(1, 2, 1_000)
    values[500] = 1e6
    board.curves.load(curve_of("lr", values))
    board.curves_changed({"lr"})
    drawn(qtbot, board)
    plot = chart(board, "lr")
    assert y_range(plot)[1] > 1e6
    assert plot._clip_note.isHidden()
    board.set_options(replace(board._options, clips_outliers=True))
    drawn(qtbot, board)
    assert y_range(plot)[1] < 3
    assert not plot._clip_note.isHidden()


def test_smoothing_is_drawn_over_the_raw_curve(qtbot, board):
    board.curves.load(curve_of("lr", np.tile([0.0, 1.0], 500)))
    board.set_options(replace(board._options, smoothing=0.98))
    plot = chart(board, "lr")
    qtbot.waitUntil(lambda: not board._smoothing_left, timeout=10_000)
    drawn(qtbot, board)
    smooth = plot._items["lr"]._smooth.yData
    assert 0.45 < smooth[-1] < 0.55
    assert plot._items["lr"]._raw.yData is not None


def test_nan_becomes_a_cross_and_infinity_points_up(qtbot, board):
    values = np.ones(1_000)
    values[[100, 200]] = np.nan, np.inf
    board.curves.load(curve_of("lr", values))
    board.curves_changed({"lr"})
    drawn(qtbot, board)
    marks = chart(board, "lr")._items["lr"]._marks
    assert marks.data["x"].tolist() == [100, 200]
    assert marks.data["symbol"].tolist() == ["x", "t1"]


def test_the_crosshair_shows_all_values_largest_first(qtbot, board):
    plot = chart(board, "loss")
    at = plot._box.mapViewToScene(QPointF(500.0, 1.0))
    plot._on_mouse_moved(at)
    rows = plot._tooltip.rows
    assert [row.name for row in rows] == ["val/loss", "train/loss"]
    assert float(rows[0].value) == pytest.approx(board.curves.series["val/loss"].values[500], abs=0.01)
    assert plot._tooltip.isVisible()
    assert chart(board, "lr")._line.isVisible()
    plot._on_mouse_moved(QPointF(-50, -50))
    assert not plot._tooltip.isVisible()
    assert not chart(board, "lr")._line.isVisible()


def test_markers_are_drawn_and_explained(qtbot, board):
    board.set_markers((MarkerRecord(kind="restart", step=500, ts=START + 250, text="Attempt 2 from step 500"),))
    drawn(qtbot, board)
    plot = chart(board, "loss")
    assert plot._marker_lines._items["restart"].xData.tolist() == [500, 500]
    plot._on_mouse_moved(plot._box.mapViewToScene(QPointF(500.0, 1.0)))
    assert any("Attempt 2" in line for line in plot._tooltip._footer)


def test_the_legend_hides_and_isolates(qtbot, board):
    plot = chart(board, "loss")
    qtbot.mouseClick(plot.legend.chip("val/loss"), Qt.MouseButton.LeftButton)
    assert plot.shown_keys() == ("train/loss",)
    qtbot.mouseDClick(plot.legend.chip("val/loss"), Qt.MouseButton.LeftButton)
    assert plot.shown_keys() == ("val/loss",)
    qtbot.mouseDClick(plot.legend.chip("val/loss"), Qt.MouseButton.LeftButton)
    assert plot.shown_keys() == ("train/loss", "val/loss")


def test_the_wheel_scrolls_the_page_until_control_is_held(board):
    plot = chart(board, "loss")
    QApplication.focusWidget()
    before = x_range(plot)
    for modifiers, moves in ((Qt.KeyboardModifier.NoModifier, False), (Qt.KeyboardModifier.ControlModifier, True)):
        at = QPointF(plot.canvas.rect().center())
        event = QWheelEvent(
            at,
            plot.canvas.mapToGlobal(at),
            QPoint(0, 240),
            QPoint(0, 240),
            Qt.MouseButton.NoButton,
            modifiers,
            Qt.ScrollPhase.NoScrollPhase,
            False,
        )
        QApplication.sendEvent(plot.canvas.viewport(), event)
        assert (x_range(plot) != before) is moves


def test_the_filter_keeps_only_what_is_asked_for(qtbot, board):
    board.set_filter("val")
    assert list(board.chart_names) == ["loss"]
    board.set_filter("nothing like this")
    assert board._empty.isVisible()
    board.set_filter("")
    assert len(board.chart_names) == 3


def test_pictures_and_values_are_written(qtbot, board, tmp_path, monkeypatch):
    plot = chart(board, "loss")
    for form in ("png", "svg"):
        save_picture(plot, tmp_path / f"loss.{form}", form)
    image = QImage(str(tmp_path / "loss.png"))
    assert image.width() == 2 * plot.width()
    assert "<svg" in (tmp_path / "loss.svg").read_text(encoding="utf-8")
    target = tmp_path / "loss.csv"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, **__: (str(target), ""))
    with qtbot.waitSignal(board.csv_wanted) as wanted:
        plot.export_wanted.emit("csv")
    _, view, keys, path = wanted.args[0]
    windows = [(key, board.curves.best(key, view).window(view, board.curves.scale)) for key in keys]
    assert write_shown(path, view.axis, windows) == 2_000
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    assert {row["curve"] for row in rows} == {"train/loss", "val/loss"}
    assert float(rows[0]["value"]) == 2.0


def test_a_picture_that_cannot_be_written_is_said(qtbot, board):
    save_picture(chart(board, "loss"), Path("/nowhere/at/all/loss.png"), "png")


def test_the_slider_is_fine_near_one():
    for position in (0, 1, 50, 99):
        assert position_of(weight_of(position)) == position
    assert weight_of(0) == 0.0
    assert weight_of(100) < 1.0


def test_colours_follow_the_theme(qtbot, qapp, board):
    plot = chart(board, "loss")
    light = plot._items["train/loss"].colour
    apply_theme(qapp, "dark")
    assert plot._items["train/loss"].colour != light
    apply_theme(qapp, "light")
    assert plot._items["train/loss"].colour == light


def test_sixty_charts_with_many_points_do_not_hold_up_the_window(qtbot, qapp):
    apply_theme(qapp, "light")
    board = CurveBoard()
    qtbot.addWidget(board)
    board.resize(1200, 800)
    board.show()
    curves = CurveSet()
    keys = [f"metric_{n}" for n in range(60)]
    curves.declare(keys, START)
    values = np.random.default_rng(0).normal(size=100_000)
    for key in keys:
        curves.load(curve_of(key, values))
    board.set_curves(curves)
    drawn(qtbot, board)
    watch = StallWatch()
    for turn in range(10):
        changed = curves.apply(
            RunUpdate(summary=SUMMARY, points={key: curve_of(key, values[:50], 100_000 + turn * 50) for key in keys})
        )
        board.curves_changed(changed)
        drawn(qtbot, board)
    watch.stop()
    # About 20 ms when the machine is free; drawing all 60 or all points would take seconds.
    assert watch.worst_s < 0.4
