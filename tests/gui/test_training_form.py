"""The form of a training: simple at first, groups that fold, fields that appear when they have a meaning, the layout."""

from __future__ import annotations

from dataclasses import replace

import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtWidgets import QLabel, QPushButton, QToolButton, QWidget

from app.viewmodels.form_state import FormState
from app.viewmodels.rank_layout import RankLayout
from app.views.theme import apply_theme
from app.views.widgets.estimate_badge import EstimateBadge
from app.views.widgets.layout_picture import LayoutPicture
from app.views.widgets.spec_form import SpecForm
from app.views.wizards.review_step import ReviewStep
from core.contracts.errors import FieldProblem
from core.contracts.estimates import MemoryEstimate, MemoryPart
from core.contracts.forms import RunKindInfo, SpecReview
from core.contracts.kinds import RunKind
from core.plugins.forms import form_of
from core.train.specs.training import TrainingSpec

ESTIMATE = MemoryEstimate(
    parts=(MemoryPart(name="Weights", size_bytes=6 << 30), MemoryPart(name="Activations", size_bytes=3 << 30)),
    basis="Estimated for the fullest rank.",
    device="a GPU",
    device_bytes=8 << 30,
)


class _Spec(TrainingSpec, frozen=True, kw_only=True, tag="train.form"):
    """A training without model and data."""


def _info() -> RunKindInfo:
    kind = RunKind(spec=_Spec, title="T", summary="S", group="train", icon="train", run=lambda spec, context: None)
    return form_of(kind)


@pytest.fixture
def form(qtbot, qapp):
    apply_theme(qapp, "light")
    made = SpecForm(FormState(_info()))
    qtbot.addWidget(made)
    made.resize(1000, 800)
    made.show()
    return made


def is_shown(form: SpecForm, path: str) -> bool:
    row = form.row(path)
    return not row.holder.isHidden()


def review(*problems: FieldProblem, estimate: MemoryEstimate | None = None) -> SpecReview:
    return SpecReview(problems=problems, warnings=(), toml="", command="", estimate=estimate)


def test_a_beginner_sees_a_handful_of_fields(form):
    simple = {field.path for field in form.state.info.fields if not field.advanced}
    assert simple == {"steps", "epochs", "micro_batch", "optimizer.lr", "name", "tags", "parent"}
    assert not is_shown(form, "parallel.tensor")
    assert form.findChild(QPushButton, "layout_ddp") is not None
    assert not form.findChild(QPushButton, "layout_ddp").isVisible()


def test_groups_come_in_a_sensible_order_and_fold(qtbot, form):
    form.set_advanced(advanced=True)
    titles = [section.title for section in form.state.sections()]
    ordered = ["Run", "Training", "Optimizer", "Precision and memory", "Parallel layout", "Checkpoints"]
    assert [title for title in titles if title in ordered] == ordered
    head = form.findChild(QToolButton, "section_Checkpoints")
    editor = form.findChild(QWidget, "field_checkpoints.keep_last")
    assert not editor.isVisible()
    head.setFocus()
    qtbot.keyClick(head, Qt.Key.Key_Space)
    assert editor.isVisible()
    qtbot.keyClick(head, Qt.Key.Key_Space)
    assert not editor.isVisible()
    form.focus_field("checkpoints.keep_last")
    assert editor.isVisible(), "going to a field unfolds its group"


def test_a_problem_unfolds_its_group(form):
    problem = FieldProblem(field="loading.prefetch_batches", message="Too many.")
    form.state.take_review(review(problem))
    assert form.findChild(QWidget, "field_loading.prefetch_batches").isVisible()


@pytest.mark.parametrize(
    ("path", "steering", "value"),
    [
        ("optimizer.decay_fraction", "optimizer.schedule", "wsd"),
        ("compute.initial_loss_scale", "precision", "fp16"),
        ("parallel.schedule", "parallel.pipeline", 2),
        ("parallel.sequence", "parallel.tensor", 2),
        ("distillation.temperature", "distillation.teacher", "/models/teacher"),
        ("loading.shuffle_buffer", "loading.stream", True),
        ("optimizer.momentum", "optimizer.algorithm", "sgd"),
    ],
)
def test_a_field_appears_when_it_has_a_meaning(form, path, steering, value):
    form.set_advanced(advanced=True)
    assert not is_shown(form, path)
    form.state.set_value(steering, value)
    assert is_shown(form, path)


