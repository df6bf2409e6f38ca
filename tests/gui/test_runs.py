"""The run table: any length, live rows in place, filters and order by the query, delete with undo."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import replace
from threading import Event

import pytest
from PySide6.QtCore import QPoint, Qt, QTimer
from PySide6.QtWidgets import QApplication, QMessageBox, QPushButton

from app.controllers.routes import RUN
from app.viewmodels.run_table import PAGE_SIZE, SUMMARY_ROLE, RunColumn, RunTableModel
from app.views.runs_page import RunsPage
from app.views.theme import apply_theme
from core.contracts.ids import RunId
from core.contracts.runs import RunPage, RunSummary, RunUpdate
from core.contracts.states import RunState
from tests.helpers.builders import build_history, build_run, fill_history
from tests.helpers.run_pages import StallWatch, opened_services


def summary_of(number: int, **changes) -> RunSummary:
    made = RunSummary(
        run_id=RunId(f"20261124-061203-run-{number:06x}"),
        name=f"run {number}",
        kind="train.image",
        state=RunState.SUCCEEDED,
        created=float(number),
        started=float(number),
        ended=number + 5.0,
    )
    return replace(made, **changes)


def page_of(first: int, count: int, total: int) -> RunPage:
    return RunPage(rows=tuple(summary_of(first + n) for n in range(count)), total=total)


def test_the_model_keeps_qts_rules(qtmodeltester):
    model = RunTableModel()
    model.start_over(page_of(0, 50, 50))
    qtmodeltester.check(model)
    model.set_page(0, page_of(0, 60, 60))
    model.set_page(0, page_of(0, 20, 20))
    qtmodeltester.check(model)
    model.start_over(page_of(0, 0, 0))
    qtmodeltester.check(model)


def test_a_page_is_asked_for_once_when_its_rows_are_looked_at(qtbot):
    model = RunTableModel()
    wanted: list[int] = []
    model.page_wanted.connect(wanted.append)
    model.start_over(page_of(0, PAGE_SIZE, 10_000))
    assert model.index(3, RunColumn.NAME).data() == "run 3"
    for row in (5_000, 5_001, 5_100):
        assert model.index(row, RunColumn.NAME).data() == "…"
    assert wanted == [5_000]
    model.set_page(5_000, page_of(5_000, PAGE_SIZE, 10_000))
    assert model.index(5_001, RunColumn.NAME).data() == "run 5001"
    model.retry_page(9_000)
    model.index(9_199, RunColumn.NAME).data()
    assert wanted == [5_000, 9_000]


def test_a_live_run_changes_its_row_alone(qtbot):
    model = RunTableModel()
    model.start_over(page_of(0, 10, 10))
    changed: list[tuple[int, int]] = []
    model.dataChanged.connect(lambda first, last: changed.append((first.row(), last.row())))
    assert model.apply(summary_of(4, state=RunState.RUNNING, progress=0.5, stage="Training"))
    assert changed == [(4, 4)]
    assert model.index(4, RunColumn.PROGRESS).data() == "50% · Training"
    assert not model.apply(summary_of(99))


def test_huge_texts_are_cut_for_the_table(qtbot):
    model = RunTableModel()
    model.start_over(RunPage(rows=(summary_of(1, last_line="x" * 1_000_000, message="y" * 1_000_000),), total=1))
    assert len(model.index(0, RunColumn.LAST_LINE).data()) <= 400
    assert len(model.index(0, RunColumn.STATE).data(Qt.ItemDataRole.ToolTipRole)) <= 1000


@contextmanager
def shown_page(home, qtbot, qapp):
    apply_theme(qapp, "light")
    with opened_services(home, qtbot) as services:
        made = RunsPage(services)
        qtbot.addWidget(made)
        made.resize(1200, 800)
        made.show()
        with qtbot.waitSignal(made._controller.answered, timeout=20_000):
            made.activate()
        made.activateWindow()
        made.table.setFocus()
        qtbot.waitUntil(made.table.hasFocus)
        yield made
        made.deactivate()


@pytest.fixture
def page(qtbot, qapp, tmp_path):
    """Show 450 runs that are in the index alone."""
    home = tmp_path / "home"
    home.mkdir()
    fill_history(home / "history.sqlite", 450, metrics=2, params=1)
    with shown_page(home, qtbot, qapp) as made:
        yield made


@pytest.fixture
def real_page(qtbot, qapp, tmp_path):
    """Show eight runs with their directories."""
    home = tmp_path / "home"
    home.mkdir()
    build_history(home, 8, steps=3)
    with shown_page(home, qtbot, qapp) as made:
        yield made


def model_of(page: RunsPage) -> RunTableModel:
    return page._controller.model


def names(page: RunsPage, count: int) -> list[str]:
    return [page.table.model().index(row, RunColumn.NAME).data() for row in range(count)]


def test_all_runs_are_there_and_far_ones_come_when_scrolled_to(qtbot, page):
    assert model_of(page).total == 450
    page.table.scrollToBottom()
    qtbot.waitUntil(lambda: isinstance(page.table.model().index(449, 0).data(SUMMARY_ROLE), RunSummary), timeout=10_000)


def test_search_narrows_and_the_empty_answer_offers_all_again(qtbot, page):
    search = page._filters.box
    word = names(page, 1)[0]
    qtbot.keyClicks(search, word)
    qtbot.waitUntil(lambda: 0 < model_of(page).total < 450, timeout=10_000)
    assert all(word in name for name in names(page, model_of(page).total))
    search.setText("no run is called this")
    qtbot.waitUntil(lambda: page._stack.currentIndex() == 1, timeout=10_000)
    assert page._state.button.text() == "Show all runs"
    qtbot.mouseClick(page._state.button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: model_of(page).total == 450, timeout=10_000)


def test_states_filter(qtbot, page):
    qtbot.mouseClick(page.findChild(QPushButton, "runs_state_failed"), Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: 0 < model_of(page).total < 450, timeout=10_000)
    shown = {model_of(page).summary_at(row).state for row in range(min(model_of(page).total, 50))}
    assert shown <= {RunState.FAILED, RunState.LOST}


@pytest.mark.parametrize("column", [RunColumn.NAME, RunColumn.METRIC, RunColumn.DURATION, RunColumn.STATE])
def test_a_click_on_a_column_orders_by_it(qtbot, page, column):
    with qtbot.waitSignal(page._controller.answered, timeout=10_000):
        page.table.horizontalHeader().setSortIndicator(column, Qt.SortOrder.AscendingOrder)
        page._on_header_clicked(column)
    query = page._controller.query
    assert not query.descending
    if column is RunColumn.NAME:
        assert names(page, 30) == sorted(names(page, 30))
    if column is RunColumn.METRIC:
        key = query.sort.partition(":")[2]
        values = [model_of(page).summary_at(row).final[key] for row in range(30)]
        assert values == sorted(values)


def test_a_click_on_a_column_without_order_changes_nothing(page):
    before = page._controller.query
    page._on_header_clicked(RunColumn.TAGS)
    assert page._controller.query == before
    assert page.table.horizontalHeader().sortIndicatorSection() == RunColumn.STARTED


def test_selection_and_place_survive_a_new_answer(qtbot, page):
    page.table.selectRow(60)
    page.table.scrollTo(page.table.model().index(60, 0))
    chosen, place = page.selected(), page.table.verticalScrollBar().value()
    assert place > 0
    with qtbot.waitSignal(page._controller.answered, timeout=10_000):
        page._controller.reload()
    assert page.selected() == chosen
    assert page.table.verticalScrollBar().value() == place


def test_live_updates_keep_selection_and_place(page):
    page.table.selectRow(40)
    page.table.scrollTo(page.table.model().index(40, 0))
    place = page.table.verticalScrollBar().value()
    first = model_of(page).summary_at(0)
    page._services.run_updated.emit(RunUpdate(summary=replace(first, stage="Measuring", state=RunState.RUNNING)))
    assert page.table.model().index(0, RunColumn.PROGRESS).data().endswith("Measuring")
    assert [run.run_id for run in page.selected()] == [model_of(page).summary_at(40).run_id]
    assert page.table.verticalScrollBar().value() == place


def test_a_new_run_appears_without_losing_the_selection(qtbot, real_page):
    page = real_page
    page.table.selectRow(5)
    chosen = page.selected()[0].run_id
    run_dir = build_run(page._services.home_path, name="newest", steps=3, created=time.time(), number=9)
    page._services.workspace.sync()
    page._services.note_runs_changed()
    qtbot.waitUntil(lambda: names(page, 1) == ["newest"], timeout=10_000)
    assert model_of(page).total == 9
    assert run_dir.is_dir()
    qtbot.waitUntil(lambda: [run.run_id for run in page.selected()] == [chosen], timeout=5_000)


def answer_box(button_text: str) -> None:
    box = next(w for w in QApplication.topLevelWidgets() if isinstance(w, QMessageBox) and w.isVisible())
    next(button for button in box.buttons() if button.text() == button_text).click()


def test_a_change_while_a_query_is_answered_is_shown_too(qtbot, real_page, monkeypatch):
    controller = real_page._controller
    workspace = controller._services.workspace
    runs, may_end, calls = workspace.runs, Event(), []

    def slow_runs(query):
        calls.append(query)
        assert may_end.wait(10)
        return runs(query)

    monkeypatch.setattr(workspace, "runs", slow_runs)
    controller.reload()
    controller._services.runs_changed.emit()
    qtbot.waitUntil(lambda: not controller._refresh.isActive())
    may_end.set()
    qtbot.waitUntil(lambda: len(calls) == 2 and controller._again is None, timeout=5_000)


def test_delete_asks_once_and_can_be_undone(qtbot, real_page):
    page = real_page
    page.table.selectRow(0)
    gone = page.selected()[0].run_id
    QTimer.singleShot(50, lambda: answer_box("Move to bin"))
    qtbot.keyClick(page.table, Qt.Key.Key_Delete)
    qtbot.waitUntil(lambda: model_of(page).total == 7, timeout=10_000)
    assert model_of(page).row_of(gone) is None
    assert not (page._services.home_path / "runs" / gone).exists()
    qtbot.mouseClick(page.findChild(QPushButton, "undo"), Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: model_of(page).total == 8, timeout=10_000)
    assert (page._services.home_path / "runs" / gone).is_dir()


def test_keeping_deletes_nothing(qtbot, real_page):
    page = real_page
    page.table.selectRow(0)
    QTimer.singleShot(50, lambda: answer_box("Keep"))
    qtbot.keyClick(page.table, Qt.Key.Key_Delete)
    assert model_of(page).total == 8
    assert len(list((page._services.home_path / "runs").iterdir())) == 8


def test_keys_open_and_copy(qtbot, page):
    page.table.selectRow(2)
    chosen = page.selected()[0].run_id
    with qtbot.waitSignal(page._services.router.requested) as asked:
        qtbot.keyClick(page.table, Qt.Key.Key_Return)
    assert asked.args[0].page == RUN
    assert asked.args[0].run_id == chosen
    qtbot.keyClick(page.table, Qt.Key.Key_C, Qt.KeyboardModifier.ControlModifier)
    assert QApplication.clipboard().text() == chosen


def test_the_menu_offers_what_applies(page):
    page.table.selectRow(0)
    page._on_menu(QPoint(10, 10))
    menu = QApplication.activePopupWidget()
    offered = {action.text().partition("\t")[0]: action.isEnabled() for action in menu.actions() if action.text()}
    assert offered["Open"]
    assert not offered["Stop"]
    assert offered["Delete…"]
    menu.close()


def test_ten_thousand_runs_never_hold_up_the_window(qtbot, qapp, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    fill_history(home / "history.sqlite", 10_000, metrics=2, params=1)
    with shown_page(home, qtbot, qapp) as made:
        assert model_of(made).total == 10_000
        watch = StallWatch()
        for row in (9_999, 5_000, 100, 7_777):
            made.table.scrollTo(made.table.model().index(row, 0))
            qtbot.waitUntil(lambda row=row: model_of(made).summary_at(row) is not None, timeout=20_000)
        watch.stop()
        # A blocked table takes seconds here; the machine that tests may itself be busy.
        assert watch.worst_s < 0.5
