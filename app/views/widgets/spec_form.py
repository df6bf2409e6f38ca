"""A form drawn from field records: sections as cards, help under each editor, problems beside their field.

Advanced fields are hidden until asked for; one that is changed or wrong is always shown. The values live in
``app.viewmodels.form_state``; this file only draws them. Fields of where the run goes are left to the step that asks that.
"""

from __future__ import annotations

from PySide6.QtCore import Qt, QTimer
from PySide6.QtWidgets import QFrame, QHBoxLayout, QScrollArea, QVBoxLayout, QWidget

from app.viewmodels.form_state import FormState
from app.viewmodels.where import is_where_path
from app.views.theme import SPACE
from app.views.widgets.field_card import FieldCard, FieldRow
from app.views.widgets.layout_panel import SECTION, LayoutPanel, has_layout

_MAX_WIDTH = 860


class SpecForm(QScrollArea):
    """The form of one kind of run.

    Attributes:
        layout_panel: Head of the parallel layout's fields; None in forms without them.
    """

    def __init__(self, state: FormState, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.state = state
        self._cards: list[FieldCard] = []
        self._is_advanced = False
        self.layout_panel: LayoutPanel | None = None
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setWidget(self._build())
        state.value_changed.connect(self._on_value_changed)
        state.loaded.connect(self._on_loaded)
        state.problems_changed.connect(self._on_problems_changed)
        self._arrange()

    def set_advanced(self, *, advanced: bool) -> None:
        """Show or hide the advanced fields."""
        self._is_advanced = advanced
        self._arrange()

    def focus_field(self, path: str) -> bool:
        """Scroll to a field and put the focus there; False when the form has no such field."""
        for card in self._cards:
            row = card.rows.get(path)
            if row is not None:
                row.set_visible(visible=True)
                card.show()
                card.unfold()
                row.editor.input().setFocus(Qt.FocusReason.OtherFocusReason)
                # The row has its place only after the layout ran.
                QTimer.singleShot(0, self, lambda row=row: self.ensureWidgetVisible(row.holder, 0, 120))
                return True
        return False

    def focus_first(self) -> None:
        """Put the focus into the first field."""
        rows = (row for card in self._cards for row in card.rows.values())
        first = next((row for row in rows if not row.holder.isHidden()), None)
        if first is not None:
            first.editor.input().setFocus(Qt.FocusReason.TabFocusReason)

    def row(self, path: str) -> FieldRow:
        """Return the row of a field."""
        return next(card.rows[path] for card in self._cards if path in card.rows)

    def _build(self) -> QWidget:
        inner = QWidget()
        inner.setObjectName("scroll_body")
        centred = QHBoxLayout(inner)
        centred.setContentsMargins(0, 0, SPACE.s, SPACE.m)
        column = QWidget()
        column.setMaximumWidth(_MAX_WIDTH)
        stack = QVBoxLayout(column)
        stack.setContentsMargins(0, 0, 0, 0)
        stack.setSpacing(SPACE.m)
        for section in self.state.sections():
            fields = [field for field in section.fields if not is_where_path(field.path)]
            if fields:
                card = FieldCard(section.title, fields, self.state, folds=section.has_advanced_only)
                self._cards.append(card)
                if section.title == SECTION and has_layout(self.state):
                    self.layout_panel = LayoutPanel(self.state)
                    card.add_lead(self.layout_panel)
                stack.addWidget(card)
        stack.addStretch(1)
        centred.addWidget(column, 1)
        centred.addStretch(0)
        return inner

    def _arrange(self) -> None:
        for card in self._cards:
            card.arrange(advanced=self._is_advanced)

    def _on_value_changed(self, path: str) -> None:
        if self.state.steers(path):
            self._arrange()

    def _on_loaded(self) -> None:
        for card in self._cards:
            card.read()
        self._arrange()

    def _on_problems_changed(self) -> None:
        for card in self._cards:
            card.read_problems(advanced=self._is_advanced)
