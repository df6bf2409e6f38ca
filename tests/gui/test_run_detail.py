"""The run page over real run directories: stored and live, restarts, failures, logs, acts."""

from __future__ import annotations

import time
from dataclasses import replace
from threading import Event

import numpy as np
import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QLabel, QPushButton

from app.controllers.fleet_controller import FleetController
from app.controllers.routes import RUN, RUNS, TRAIN, Route
from app.views.run_detail_page import RunDetailPage
from app.views.theme import apply_theme
from core.contracts.ids import RunId
from core.contracts.runs import RunUpdate
from core.contracts.states import RunState
from core.runlog.emit import EventWriter
from core.runlog.layout import RunLayout
from tests.helpers.builders import build_run
from tests.helpers.run_pages import StallWatch, opened_services


@pytest.fixture
def page(qtbot, qapp, tmp_path):
    apply_theme(qapp, "light")
    with opened_services(tmp_path / "home", qtbot) as services:
        made = RunDetailPage(services, FleetController(services))
        qtbot.addWidget(made)
        made.resize(1100, 800)
        made.show()
        made.activate()
        yield made
        made.deactivate()
        made.controller.close()


def opened(qtbot, page: RunDetailPage, run_dir) -> None:
    page._services.workspace.sync()
    page.open(Route(page=RUN, run_id=RunId(run_dir.name)))
    qtbot.waitUntil(lambda: page._stack.currentIndex() == 1, timeout=20_000)


def build(page: RunDetailPage, **fields):
    return build_run(page._services.home_path, **fields)


def points(page: RunDetailPage, key: str) -> int:
    series = page.controller.curves.series.get(key)
    return len(series) if series is not None else 0


def shown_text(page: RunDetailPage, name: str) -> str:
    label = page.findChild(QLabel, name)
    assert isinstance(label, QLabel)
    return label.text()


def test_a_run_that_ended_shows_everything(qtbot, page):
    run_dir = build(page, name="digits", steps=300, metrics=("train/loss", "val/loss"))
    opened(qtbot, page, run_dir)
    assert page.tabs.currentWidget() is page.overview
    qtbot.waitUntil(lambda: points(page, "train/loss") == 300, timeout=10_000)
    qtbot.waitUntil(lambda: "digits starts" in page.log.text.toPlainText(), timeout=10_000)
    assert "final/train/loss" in page.overview._values
    assert page.spec.text() == "", "a tab out of view is not filled before it is looked at"
    page.tabs.setCurrentWidget(page._spec_tab)
    assert 'kind = "train.image"' in page.spec.text()
    page.tabs.setCurrentWidget(page.artifacts)
    assert page.findChild(QPushButton, "folder_model") is not None
    page.tabs.setCurrentWidget(page.board)
    assert page.board.chart_names[0] == "loss"
    assert not page.findChild(QPushButton, "run_stop").isVisible()


def test_a_long_curve_comes_as_its_extremes_and_in_detail_when_zoomed(qtbot, page):
    values = np.zeros(250_000)
    values[123_456] = 7.0
    run_dir = build(page, steps=250_000, metrics={"loss": values}, telemetry=False, step_time_s=0.001)
    opened(qtbot, page, run_dir)
    qtbot.waitUntil(lambda: points(page, "loss") > 0, timeout=20_000)
    assert points(page, "loss") < 10_000
    assert page.controller.curves.series["loss"].values.max() == 7.0
    page.tabs.setCurrentWidget(page.board)
    qtbot.waitUntil(lambda: bool(page.board.plots), timeout=10_000)
    plot = page.board.plots[0]
    qtbot.waitUntil(lambda: not plot.is_dirty, timeout=10_000)
    plot._box.setXRange(123_000, 124_000, padding=0)
    plot._on_range_dragged()

    def exact() -> bool:
        x = plot._items["loss"]._raw.xData
        return x is not None and np.isin([123_455, 123_456, 123_457], x).all()

    qtbot.waitUntil(exact, timeout=20_000)


