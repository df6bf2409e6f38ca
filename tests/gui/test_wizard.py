"""The wizard, by mouse and by keyboard, over a real workspace; the launch starts a real run."""

from __future__ import annotations

from pathlib import Path

import pytest
from PySide6.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from PySide6.QtGui import QDropEvent
from PySide6.QtWidgets import QApplication, QLabel, QPushButton, QWidget

from app.controllers.fleet_controller import FleetController
from app.controllers.routes import RUN, Route
from app.controllers.train_controller import TrainController
from app.viewmodels.where import hosts_to_check, launch_command, place_text
from app.views.theme import apply_theme
from app.views.train_page import TrainPage
from app.views.wizards.new_run import Step
from core.contracts.hosts import CheckReport, Finding, FindingLevel, HostRecord
from core.contracts.ids import RunId
from core.contracts.states import RunState
from core.workspace.workspace import Workspace
from tests.helpers.builders import build_run
from tests.helpers.run_pages import opened_services
from tests.helpers.toy_plugin import install_toy
from tests.helpers.waiting import wait_for


@pytest.fixture
def page(qtbot, qapp, tmp_path, monkeypatch):
    install_toy(tmp_path / "plugins", monkeypatch)
    apply_theme(qapp, "light")
    with opened_services(tmp_path / "home", qtbot) as services:
        controller, fleet = TrainController(services), FleetController(services)
        with qtbot.waitSignal(controller.kinds_loaded, timeout=20_000):
            made = TrainPage(controller, fleet)
        qtbot.addWidget(made)
        made.resize(1100, 800)
        made.show()
        made.activateWindow()
        made.services = services
        yield made
        fleet.close()


def part(page: TrainPage, name: str) -> QWidget:
    found = page.findChildren(QWidget, name)
    assert found, name
    # Forms of several kinds have fields of the same name: the one that is looked at counts.
    return next((widget for widget in found if widget.isVisible()), found[0])


def press(qtbot, page: TrainPage, name: str) -> None:
    qtbot.mouseClick(part(page, name), Qt.MouseButton.LeftButton)


def to_review(qtbot, page: TrainPage) -> None:
    """From the settings over the question of where to the review."""
    press(qtbot, page, "wizard_next")
    assert page.wizard.step is Step.WHERE
    press(qtbot, page, "wizard_next")


def reviewed(qtbot, page: TrainPage, words: str) -> None:
    verdict = part(page, "review_verdict")
    assert isinstance(verdict, QLabel)
    qtbot.waitUntil(lambda: words in verdict.text(), timeout=20_000)


def retype(qtbot, page: TrainPage, name: str, text: str) -> None:
    edit = part(page, name)
    edit.setFocus()
    edit.selectAll()
    qtbot.keyClicks(edit, text)


def end_run(workspace: Workspace, run_id: RunId) -> RunState:
    def ended():
        workspace.sync()
        state = workspace.summary(run_id).state
        return state if state.is_terminal else None

    return wait_for(ended, "the run to end")


def test_every_kind_has_a_card_and_no_card_is_without_a_form(page):
    kinds = {info.kind for info in page._controller.kinds}
    assert {"train.image", "quickstart", "infer.benchmark", "test.toy"} <= kinds
    for kind in kinds:
        assert part(page, f"card_{kind}").isVisibleTo(page)


def test_mouse_from_card_to_launch(qtbot, page):
    press(qtbot, page, "card_test.toy")
    assert page.wizard.step is Step.SETTINGS
    retype(qtbot, page, "field_name", "by mouse")
    retype(qtbot, page, "field_steps", "3")
    to_review(qtbot, page)
    reviewed(qtbot, page, "Ready to launch")
    assert "steps = 3" in page.wizard._review_step.toml()
    routes: list[Route] = []
    page.services.router.requested.connect(routes.append)
    with qtbot.waitSignal(page._controller.launched, timeout=30_000) as sent:
        press(qtbot, page, "wizard_launch")
    launched = sent.args[0]
    qtbot.waitUntil(lambda: len(routes) == 1)
    route = routes[0]
    assert route.page == RUN
    assert route.run_id == launched
    assert end_run(page.services.workspace, launched) is RunState.SUCCEEDED
    assert page.services.workspace.summary(launched).name == "by mouse"


