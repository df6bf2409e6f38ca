"""What the page of a training shows beyond curves: stability, profile, texts, a step's time, checkpoints to start from."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QLabel, QPushButton

from app.controllers.fleet_controller import FleetController
from app.controllers.routes import RUN, TRAIN, Route
from app.controllers.train_controller import TrainController
from app.viewmodels.metric_series import Axis
from app.viewmodels.profile_table import fine_span_text
from app.viewmodels.stability_events import event_text
from app.viewmodels.training_facts import value_text_of
from app.views.run_detail_page import RunDetailPage
from app.views.theme import apply_theme
from app.views.widgets.chip import Chip
from app.views.widgets.meter import FillBar
from core.contracts.ids import RunId
from core.contracts.profiles import SUMMARY_KIND
from core.contracts.runs import MarkerRecord
from core.contracts.states import RunState
from core.runlog.layout import RunLayout
from tests.helpers.builders import LogFile, build_run
from tests.helpers.run_pages import opened_services
from tests.helpers.training_runs import build_training_run, profile_report


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


def opened(qtbot, page: RunDetailPage, run_dir: Path) -> None:
    page._services.workspace.sync()
    page.open(Route(page=RUN, run_id=RunId(run_dir.name)))
    qtbot.waitUntil(lambda: page._stack.currentIndex() == 1, timeout=20_000)


def build(page: RunDetailPage, **fields) -> Path:
    return build_training_run(page._services.home_path, **fields)


def is_shown(page: RunDetailPage, tab) -> bool:
    return page.tabs.isTabVisible(page.tabs.indexOf(tab))


def test_a_run_that_is_no_training_has_neither_tab(qtbot, page):
    opened(qtbot, page, build(page))
    assert is_shown(page, page.stability)
    assert is_shown(page, page.profile)
    opened(qtbot, page, build_run(page._services.home_path, kind="quickstart", number=2))
    assert not is_shown(page, page.stability)
    assert not is_shown(page, page.profile)


def test_stability_events_are_listed_filtered_and_lead_to_the_curves(qtbot, page):
    opened(qtbot, page, build(page, steps=300, events=12))
    board = page.stability
    page.tabs.setCurrentWidget(board)
    model = board.table.model()
    assert model.rowCount() == 12
    counted = page.findChild(QLabel, "stability_counts").text()
    assert counted == "Gradient spike 5 · Waits for data 4 · Loss spike 3"
    board.signal.setCurrentIndex(board.signal.findData("gradient_spike"))
    shown = {model.record(row).signal for row in range(model.rowCount())}
    assert shown == {"gradient_spike"}
    board.search.setText("no such block")
    assert model.rowCount() == 0
    board.search.clear()
    jump = page.findChild(QPushButton, "stability_jump")
    assert not jump.isEnabled()
    board.table.selectRow(0)
    event = board.table.chosen()
    qtbot.mouseClick(jump, Qt.MouseButton.LeftButton)
    assert page.tabs.currentWidget() is page.board
    first, last = page.board._x_range
    assert first < event.step < last
    assert last - first < 60, "a stretch around the step, not the whole run"
    assert page.board._options.axis is Axis.STEP


def test_policies_in_force_are_told_and_a_guard_that_is_off(qtbot, page):
    opened(qtbot, page, build(page, events=0))
    page.tabs.setCurrentWidget(page.stability)
    texts = [label.text() for label in page.stability.findChildren(QLabel)]
    assert "roll back" in texts
    assert "Nothing out of the ordinary" in texts
    assert page.stability._no_guard.isHidden()


def test_thousands_of_events_are_shown_at_once(qtbot, page):
    opened(qtbot, page, build(page, steps=20_000, events=5000, operators=0, texts=0))
    began = time.process_time()
    page.tabs.setCurrentWidget(page.stability)
    page.stability.grab()
    assert time.process_time() - began < 2.0
    assert page.stability.table.model().rowCount() == 5000
    page.tabs.setCurrentWidget(page.board)
    qtbot.waitUntil(lambda: any(not plot.is_dirty for plot in page.board.plots), timeout=10_000)
    drawn = next(plot for plot in page.board.plots if not plot.is_dirty)._marker_lines._items["stability"]
    assert 200 < len(drawn.xData) <= 2 * 300, "a tick for each column that can be told apart, not 5000 lines"
    assert drawn.yData.max() < drawn.yData.min() + (drawn.getViewBox().viewRange()[1][1] - drawn.yData.min()) * 0.1
    page.stability.table.sortByColumn(0, Qt.SortOrder.DescendingOrder)
    steps = [page.stability.table.model().record(row).step for row in range(3)]
    assert steps == sorted(steps, reverse=True)


def test_a_marker_says_signal_action_and_reason():
    marker = MarkerRecord(kind="stability", step=5, ts=0.0, text="It is 9.", signal="loss_spike", action="roll-back")
    assert event_text(marker) == "Loss spike, rolled back: It is 9."
    assert event_text(MarkerRecord(kind="restart", step=5, ts=0.0, text="Start 2")) == "Restart: Start 2"


def test_the_newest_profile_is_shown_sorted_and_filtered(qtbot, page):
    opened(qtbot, page, build(page, operators=200))
    page.tabs.setCurrentWidget(page.profile)
    model = page.profile.table.model()
    qtbot.waitUntil(lambda: model.rowCount() == 200, timeout=10_000)
    assert "Steps 41 to 43" in page.findChild(QLabel, "profile_heading").text()
    page.profile.table.sortByColumn(1, Qt.SortOrder.DescendingOrder)
    assert model.record(0).calls == max(row.calls for row in profile_report(200).operators)
    page.profile.search.setText("operator_7")
    assert 0 < model.rowCount() < 200
    assert page.profile.table.isColumnHidden(4), "no GPU, no GPU columns"
    assert not page.findChild(QPushButton, "profile_record").isEnabled(), "the run has ended"
    page.profile.table.selectRow(0)
    qtbot.keyClick(page.profile.table, Qt.Key.Key_C, Qt.KeyboardModifier.ControlModifier)
    assert "operator_7" in QGuiApplication.clipboard().text()


def test_a_profile_is_asked_of_the_run_and_shown_when_it_is_there(qtbot, page):
    run_dir = build(page, operators=0, state=RunState.RUNNING)
    opened(qtbot, page, run_dir)
    page.tabs.setCurrentWidget(page.profile)
    button = page.findChild(QPushButton, "profile_record")
    qtbot.waitUntil(button.isEnabled, timeout=10_000)
    asked = []
    page._services.workspace.request_profile = lambda run_id, steps: asked.append((run_id, steps))
    page.profile._steps.setValue(5)
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: asked == [(run_dir.name, 5)], timeout=10_000)
    assert not button.isEnabled()
    assert page.profile._busy.isVisible()
    _record_profile(run_dir)
    page._services.workspace.sync()
    page.controller.refresh()
    qtbot.waitUntil(lambda: page.profile.table.model().rowCount() == 8, timeout=20_000)
    assert not page.profiles.is_waiting


def _record_profile(run_dir: Path) -> None:
    import msgspec

    path = run_dir / "artifacts" / "profile.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(msgspec.json.encode(profile_report(8)))
    log = LogFile(RunLayout(run_dir).events("profiler"))
    fields = {"name": "profile", "path": "artifacts/profile.json", "kind": SUMMARY_KIND, "size_bytes": 1}
    log.write("artifact", **fields, sha256="c" * 64)


def test_a_profile_that_cannot_be_asked_for_says_why(qtbot, page):
    opened(qtbot, page, build(page, operators=0))
    page.profiles.request(3)
    qtbot.waitUntil(lambda: bool(page.profile._note.text()) and not page.profiles.is_waiting, timeout=10_000)
    assert page.profile._note.property("kind") == "error"


def test_a_steps_time_and_generated_texts_are_on_the_overview(qtbot, page):
    opened(qtbot, page, build(page, texts=5))
    page.tabs.setCurrentWidget(page.overview)
    texts = [label.text() for label in page.overview.findChildren(QLabel)]
    assert "Forward and backward" in texts
    assert "31.0 ms" in texts
    shown = [text for text in texts if "total += value\n" in text]
    assert len(shown) == 3, "the newest three; line breaks are kept"
    more = next(b for b in page.overview.findChildren(QPushButton) if "earlier" in b.text())
    more.click()
    assert sum("total += value\n" in label.text() for label in page.overview.findChildren(QLabel)) == 5


def test_a_new_run_starts_from_a_checkpoint(qtbot, page, tmp_path):
    run_dir = build(page, steps=300)
    opened(qtbot, page, run_dir)
    page.tabs.setCurrentWidget(page.artifacts)
    marks = [w.accessibleName() for w in page.artifacts.findChildren(QPushButton) if w.objectName() == "start_from_300"]
    assert marks == ["New run from the checkpoint of step 300"]
    routes = []
    page._services.router.requested.connect(routes.append)
    page.findChild(QPushButton, "start_from_300").click()
    assert routes[0].page == TRAIN
    assert routes[0].start_from.endswith("step-300")
    controller = TrainController(page._services)
    with qtbot.waitSignal(controller.prefilled, timeout=10_000) as filled:
        controller.clone(routes[0].run_id, routes[0].start_from)
    values = filled.args[0].values
    assert values["checkpoints.start_from"].endswith("step-300")
    assert values["parent"] == run_dir.name


def test_the_best_checkpoint_is_the_one_kept_though_older(qtbot, page):
    opened(qtbot, page, build(page, steps=300))
    page.tabs.setCurrentWidget(page.artifacts)
    marks = [chip.accessibleName() for chip in page.artifacts.findChildren(Chip)]
    assert marks == ["newest", "best"], "two of three are the newest that stay (keep_last), the third is the best"


def test_phases_that_lie_within_each_other_have_bars_of_their_own(qtbot, page):
    opened(qtbot, page, build(page))
    page.tabs.setCurrentWidget(page.profile)
    qtbot.waitUntil(lambda: bool(page.profile._phases.findChildren(FillBar)), timeout=10_000)
    named = [bar.accessibleName() for bar in page.profile._phases.findChildren(FillBar)]
    assert named == ["forward: 36% of the time", "backward: 50% of the time"]


def test_further_ranks_share_the_charts_of_memory_and_step_time(qtbot, page):
    opened(qtbot, page, build(page, ranks=3))
    qtbot.waitUntil(lambda: len(page.controller.curves.series) > 8, timeout=10_000)
    plans = {plan.title: plan for plan in page.controller.curves.charts()}
    assert len(plans["peak_bytes"].keys) == 3
    assert plans["peak_bytes"].unit == "B"
    assert len(plans["step_time_s"].keys) == 3


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0"), (3.2e-6, "3 µs"), (0.0123, "12.3 ms"), (1.5, "1.5 s"), (75, "1 min 15 s")]
)
def test_short_times_keep_their_digits(seconds, text):
    assert fine_span_text(seconds) == text


def test_short_times_are_told_in_milliseconds():
    assert value_text_of("train/step_time_s", 0.052) == "52 ms"
    assert value_text_of("train/step_time_s", 1.5) == "1.5000 s"
    assert value_text_of("memory/peak_bytes", 900 << 20) == "900 MiB"
