"""Forms: values as typed, problems beside their fields, and no change by a passing wheel."""

from __future__ import annotations

import pytest
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtGui import QWheelEvent
from PySide6.QtWidgets import QApplication, QWidget

from app.viewmodels.form_state import FormState, check_value, parse_number, show_number
from app.views.theme import apply_theme
from app.views.widgets.spec_form import SpecForm
from core.contracts.errors import FieldProblem
from core.contracts.forms import FieldKind, FormField, RunKindInfo, SpecReview

FIELDS = (
    FormField(path="name", kind=FieldKind.TEXT, label="Name", default="", section="Run"),
    FormField(
        path="optimizer.lr",
        kind=FieldKind.NUMBER,
        label="Learning rate",
        default=0.003,
        minimum=0.0,
        exclusive_minimum=True,
        maximum=1.0,
        section="Optimizer",
    ),
    FormField(path="epochs", kind=FieldKind.INTEGER, label="Epochs", default=20, minimum=1, maximum=1000),
    FormField(path="steps", kind=FieldKind.INTEGER, label="Steps", optional=True, advanced=True),
    FormField(path="device", kind=FieldKind.CHOICE, label="Device", default="auto", choices=("auto", "cpu", "cuda")),
    FormField(path="color", kind=FieldKind.SWITCH, label="Colour", default=True),
    FormField(path="script", kind=FieldKind.FILE, label="Script"),
    FormField(path="arguments", kind=FieldKind.LIST, label="Arguments", default=[]),
    FormField(path="env", kind=FieldKind.MAPPING, label="Environment", default={}, advanced=True),
)
INFO = RunKindInfo(kind="test", title="Test", summary="Tests.", icon="file", group="train", fields=FIELDS)


@pytest.fixture
def form(qtbot, qapp):
    apply_theme(qapp, "light")
    made = SpecForm(FormState(INFO))
    qtbot.addWidget(made)
    made.resize(900, 700)
    made.show()
    return made


def field(form: SpecForm, path: str) -> QWidget:
    found = form.findChild(QWidget, f"field_{path}")
    assert isinstance(found, QWidget)
    return found


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("3e-4", FieldKind.NUMBER, 3e-4),
        (" 1 000 ", FieldKind.INTEGER, 1000),
        ("1e3", FieldKind.INTEGER, 1000),
        ("4294967295", FieldKind.INTEGER, 4_294_967_295),
        ("1.5", FieldKind.INTEGER, "1.5"),
        ("abc", FieldKind.NUMBER, "abc"),
        ("", FieldKind.NUMBER, None),
        ("inf", FieldKind.INTEGER, "inf"),
    ],
)
def test_numbers_are_read_as_people_type_them(text, kind, value):
    assert parse_number(text, kind) == value


@pytest.mark.parametrize("value", [3e-4, 0.1, 5.0, 12, 1e-8, 4_294_967_295])
def test_shown_numbers_read_back_the_same(value):
    assert parse_number(show_number(value), FieldKind.NUMBER) == value


def test_bounds_are_said_in_words():
    lr = FIELDS[1]
    assert check_value(lr, 0.5) is None
    for wrong in (0.0, 1.5, "abc", float("inf"), None):
        assert check_value(lr, wrong) is not None
    assert "more than 0, up to 1" in str(check_value(lr, 0.0))


def test_typing_sets_the_value_and_shows_the_problem_at_once(qtbot, form):
    edit = field(form, "optimizer.lr")
    edit.selectAll()
    qtbot.keyClicks(edit, "7")
    assert form.state.value("optimizer.lr") == 7.0
    assert "up to 1" in form.row("optimizer.lr").problem.text()
    edit.selectAll()
    qtbot.keyClicks(edit, "3e-4")
    assert form.state.value("optimizer.lr") == 3e-4
    assert form.row("optimizer.lr").problem.isHidden()


def test_arrow_keys_step_within_the_bounds(qtbot, form):
    edit = field(form, "epochs")
    qtbot.keyClick(edit, Qt.Key.Key_Up)
    assert form.state.value("epochs") == 21
    for _ in range(4):
        qtbot.keyClick(edit, Qt.Key.Key_PageDown)
    assert form.state.value("epochs") == 1


def test_the_wheel_changes_nothing(qtbot, form):
    before = form.state.values()
    for path in ("device", "epochs", "optimizer.lr"):
        widget = field(form, path)
        widget.clearFocus()
        centre = QPointF(widget.rect().center())
        event = QWheelEvent(
            centre,
            widget.mapToGlobal(centre),
            QPoint(0, -120),
            QPoint(0, -120),
            Qt.MouseButton.NoButton,
            Qt.KeyboardModifier.NoModifier,
            Qt.ScrollPhase.NoScrollPhase,
            False,
        )
        QApplication.sendEvent(widget, event)
    assert form.state.values() == before


def test_lists_and_mappings_are_one_a_line(form):
    field(form, "arguments").setPlainText("--lr 3e-4\n\n  --epochs=3  ")
    field(form, "env").setPlainText("A=1\nB = two=2")
    assert form.state.value("arguments") == ["--lr 3e-4", "--epochs=3"]
    assert form.state.value("env") == {"A": "1", "B": "two=2"}


def test_advanced_fields_show_when_asked_for_or_changed(form):
    assert form.row("steps").holder.isHidden()
    form.set_advanced(advanced=True)
    assert not form.row("steps").holder.isHidden()
    form.set_advanced(advanced=False)
    form.state.load({"steps": 5})
    assert not form.row("steps").holder.isHidden()


def test_an_untouched_needed_field_is_blamed_by_the_review_only(form):
    assert form.row("script").problem.isHidden()
    assert [problem.field for problem in form.state.problems()] == ["script"]
    problem = FieldProblem(field="script", message="There is no such file.", hint="Choose another.")
    form.state.take_review(SpecReview(problems=(problem,), warnings=(), toml="", command=""))
    assert form.row("script").problem.text() == "There is no such file. Choose another."
    form.state.set_value("script", "/tmp/train.py")
    assert form.row("script").problem.isHidden()


def test_loading_values_shows_them_and_leaves_out_what_has_no_field(form):
    form.state.load({"epochs": 3, "device": "cpu", "color": False, "gone": 1})
    assert field(form, "epochs").text() == "3"
    assert field(form, "device").currentText() == "cpu"
    assert not field(form, "color").isChecked()
    assert "gone" not in form.state.values()
    assert form.state.value("optimizer.lr") == 0.003


def test_going_to_a_hidden_field_shows_it_and_gives_it_the_focus(qtbot, form):
    assert form.focus_field("env")
    qtbot.waitUntil(lambda: not field(form, "env").visibleRegion().isEmpty())
    assert not form.focus_field("nowhere")