def test_keyboard_from_card_to_launch(qtbot, page):
    card = part(page, "card_test.toy")
    card.setFocus()
    qtbot.keyClick(card, Qt.Key.Key_Return)
    focus = QApplication.focusWidget()
    assert focus is not None
    assert focus.objectName() == "field_name"
    qtbot.keyClicks(focus, "by keyboard")
    qtbot.keyClick(page, Qt.Key.Key_Right, Qt.KeyboardModifier.AltModifier)
    qtbot.waitUntil(lambda: page.wizard.step is Step.WHERE, timeout=10_000)
    assert QApplication.focusWidget() is part(page, "where_local")
    qtbot.keyClick(page, Qt.Key.Key_Right, Qt.KeyboardModifier.AltModifier)
    reviewed(qtbot, page, "Ready to launch")
    with qtbot.waitSignal(page._controller.launched, timeout=30_000) as launched:
        qtbot.keyClick(page, Qt.Key.Key_Return, Qt.KeyboardModifier.ControlModifier)
    assert end_run(page.services.workspace, launched.args[0]) is RunState.SUCCEEDED


def test_values_survive_going_back_and_choosing_another_kind(qtbot, page):
    press(qtbot, page, "card_test.toy")
    retype(qtbot, page, "field_steps", "77")
    press(qtbot, page, "wizard_next")
    press(qtbot, page, "wizard_back")
    assert page.wizard.state.value("steps") == 77
    press(qtbot, page, "wizard_back")
    press(qtbot, page, "card_train.image")
    press(qtbot, page, "wizard_back")
    press(qtbot, page, "card_test.toy")
    assert part(page, "field_steps").text() == "77"


def test_all_problems_are_listed_and_lead_to_their_fields(qtbot, page):
    press(qtbot, page, "card_train.image")
    retype(qtbot, page, "field_image_size", "4")
    retype(qtbot, page, "field_epochs", "many")
    to_review(qtbot, page)
    reviewed(qtbot, page, "2 problems")
    assert not part(page, "wizard_launch").isEnabled()
    places = {page.findChild(QPushButton, f"problem_{n}").accessibleName(): n for n in (0, 1)}
    press(qtbot, page, f"problem_{places['Go to Image size']}")
    assert page.wizard.step is Step.SETTINGS
    assert QApplication.focusWidget() is part(page, "field_image_size")
    assert part(page, "problem_image_size").text()
    retype(qtbot, page, "field_image_size", "16")
    retype(qtbot, page, "field_epochs", "1")
    to_review(qtbot, page)
    reviewed(qtbot, page, "Ready to launch")


def test_the_layout_is_checked_and_its_memory_estimated_while_it_is_filled_in(qtbot, page):
    press(qtbot, page, "card_train.language")
    panel = page.wizard._forms["train.language"].layout_panel
    qtbot.waitUntil(lambda: not panel.estimate.isHidden(), timeout=20_000)
    alone = panel.estimate.words.text()
    page.wizard.state.set_values({"parallel.processes": 3, "parallel.tensor": 2})
    problems = panel.findChild(QLabel, "layout_problems")
    qtbot.waitUntil(lambda: "not a multiple of" in problems.text(), timeout=20_000)
    page.wizard.state.set_values({"parallel.processes": 4})
    qtbot.waitUntil(problems.isHidden, timeout=20_000)
    assert panel.estimate.words.text() != alone
    assert "shared by 4 processes" in panel.estimate.words.text()


def test_a_missing_folder_is_found_before_the_launch(qtbot, page):
    press(qtbot, page, "card_train.image")
    retype(qtbot, page, "field_data", "/nowhere/at/all")
    to_review(qtbot, page)
    reviewed(qtbot, page, "1 problem")