def test_a_condition_holds_only_where_its_own_field_has_a_meaning(form):
    form.state.set_value("parallel.schedule", "interleaved")
    assert not form.state.has_meaning("parallel.stages_per_rank")
    form.state.set_value("parallel.pipeline", 2)
    assert form.state.has_meaning("parallel.stages_per_rank")


def test_a_turned_off_guard_hides_its_policies(form):
    form.set_advanced(advanced=True)
    assert is_shown(form, "stability.on_loss_spike")
    form.state.set_value("stability.guard", value=False)
    assert not is_shown(form, "stability.on_loss_spike")


def test_a_ready_made_layout_fills_in_the_degrees_and_the_picture_follows(qtbot, form):
    form.set_advanced(advanced=True)
    form.findChild(QToolButton, "section_Parallel layout").setChecked(True)
    qtbot.mouseClick(form.findChild(QPushButton, "layout_3d"), Qt.MouseButton.LeftButton)
    assert form.state.value("parallel.processes") == 8
    assert form.findChild(QWidget, "field_parallel.tensor").text() == "2"
    picture = form.layout_panel.picture
    assert picture.layout_shown == RankLayout(processes=8, tensor=2, pipeline=2)
    assert "8 ranks" in form.findChild(QLabel, "layout_words").text()
    form.state.set_value("parallel.tensor", 3)
    assert not form.findChild(QPushButton, "layout_3d").isChecked()
    assert picture.isHidden(), "8 ranks cannot be shared out among 6"


def test_problems_of_the_layout_and_its_memory_stand_beside_it(form):
    form.set_advanced(advanced=True)
    form.findChild(QToolButton, "section_Parallel layout").setChecked(True)
    layout = FieldProblem(field="parallel.tensor", message="3 does not divide 8 heads.", hint="Use 2.")
    other = FieldProblem(field="optimizer.lr", message="Too high.")
    form.layout_panel.show_review(review(layout, other, estimate=ESTIMATE))
    shown = form.findChild(QLabel, "layout_problems")
    assert shown.isVisible()
    assert shown.text() == "3 does not divide 8 heads. Use 2."
    assert form.layout_panel.estimate.chip.accessibleName() == "Does not fit"
    form.layout_panel.show_review(review())
    assert not shown.isVisible()
    assert form.layout_panel.estimate.isHidden()


@pytest.mark.parametrize(
    ("device_bytes", "verdict"),
    [(None, "Estimated"), (20 << 30, "Fits"), (10 << 30, "Tight"), (8 << 30, "Does not fit")],
)
def test_the_badge_compares_with_the_device(qtbot, qapp, device_bytes, verdict):
    badge = EstimateBadge()
    qtbot.addWidget(badge)
    badge.show_estimate(replace(ESTIMATE, device_bytes=device_bytes))
    assert badge.chip.accessibleName() == verdict
    assert "9.0 GiB a rank" in badge.words.text()


def test_the_review_shows_the_estimate(qtbot, qapp):
    step = ReviewStep()
    qtbot.addWidget(step)
    step.show()
    step.show_review(replace(review(estimate=ESTIMATE), toml="kind = 'x'", command="pilothouse run spec.toml"))
    assert step.estimate.isVisible()
    step.show_review(replace(review(), toml="kind = 'x'", command="pilothouse run spec.toml"))
    assert not step.estimate.isVisible()


def test_thousands_of_ranks_draw_no_more_than_fit(qtbot, qapp):
    apply_theme(qapp, "light")
    picture = LayoutPicture()
    qtbot.addWidget(picture)
    picture.resize(700, 300)
    picture.show_layout(RankLayout(processes=8, hosts=512, tensor=8, pipeline=16))
    picture.show()
    boxes = picture._boxes()
    assert len(boxes) <= 8 * 16 * 16
    assert all(box.right() <= picture.width() for _, box in boxes)
    assert "more data ranks" in picture.left_out()
    place, box = boxes[-1]
    at = QPoint(round(box.center().x()), round(box.center().y()))
    assert picture.rank_at(at) == place
    assert picture.height() < 300
    assert not picture.grab().isNull()
