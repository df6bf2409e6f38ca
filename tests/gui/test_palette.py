from __future__ import annotations

import pytest
from PySide6.QtCore import Qt

from app.viewmodels.fuzzy import fuzzy_score
from app.viewmodels.palette_model import DETAIL_ROLE, ICON_ROLE, PaletteEntry, PaletteModel
from tests.helpers.builders import build_run
from tests.helpers.windows import opened


def entry(title: str, words: str = "") -> PaletteEntry:
    return PaletteEntry(title=title, icon="runs", run=lambda: None, detail="Ctrl+1", words=words)


@pytest.mark.parametrize(
    ("typed", "better", "worse"),
    [
        ("runs", "Go to Runs", "Repair until noon, sir"),
        ("gr", "Go to Runs", "Larger"),
        ("host", "Hosts", "The oldest host"),
    ],
)
def test_better_fits_score_higher(typed, better, worse):
    first, second = fuzzy_score(typed, better), fuzzy_score(typed, worse)
    assert first is not None
    assert second is None or first > second


def test_letters_out_of_order_do_not_fit():
    assert fuzzy_score("snur", "Go to Runs") is None


def test_the_model_is_sound(qtmodeltester, qtbot):
    model = PaletteModel()
    model.set_entries([entry("Go to Home"), entry("Go to Runs"), entry("Quit", "exit")])
    qtmodeltester.check(model)
    model.set_typed("exit")
    assert [model.index(row, 0).data() for row in range(model.rowCount())] == ["Quit"]
    assert model.index(0, 0).data(ICON_ROLE) == "runs"
    assert model.index(0, 0).data(DETAIL_ROLE) == "Ctrl+1"
    model.set_found([entry("digits")])
    assert model.rowCount() == 2


def test_a_page_is_reached_by_typing(qtbot, pilothouse_home):
    with opened(pilothouse_home, qtbot) as it:
        qtbot.keyClick(it.shell, Qt.Key.Key_K, Qt.KeyboardModifier.ControlModifier)
        palette = it.shell.palette_view
        assert palette.isVisible()
        qtbot.keyClicks(palette.field, "settings")
        qtbot.keyClick(palette.field, Qt.Key.Key_Return)
        it.wait(lambda: it.shell.stack.current_key() == "settings")
        assert not palette.isVisible()


def test_arrows_move_and_escape_leaves(qtbot, pilothouse_home):
    with opened(pilothouse_home, qtbot) as it:
        palette = it.shell.palette_view
        palette.open()
        last = palette.model.rowCount() - 1
        qtbot.keyClick(palette.field, Qt.Key.Key_Up)
        assert palette.list.currentIndex().row() == last
        qtbot.keyClick(palette.field, Qt.Key.Key_Down)
        assert palette.list.currentIndex().row() == 0
        qtbot.keyClick(palette.field, Qt.Key.Key_Escape)
        assert not palette.isVisible()
        assert it.shell.stack.current_key() == "home"


def test_runs_are_found_by_name(qtbot, pilothouse_home):
    build_run(pilothouse_home, name="river forecast", number=1, steps=5)
    build_run(pilothouse_home, name="digits", number=2, steps=5)
    with opened(pilothouse_home, qtbot) as it:
        it.wait(lambda: it.snapshots[-1].total == 2)
        routes: list[object] = []
        it.window.services.router.requested.connect(routes.append)
        palette = it.shell.palette_view
        palette.open()
        qtbot.keyClicks(palette.field, "river")
        it.wait(
            lambda: any("river" in str(palette.model.index(row, 0).data()) for row in range(palette.model.rowCount()))
        )
        qtbot.keyClick(palette.field, Qt.Key.Key_Return)
        assert routes
        assert "river-forecast" in str(routes[0].run_id)