def test_an_example_fills_the_form(qtbot, page):
    info = next(info for info in page._controller.kinds if info.kind == "train.image")
    press(qtbot, page, f"example_{info.examples[0]}")
    qtbot.waitUntil(lambda: page.wizard.step is Step.SETTINGS, timeout=20_000)
    assert page.wizard.state.info.kind == "train.image"
    assert "example" in page.wizard._note.text()


def test_a_run_is_cloned(qtbot, page):
    run_dir = build_run(page.services.home_path, name="to clone", steps=3, spec={"epochs": 7})
    page.services.workspace.sync()
    page.open(Route(page="train", run_id=RunId(run_dir.name)))
    qtbot.waitUntil(lambda: page.wizard.step is Step.SETTINGS, timeout=20_000)
    assert page.wizard.state.value("epochs") == 7
    assert page.wizard.state.value("name") == "to clone"


def test_a_route_with_values_fills_them_over_the_defaults(qtbot, page):
    page.open(Route(page="train", kind="compress.int8", values={"parent": "20260101-000000-digits-abcdef"}))
    qtbot.waitUntil(lambda: page.wizard.step is Step.SETTINGS, timeout=20_000)
    assert page.wizard.state.value("parent") == "20260101-000000-digits-abcdef"
    assert page.wizard.state.value("calibration_samples") == 128


def drop(page: TrainPage, path: Path) -> None:
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path))])
    event = QDropEvent(
        QPointF(5, 5), Qt.DropAction.CopyAction, data, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    )
    page.dropEvent(event)


def test_a_dropped_spec_fills_the_form_and_a_bad_one_says_why(qtbot, page, tmp_path):
    good = tmp_path / "good.toml"
    good.write_text('kind = "test.toy"\nname = "dropped"\nsteps = 9\n')
    drop(page, good)
    qtbot.waitUntil(lambda: page.wizard.step is Step.SETTINGS, timeout=20_000)
    assert page.wizard.state.value("steps") == 9
    bad = tmp_path / "bad.toml"
    bad.write_text('kind = "test.toy"\nsteps = -1\nnonsense = 2\n')
    drop(page, bad)
    qtbot.waitUntil(lambda: "nonsense" in page.wizard._note.text(), timeout=20_000)
    assert page.wizard.state.value("steps") == 9


def test_a_failed_launch_is_said_and_can_be_tried_again(qtbot, page, monkeypatch):
    press(qtbot, page, "card_test.toy")
    to_review(qtbot, page)
    reviewed(qtbot, page, "Ready to launch")
    runs = page.services.home_path / "runs"
    for run in runs.iterdir():
        raise AssertionError(run)
    runs.rmdir()
    runs.write_text("a file where the folder of runs should be")
    with qtbot.waitSignal(page._controller.failed, timeout=20_000):
        press(qtbot, page, "wizard_launch")
    assert page.wizard._note.text()
    qtbot.waitUntil(lambda: part(page, "wizard_launch").isEnabled())
    runs.unlink()
    runs.mkdir()
    with qtbot.waitSignal(page._controller.launched, timeout=30_000) as launched:
        press(qtbot, page, "wizard_launch")
    assert end_run(page.services.workspace, launched.args[0]) is RunState.SUCCEEDED


def test_launching_twice_starts_one_run(qtbot, page):
    press(qtbot, page, "card_test.toy")
    values = page.wizard.state.values()
    with qtbot.waitSignal(page._controller.launched, timeout=30_000) as launched:
        page._controller.launch("test.toy", values)
        page._controller.launch("test.toy", values)
    end_run(page.services.workspace, launched.args[0])
    assert len(list((page.services.home_path / "runs").iterdir())) == 1


def test_the_home_page_can_point_at_a_group(qtbot, page):
    page.open(Route(page="train", group="benchmark"))
    card = part(page, "card_infer.benchmark")
    qtbot.waitUntil(lambda: card.hasFocus() and not card.visibleRegion().isEmpty())