def test_smoothing_a_stored_run_uses_every_sample(qtbot, page):
    run_dir = build(page, steps=5_000, metrics={"loss": np.tile([0.0, 2.0], 2_500)}, telemetry=False)
    opened(qtbot, page, run_dir)
    page.tabs.setCurrentWidget(page.board)
    qtbot.waitUntil(lambda: points(page, "loss") > 0, timeout=10_000)
    page.board._toolbar._slider.setValue(90)
    qtbot.waitUntil(lambda: points(page, "loss") == 5_000, timeout=20_000)
    qtbot.waitUntil(lambda: bool(page.board.plots), timeout=10_000)

    def smooth_end() -> float:
        smooth = page.board.plots[0]._items["loss"]._smooth.yData
        return float(smooth[-1]) if smooth is not None and len(smooth) else -1.0

    qtbot.waitUntil(lambda: 0.9 < smooth_end() < 1.1, timeout=10_000)
    qtbot.waitUntil(lambda: page._services.settings.smoothing > 0.9)


def test_a_live_run_is_followed_through_a_restart(qtbot, page):
    run_dir = build(
        page,
        name="live",
        steps=100,
        metrics=("loss",),
        state=RunState.RUNNING,
        created=time.time() - 10,
        telemetry=False,
    )
    opened(qtbot, page, run_dir)
    assert page.tabs.currentWidget() is page.board
    qtbot.waitUntil(lambda: points(page, "loss") == 100, timeout=20_000)
    writer = EventWriter(RunLayout(run_dir).events("worker"))
    for step in range(100, 150):
        writer.metric(step, {"loss": 0.5, "accuracy": 0.9})
    qtbot.waitUntil(lambda: points(page, "loss") == 150, timeout=20_000)
    qtbot.waitUntil(lambda: points(page, "accuracy") == 50, timeout=20_000)
    assert {"loss", "accuracy"} <= set(page.board.chart_names)
    writer.write("attempt", attempt=2, resumed_from_step=119)
    writer.metric(120, {"loss": float("nan")})
    qtbot.waitUntil(lambda: points(page, "loss") == 121, timeout=20_000)
    series = page.controller.curves.series["loss"]
    assert series.steps[-1] == 120
    assert np.isnan(series.values[-1])
    writer.close()


def test_the_log_grows_with_the_file(qtbot, page):
    run_dir = build(page, steps=5, state=RunState.RUNNING, created=time.time() - 5, telemetry=False)
    opened(qtbot, page, run_dir)
    qtbot.waitUntil(lambda: "starts" in page.log.text.toPlainText(), timeout=20_000)
    with RunLayout(run_dir).stdout().open("a") as file:
        file.write("a fresh line\n")
    qtbot.waitUntil(lambda: "a fresh line" in page.log.text.toPlainText(), timeout=20_000)


def test_the_last_words_of_a_run_are_read_when_it_ends(qtbot, page):
    run_dir = build(page, steps=5, state=RunState.RUNNING, created=time.time() - 5, telemetry=False)
    opened(qtbot, page, run_dir)
    qtbot.waitUntil(lambda: "starts" in page.log.text.toPlainText(), timeout=20_000)
    with RunLayout(run_dir).stdout().open("a") as file:
        file.write("last words\n")
    lost = replace(page.controller.summary, state=RunState.LOST)
    page._services.run_updated.emit(RunUpdate(summary=lost))
    page._services.run_updated.emit(RunUpdate(summary=lost))
    page.controller._log_poll.stop()
    qtbot.waitUntil(lambda: "last words" in page.log.text.toPlainText(), timeout=1_000)


def test_a_change_while_the_detail_is_read_is_read_too(qtbot, page, monkeypatch):
    run_dir = build(page, steps=5, telemetry=False)
    opened(qtbot, page, run_dir)
    qtbot.waitUntil(lambda: page.controller._detail_op is None)
    detail = page._services.workspace.detail
    may_end, calls = Event(), []

    def slow_detail(run_id):
        calls.append(run_id)
        assert may_end.wait(10)
        return detail(run_id)

    monkeypatch.setattr(page._services.workspace, "detail", slow_detail)
    page.controller.refresh()
    page.controller.refresh()
    may_end.set()
    qtbot.waitUntil(lambda: len(calls) == 2, timeout=5_000)
    qtbot.waitUntil(lambda: page.controller._detail_op is None)


