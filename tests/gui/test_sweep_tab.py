"""The Sweep tab: over reports as a sweep's worker writes them, read by the real controller from real run directories."""

from __future__ import annotations

import time

import pytest
from PySide6.QtCore import QEvent, QPoint, QPointF, Qt
from PySide6.QtGui import QColor, QMouseEvent
from PySide6.QtWidgets import QApplication, QPushButton, QWidget

from app.controllers.fleet_controller import FleetController
from app.controllers.routes import RUN, TRAIN, Route
from app.views.run_detail_page import RunDetailPage
from app.views.theme import apply_theme
from app.views.widgets.sweep_board import SweepBoard
from core.contracts.ids import RunId
from core.contracts.states import RunState
from tests.helpers.builders import build_run
from tests.helpers.run_pages import opened_services
from tests.helpers.sweep_runs import build_sweep_run, sweep_report, write_report


@pytest.fixture
def board(qtbot, qapp):
    apply_theme(qapp, "light")
    made = SweepBoard()
    qtbot.addWidget(made)
    made.resize(1100, 900)
    made.show()
    return made


@pytest.fixture
def page(qtbot, qapp, tmp_path):
    apply_theme(qapp, "light")
    with opened_services(tmp_path / "home", qtbot) as services:
        fleet = FleetController(services)
        made = RunDetailPage(services, fleet)
        qtbot.addWidget(made)
        made.resize(1200, 820)
        made.show()
        made.activate()
        yield made
        made.deactivate()
        made.controller.close()
        made.nodes.close()
        made.sweeps.close()
        fleet.close()


def column(board: SweepBoard, index: int) -> list[str]:
    return [board.order.index(row, index).data() for row in range(board.order.rowCount())]


def hover(widget: QWidget, at: QPoint) -> None:
    none, place = Qt.MouseButton.NoButton, QPointF(at)
    moved = QMouseEvent(
        QEvent.Type.MouseMove, place, widget.mapToGlobal(place), none, none, Qt.KeyboardModifier.NoModifier
    )
    QApplication.sendEvent(widget, moved)


def test_a_sweep_opens_on_its_tab_and_another_run_has_none(qtbot, page):
    home = page._services.home_path
    sweep = build_sweep_run(home, sweep_report(20))
    other = build_run(home, name="digits", number=5)
    page._services.workspace.sync()
    page.open(Route(page=RUN, run_id=RunId(sweep.name)))
    qtbot.waitUntil(lambda: page.sweep.model.rowCount() == 20, timeout=20_000)
    assert page.tabs.currentWidget() is page.sweep
    page.open(Route(page=RUN, run_id=RunId(other.name)))
    qtbot.waitUntil(lambda: page._stack.currentIndex() == 1, timeout=20_000)
    assert not page.tabs.isTabVisible(page.tabs.indexOf(page.sweep))
    assert page.sweep.model.rowCount() == 0


def test_a_live_sweep_is_read_again_when_it_tells_more(qtbot, page):
    sweep = build_sweep_run(
        page._services.home_path, sweep_report(3, running=2), state=RunState.RUNNING, created=time.time()
    )
    page._services.workspace.sync()
    page.open(Route(page=RUN, run_id=RunId(sweep.name)))
    qtbot.waitUntil(lambda: page.sweep.model.rowCount() == 3, timeout=20_000)
    assert "2 running" in page.sweep._counts.text()
    write_report(sweep, sweep_report(6, running=1))
    page.sweeps.on_summary(page.controller.summary)
    qtbot.waitUntil(lambda: page.sweep.model.rowCount() == 6, timeout=20_000)
    assert "1 running" in page.sweep._counts.text()


def test_a_sweep_without_a_report_says_so(qtbot, page):
    sweep = build_sweep_run(page._services.home_path, None)
    page._services.workspace.sync()
    page.open(Route(page=RUN, run_id=RunId(sweep.name)))
    qtbot.waitUntil(lambda: "no sweep to show" in page.sweep._waiting._heading.text(), timeout=20_000)
    assert page.sweep._stack.currentIndex() == 0


def test_the_best_trial_and_its_buttons(qtbot, page):
    home = page._services.home_path
    best_run = build_run(home, name="trial 0", number=3)
    report = sweep_report(9)
    report = sweep_report(9, run_ids={report.best: best_run.name})
    sweep = build_sweep_run(home, report)
    page._services.workspace.sync()
    page.open(Route(page=RUN, run_id=RunId(sweep.name)))
    qtbot.waitUntil(lambda: page.sweep.model.rowCount() == 9, timeout=20_000)
    routes = []
    page._services.router.requested.connect(routes.append)
    page.sweep.findChild(QPushButton, "sweep_best_open").click()
    page.sweep.findChild(QPushButton, "sweep_best_again").click()
    assert [(route.page, route.run_id) for route in routes] == [(RUN, best_run.name), (TRAIN, best_run.name)]


