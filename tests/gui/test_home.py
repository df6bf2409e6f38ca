from __future__ import annotations

import time

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QLabel, QPushButton, QScrollArea

from app.controllers.run_endings import ending_notice
from app.views.widgets.card_grid import CardGrid
from app.views.widgets.quick_start import QuickStartHero
from app.views.widgets.run_cards import LiveRunCard, RunRow
from core.contracts.errors import UserError
from core.contracts.ids import RunId
from core.contracts.notices import Severity
from core.contracts.runs import RunSummary
from core.contracts.states import RunState
from core.runlog.layout import RunLayout
from tests.helpers.builders import build_run, fill_history
from tests.helpers.windows import Watchdog, opened


def test_an_empty_history_offers_the_quick_start(qtbot, pilothouse_home):
    with opened(pilothouse_home, qtbot) as it:
        page = it.shell.stack.page("home")
        hero = page.findChild(QuickStartHero)
        assert hero.isVisible()
        assert it.snapshots[-1].total == 0


def test_what_runs_and_what_needs_attention(qtbot, pilothouse_home):
    now = time.time()
    build_run(pilothouse_home, name="going", state=RunState.RUNNING, created=now - 60, number=1, steps=300)
    build_run(pilothouse_home, name="broken", state=RunState.FAILED, created=now - 600, number=2, steps=30)
    build_run(pilothouse_home, name="long ago", state=RunState.FAILED, created=now - 30 * 86_400, number=3, steps=30)
    build_run(pilothouse_home, name="good", created=now - 900, number=4, steps=30)
    with opened(pilothouse_home, qtbot) as it:
        it.wait(lambda: it.snapshots[-1].total == 4 and it.snapshots[-1].sparks)
        page = it.shell.stack.page("home")
        cards = page.findChildren(LiveRunCard)
        assert [card._name.whole() for card in cards] == ["going"]
        assert cards[0]._chip.accessibleName() == "Running"
        assert len(cards[0]._spark.values()) > 50
        assert [row.name for row in it.snapshots[-1].attention] == ["broken"]
        assert "memory" in page._attention.findChildren(RunRow)[0].findChildren(type(cards[0]._name))[1].whole()
        assert not page.findChild(QuickStartHero).isVisible()


def test_stop_asks_the_run_to_stop(qtbot, pilothouse_home):
    run_dir = build_run(pilothouse_home, name="going", state=RunState.RUNNING, created=time.time() - 60, steps=50)
    with opened(pilothouse_home, qtbot) as it:
        it.wait(lambda: it.shell.stack.page("home").findChildren(LiveRunCard))
        card = it.shell.stack.page("home").findChildren(LiveRunCard)[0]
        stop = next(button for button in card.findChildren(QPushButton) if button.text() == "Stop")
        qtbot.mouseClick(stop, Qt.MouseButton.LeftButton)
        it.wait(RunLayout(run_dir).stop_request.exists)


def test_a_card_opens_its_run_by_mouse_and_keyboard(qtbot):
    summary = RunSummary(
        run_id=RunId("20260101-000000-x-abcdef"), name="x", kind="k", state=RunState.RUNNING, progress=0.5
    )
    card = LiveRunCard(summary, "Image training")
    qtbot.addWidget(card)
    card.show()
    opened_runs: list[str] = []
    card.opened.connect(opened_runs.append)
    qtbot.mouseClick(card, Qt.MouseButton.LeftButton)
    qtbot.keyClick(card, Qt.Key.Key_Return)
    assert opened_runs == [summary.run_id] * 2
    assert card._bar.value() == 500


def test_a_run_that_ends_is_told_once(qtbot, pilothouse_home):
    summary = RunSummary(
        run_id=RunId("20260101-000000-x-abcdef"),
        name="x",
        kind="k",
        state=RunState.FAILED,
        message="No memory.",
        hint="Halve it.",
    )
    notice = ending_notice(summary)
    assert (notice.severity, notice.hint, notice.run_id) == (Severity.ERROR, "Halve it.", summary.run_id)
    with opened(pilothouse_home, qtbot) as it:
        from core.contracts.runs import RunUpdate

        going = RunSummary(run_id=summary.run_id, name="x", kind="k", state=RunState.RUNNING)
        for update in (summary, going, summary, summary):
            it.window.services.run_updated.emit(RunUpdate(summary=update))
        assert [toast.notice for toast in it.shell.toasts.toasts()] == [notice]


def test_ten_thousand_runs_never_block_the_window(qtbot, pilothouse_home):
    pilothouse_home.mkdir()
    fill_history(pilothouse_home / "history.sqlite", runs=10_000, metrics=2, params=2)
    watchdog = Watchdog()
    with opened(pilothouse_home, qtbot) as it:
        it.wait(lambda: it.snapshots[-1].total == 10_000)
        watchdog.start()
        seen = len(it.snapshots)
        for _ in range(5):
            it.window.services.note_runs_changed()
            it.wait(lambda: len(it.snapshots) > seen)  # noqa: B023 - called at once
            seen = len(it.snapshots)
        watchdog.stop()
        assert it.snapshots[-1].total == 10_000
        # A machine shared with other tests preempts us now and then; a query on this thread would take far longer.
        assert watchdog.worst_ms < 500


def test_cards_take_fewer_columns_in_a_narrow_place(qtbot):
    grid = CardGrid(min_width=300, max_columns=4)
    area = QScrollArea()
    area.setWidgetResizable(True)
    area.setWidget(grid)
    qtbot.addWidget(area)
    area.resize(1400, 500)
    area.show()
    grid.set_cards([QLabel(f"card {number}") for number in range(12)])
    qtbot.waitUntil(lambda: grid._columns == 4)
    area.resize(700, 500)
    qtbot.waitUntil(lambda: grid._columns == 2)
    qtbot.waitUntil(lambda: all(card.geometry().right() < area.viewport().width() for card in grid.cards()))


def test_an_impatient_double_click_starts_one_quick_start(qtbot, pilothouse_home, monkeypatch):
    launched = []

    def launch(kind, values):
        launched.append(kind)
        raise UserError("Not now.")

    with opened(pilothouse_home, qtbot) as it:
        monkeypatch.setattr(it.window.services.workspace, "launch", launch)
        it.window.home_controller.start_quick_start()
        it.window.home_controller.start_quick_start()
        it.wait(lambda: it.window.home_controller._launching is None)
        assert launched == ["quickstart"]