def test_a_huge_log_with_an_endless_line_opens_at_its_end(qtbot, page):
    run_dir = build(page, steps=3, telemetry=False)
    with RunLayout(run_dir).stdout().open("ab") as file:
        file.write(b"x" * 30_000_000 + b"\n")
        file.write(b"".join(b"line %d\n" % n for n in range(50_000)))
    watch = StallWatch()
    opened(qtbot, page, run_dir)
    page.tabs.setCurrentWidget(page.log)
    qtbot.waitUntil(lambda: "line 49999" in page.log.text.toPlainText(), timeout=20_000)
    start = page.log.lines.start
    assert start > 30_000_000
    while page.log.lines.start > 29_000_000:
        before = page.log.lines.start
        qtbot.mouseClick(page.log._earlier, Qt.MouseButton.LeftButton)
        qtbot.waitUntil(lambda before=before: page.log.lines.start < before, timeout=20_000)
    watch.stop()
    assert page.log.text.toPlainText().count("\n") > 40_000
    assert max(len(line) for line in page.log.text.toPlainText().splitlines()) < 3_000
    assert watch.worst_s < 2.0


def test_a_failure_says_why_and_offers_the_remedy(qtbot, page):
    run_dir = build(page, name="oom", steps=10, state=RunState.FAILED)
    opened(qtbot, page, run_dir)
    assert shown_text(page, "run_message") == "The device ran out of memory."
    assert "Halve the batch" in shown_text(page, "run_hint")
    qtbot.mouseClick(page.findChild(QPushButton, "run_see_log"), Qt.MouseButton.LeftButton)
    assert page.tabs.currentWidget() is page.log
    with qtbot.waitSignal(page._services.router.requested) as asked:
        qtbot.mouseClick(page.findChild(QPushButton, "run_retry"), Qt.MouseButton.LeftButton)
    assert asked.args[0] == Route(page=TRAIN, run_id=RunId(run_dir.name))
    assert page.findChild(QPushButton, "run_resume").isVisible()


def test_what_a_run_made_can_be_compressed_and_measured_next(qtbot, page):
    run_dir = build(page, name="digits", steps=5)
    opened(qtbot, page, run_dir)
    page._fill_menu()
    action = next(action for action in page._more.actions() if "INT8" in action.text())
    with qtbot.waitSignal(page._services.router.requested) as asked:
        action.trigger()
    assert asked.args[0] == Route(page=TRAIN, kind="compress.int8", values={"parent": run_dir.name})


def test_names_and_messages_without_end_do_not_break_the_page(qtbot, page):
    run_dir = build(page, name="very " * 39 + "long", steps=3, state=RunState.RUNNING, created=time.time() - 5)
    writer = EventWriter(RunLayout(run_dir).events("worker"))
    writer.write("log", message="m" * 200_000, level="error")
    writer.close()
    opened(qtbot, page, run_dir)
    assert page.minimumSizeHint().width() <= 1100


def test_a_run_that_is_not_there_says_so_and_leads_back(qtbot, page):
    page.open(Route(page=RUN, run_id=RunId("20260101-000000-gone-000000")))
    qtbot.waitUntil(lambda: page._state.button.text() == "Go to all runs", timeout=10_000)
    with qtbot.waitSignal(page._services.router.requested) as asked:
        qtbot.mouseClick(page._state.button, Qt.MouseButton.LeftButton)
    assert asked.args[0].page == RUNS


def test_opening_another_run_shows_nothing_of_the_first(qtbot, page):
    first = build(page, name="first", steps=50, metrics=("alpha",), number=1)
    second = build(page, name="second", steps=20, metrics=("beta",), number=2)
    opened(qtbot, page, first)
    qtbot.waitUntil(lambda: points(page, "alpha") == 50, timeout=10_000)
    page.open(Route(page=RUN, run_id=RunId(second.name)))
    qtbot.waitUntil(lambda: points(page, "beta") == 20, timeout=10_000)
    assert points(page, "alpha") == 0
    assert "alpha" not in page.board.chart_names
    qtbot.waitUntil(lambda: "second starts" in page.log.text.toPlainText(), timeout=10_000)
    assert "first" not in page.log.text.toPlainText()


def test_a_child_leads_to_its_parent(qtbot, page):
    parent = build(page, name="parent", steps=3, number=1)
    child = build(page, name="child", steps=3, number=2, parent=parent.name)
    opened(qtbot, page, child)
    button = page.findChild(QPushButton, f"related_{parent.name}")
    assert button is not None
    with qtbot.waitSignal(page._services.router.requested) as asked:
        button.click()
    assert asked.args[0].run_id == parent.name