def test_where_is_asked_and_kept(qtbot, page):
    fleet = page.wizard._fleet
    fleet._is_listening = True  # nobody is to be connected to here
    fleet._watched = {"lab-0", "lab-1"}
    for name in ("lab-0", "lab-1"):
        page.services.workspace.fleet.add(HostRecord(name=name, address="192.0.2.1"))
    with qtbot.waitSignal(fleet.loaded, timeout=20_000):
        fleet.reload()
    press(qtbot, page, "card_train.script")
    press(qtbot, page, "wizard_next")
    press(qtbot, page, "where_hosts")
    assert not part(page, "wizard_next").isEnabled()
    press_box(qtbot, page, "pick_lab-1")
    press_box(qtbot, page, "pick_lab-0")
    assert page.wizard.state.value("launch.hosts") == ["lab-1", "lab-0"]
    assert part(page, "wizard_next").isEnabled()
    press(qtbot, page, "where_slurm")
    assert page.wizard.state.value("launch.hosts") == []
    assert not part(page, "wizard_next").isEnabled()
    assert part(page, "field_launch.slurm.partition").isVisibleTo(page)
    press(qtbot, page, "where_hosts")
    assert page.wizard.state.value("launch.hosts") == ["lab-1", "lab-0"]
    press(qtbot, page, "where_local")
    assert page.wizard.state.value("launch.hosts") == []
    assert part(page, "wizard_next").isEnabled()


def press_box(qtbot, page: TrainPage, name: str) -> None:
    box = part(page, name)
    qtbot.mouseClick(box, Qt.MouseButton.LeftButton, pos=QPoint(10, box.height() // 2))


def test_a_kind_that_cannot_span_hosts_takes_one(qtbot, page):
    fleet = page.wizard._fleet
    fleet._is_listening, fleet._watched = True, {"lab-0", "lab-1"}
    for name in ("lab-0", "lab-1"):
        page.services.workspace.fleet.add(HostRecord(name=name, address="192.0.2.1"))
    with qtbot.waitSignal(fleet.loaded, timeout=20_000):
        fleet.reload()
    press(qtbot, page, "card_compress.int8")
    press(qtbot, page, "wizard_next")
    press(qtbot, page, "where_hosts")
    press_box(qtbot, page, "pick_lab-0")
    press_box(qtbot, page, "pick_lab-1")
    assert page.wizard.state.value("launch.hosts") == ["lab-1"]
    assert page.findChild(QWidget, "field_launch.min_nodes") is None


def finding(level: FindingLevel) -> CheckReport:
    return CheckReport(
        host="lab-0", ok=level is not FindingLevel.ERROR, findings=(Finding(level=level, what="It is so."),)
    )


def test_errors_of_the_check_stand_against_the_launch_and_warnings_do_not(qtbot, page):
    wizard = page.wizard
    press(qtbot, page, "card_test.toy")
    to_review(qtbot, page)
    reviewed(qtbot, page, "Ready to launch")
    launch = part(page, "wizard_launch")
    wizard._on_checked((finding(FindingLevel.ERROR),))
    assert not launch.isEnabled()
    wizard._on_checked((finding(FindingLevel.WARNING),))
    assert launch.isEnabled()
    assert launch.text() == "Launch anyway"
    wizard._on_checked((finding(FindingLevel.OK),))
    assert launch.text() == "Launch"


def test_the_command_names_the_place():
    hosts = {"launch.hosts": ["a", "b c"], "launch.slurm.cluster": "", "launch.kubernetes.context": ""}
    assert launch_command(hosts, "pilothouse run spec.toml --follow") == (
        "pilothouse run spec.toml --hosts 'a,b c' --follow"
    )
    slurm = {"launch.hosts": [], "launch.slurm.cluster": "login", "launch.kubernetes.context": ""}
    assert launch_command(slurm, "pilothouse run spec.toml --follow") == (
        "pilothouse run spec.toml --slurm login --follow"
    )
    assert hosts_to_check(slurm) == ("login",)
    assert launch_command({}, "pilothouse run spec.toml") == "pilothouse run spec.toml"
    assert place_text(hosts) == "2 hosts"