def test_states_of_no_one_and_five_hundred_trials(board, qtbot):
    board.show_report(sweep_report(0))
    assert board._stack.currentIndex() == 0
    board.show_report(sweep_report(1))
    assert board._stack.currentIndex() == 1
    assert not board.bars.isVisibleTo(board)
    assert "two trials" in board._bars_words.text()
    began = time.thread_time()
    board.show_report(sweep_report(500))
    board.grab()
    assert time.thread_time() - began < 3.0
    assert board.model.rowCount() == 500
    assert [name for name, _ in board.bars.rows] == ["Learning rate", "Width", "Algorithm", "Weight decay"]


def test_trials_sort_by_what_cells_mean_and_those_without_a_value_stay_last(board):
    board.show_report(sweep_report(30))
    values = column(board, 2)
    numbers = [float(text) for text in values if text]
    assert numbers == sorted(numbers)
    assert not any(values[len(numbers) :])
    board.table.sortByColumn(2, Qt.SortOrder.DescendingOrder)
    values = column(board, 2)
    assert [float(text) for text in values if text] == sorted(numbers, reverse=True)
    assert not any(values[len(numbers) :])
    board.table.sortByColumn(0, Qt.SortOrder.AscendingOrder)
    assert column(board, 0) == [str(n) for n in range(30)]


def test_dragging_along_an_axis_filters_and_a_click_lets_go(board, qtbot):
    report = sweep_report(60)
    board.show_report(report)
    plot = board.plot
    x = round(plot.axis_x(1))
    low, high = (QPoint(x, round(plot.axis_y(position))) for position in (0.0, 0.5))
    qtbot.mousePress(plot, Qt.MouseButton.LeftButton, pos=low)
    qtbot.mouseMove(plot, high)
    qtbot.mouseRelease(plot, Qt.MouseButton.LeftButton, pos=high)
    expected = {t.number for t in report.trials if t.values["width"] <= 40}
    assert {int(text) for text in column(board, 0)} == expected
    assert f"{len(expected)} in the ranges" in board._counts.text()
    qtbot.mouseClick(plot, Qt.MouseButton.LeftButton, pos=low)
    assert board.order.rowCount() == 60
    assert not board._clear.isVisibleTo(board)


def test_everything_works_with_the_keyboard(board, qtbot):
    report = sweep_report(60)
    board.show_report(report)
    plot = board.plot
    opened = []
    board.run_wanted.connect(opened.append)
    plot.setFocus()
    qtbot.keyClick(plot, Qt.Key.Key_Right)
    for _ in range(5):
        qtbot.keyClick(plot, Qt.Key.Key_Down, Qt.KeyboardModifier.ShiftModifier)
    assert plot.brushes[1] == pytest.approx((0.0, 0.5))
    best = min((t for t in report.trials if t.value is not None and t.values["width"] <= 40), key=lambda t: t.value)
    qtbot.keyClick(plot, Qt.Key.Key_Down)
    assert board.order.trial_at(board.table.currentIndex()) == best
    qtbot.keyClick(plot, Qt.Key.Key_Return)
    assert opened == [best.run_id]
    qtbot.keyClick(plot, Qt.Key.Key_Escape)
    assert plot.brushes == {}
    board.table.setCurrentIndex(board.order.index(3, 0))
    board.table.setFocus()
    board.table.activateWindow()
    qtbot.keyClick(board.table, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: len(opened) == 2)


def test_pointing_at_a_line_tells_its_trial(board, qtbot):
    report = sweep_report(1)
    board.show_report(report)
    plot = board.plot
    heights = plot._heights()[0]
    middle = QPoint(round((plot.axis_x(0) + plot.axis_x(1)) / 2), round((heights[0] + heights[1]) / 2))
    hover(plot, middle)
    rows = {row.name: row.value for row in plot._tooltip.rows}
    assert plot._tooltip.isVisibleTo(plot)
    assert rows["Algorithm"] == report.trials[0].values["optimizer.algorithm"]
    assert float(rows["Width"]) == report.trials[0].values["width"]
    assert float(rows["Learning rate"]) == pytest.approx(report.trials[0].values["optimizer.lr"], rel=1e-2)
    hover(plot, QPoint(2, 2))
    assert not plot._tooltip.isVisibleTo(plot)


def test_the_look_follows_the_theme(board, qapp):
    board.show_report(sweep_report(40))
    backgrounds = {}
    for mode in ("light", "dark"):
        apply_theme(qapp, mode)
        backgrounds[mode] = QColor(board.plot.grab().toImage().pixelColor(1, board.plot.height() - 2)).lightness()
    assert backgrounds["light"] > 200
    assert backgrounds["dark"] < 60


def test_the_menu_of_a_training_offers_a_sweep_over_its_settings(qtbot, page):
    run = build_run(page._services.home_path, name="digits", number=7)
    page._services.workspace.sync()
    page.open(Route(page=RUN, run_id=RunId(run.name)))
    qtbot.waitUntil(lambda: page._stack.currentIndex() == 1, timeout=20_000)
    routes = []
    page._services.router.requested.connect(routes.append)
    page._fill_menu()
    (action,) = [action for action in page._more.actions() if action.text().startswith("Sweep over")]
    action.trigger()
    assert (routes[0].page, routes[0].kind, routes[0].values["base"]) == (TRAIN, "sweep", run.name)
