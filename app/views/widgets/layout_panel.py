"""Head of the parallel layout's fields: ready-made layouts, a picture of the layout, its problems, and its memory.

Widgets: ``layout_<preset>`` (buttons), ``layout_picture``, ``layout_words``, ``layout_problems``, ``estimate``.
"""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QButtonGroup, QLabel, QPushButton, QVBoxLayout, QWidget

from app.viewmodels.form_state import FormState
from app.viewmodels.rank_layout import (
    PRESETS,
    PROCESSES,
    LayoutPreset,
    hosts_of,
    layout_of,
    preset_of,
    preset_values,
)
from app.views.theme import SPACE, set_kind
from app.views.widgets.estimate_badge import EstimateBadge
from app.views.widgets.flow_layout import FlowLayout
from app.views.widgets.layout_picture import LayoutPicture
from core.contracts.forms import SpecReview

SECTION = "Parallel layout"
_BESIDE = ("global_batch", "micro_batch", "optimizer.grad_accum_steps")


def has_layout(state: FormState) -> bool:
    """Tell whether a form has the fields of a parallel layout."""
    return state.field(PROCESSES) is not None


class LayoutPanel(QWidget):
    """Follows the form's values live; the review of the values comes from outside with ``show_review``."""

    def __init__(self, state: FormState, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state = state
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, SPACE.s)
        column.setSpacing(SPACE.s)
        column.addWidget(self._build_presets())
        self._words = QLabel()
        self._words.setObjectName("layout_words")
        self._problems = QLabel()
        self._problems.setObjectName("layout_problems")
        set_kind(self._words, "muted")
        set_kind(self._problems, "error")
        for label in (self._words, self._problems):
            label.setTextFormat(Qt.TextFormat.PlainText)
            label.setWordWrap(True)
        self.picture = LayoutPicture()
        self.estimate = EstimateBadge()
        for widget in (self._words, self.picture, self._problems, self.estimate):
            column.addWidget(widget)
        self._problems.hide()
        state.value_changed.connect(self._on_value_changed)
        state.loaded.connect(self._show)
        self._show()

    def show_review(self, review: SpecReview) -> None:
        """Show what the kind's own check says about the layout, and the memory it needs."""
        found = [p for p in review.problems if p.field.startswith("parallel.") or p.field in _BESIDE]
        self._problems.setText("\n".join(f"{problem.message} {problem.hint}".strip() for problem in found))
        self._problems.setVisible(bool(found))
        self.estimate.show_estimate(review.estimate)

    def _build_presets(self) -> QWidget:
        holder = QWidget()
        flow = FlowLayout(holder, spacing=SPACE.s)
        self._buttons: dict[str, QPushButton] = {}
        group = QButtonGroup(self)
        group.setExclusive(False)
        for preset in PRESETS:
            button = QPushButton(preset.title)
            button.setObjectName(f"layout_{preset.name}")
            button.setCheckable(True)
            button.setToolTip(preset.about)
            button.setAccessibleDescription(preset.about)
            button.clicked.connect(lambda _=False, preset=preset: self._on_preset(preset))
            group.addButton(button)
            self._buttons[preset.name] = button
            flow.addWidget(button)
        return holder

    def _on_preset(self, preset: LayoutPreset) -> None:
        self._state.set_values(preset_values(preset, self._state.values()))
        self._show()

    def _on_value_changed(self, path: str) -> None:
        if path.startswith(("parallel.", "launch.")):
            self._show()

    def _show(self) -> None:
        values = self._state.values()
        layout = layout_of(values, hosts_of(values))
        self._words.setText(layout.sentence())
        self.picture.show_layout(layout)
        chosen = preset_of(layout)
        for name, button in self._buttons.items():
            button.setChecked(name == chosen)
