"""A form drawn from field records: sections as cards, help under each editor, problems beside their field.

Advanced fields are hidden until asked for; one that is changed or wrong is always shown. The values live in
``app.viewmodels.form_state``; this file only draws them.
"""

from __future__ import annotations

from PySide6.QtCore import Qt, QTimer
from PySide6.QtWidgets import QFrame, QGridLayout, QHBoxLayout, QLabel, QScrollArea, QVBoxLayout, QWidget

from app.viewmodels.form_state import FormSection, FormState, bounds_text
from app.views.theme import SPACE, set_kind
from app.views.widgets.card import Card
from app.views.widgets.field_editors import make_editor
from core.contracts.forms import FormField, FormValue

_LABEL_WIDTH = 190
_MAX_WIDTH = 860


class FieldRow:
    """Label, editor, help and problem of one field, as one row of a section's grid."""

    def __init__(self, field: FormField, state: FormState, grid: QGridLayout, row: int) -> None:
        self.field = field
        self._state = state
        self.label = QLabel(field.label)
        self.label.setTextFormat(Qt.TextFormat.PlainText)
        self.label.setWordWrap(True)
        self.label.setToolTip(field.path)
        self.editor = make_editor(field)
        self.label.setBuddy(self.editor.input())
        self.help = QLabel(_help_of(field))
        set_kind(self.help, "caption")
        self.problem = QLabel()
        set_kind(self.problem, "error")
        self.problem.setObjectName(f"problem_{field.path}")
        for text in (self.help, self.problem):
            text.setTextFormat(Qt.TextFormat.PlainText)
            text.setWordWrap(True)
        below = QVBoxLayout()
        below.setSpacing(SPACE.xs)
        for widget in (self.editor, self.help, self.problem):
            below.addWidget(widget)
        holder = QWidget()
        holder.setLayout(below)
        below.setContentsMargins(0, 0, 0, SPACE.s)
        self.holder = holder
        top = Qt.AlignmentFlag.AlignTop
        self.label.setContentsMargins(0, 7, 0, 0)
        grid.addWidget(self.label, row, 0, top)
        grid.addWidget(holder, row, 1, top)
        self.editor.edited.connect(self._on_edited)
        self.read()

    def read(self) -> None:
        """Show the value and its problem."""
        self.editor.show_value(self._state.value(self.field.path))
        self.read_problem()

    def read_problem(self) -> None:
        """Show what is wrong, if anything is."""
        problem = self._state.problem(self.field.path)
        self.problem.setText("" if problem is None else f"{problem.message} {problem.hint}".strip())
        self.problem.setVisible(problem is not None)
        self.help.setVisible(problem is None and bool(self.help.text()))
        self.editor.set_invalid(invalid=problem is not None)

    def set_visible(self, *, visible: bool) -> None:
        """Show or hide the row."""
        self.label.setVisible(visible)
        self.holder.setVisible(visible)

    def is_wanted(self, *, advanced: bool) -> bool:
        """Tell whether the row is shown: plain ones always, advanced ones when asked for, changed or wrong."""
        path = self.field.path
        return (
            advanced or not self.field.advanced or self._state.is_changed(path) or self._state.problem(path) is not None
        )

    def _on_edited(self, value: FormValue) -> None:
        self._state.set_value(self.field.path, value)


class SpecForm(QScrollArea):
    """The form of one kind of run."""

    def __init__(self, state: FormState, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.state = state
        self._rows: dict[str, FieldRow] = {}
        self._cards: list[tuple[Card, FormSection]] = []
        self._is_advanced = False
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setWidget(self._build())
        state.loaded.connect(self._on_loaded)
        state.problems_changed.connect(self._on_problems_changed)
        self._arrange()

    def set_advanced(self, *, advanced: bool) -> None:
        """Show or hide the advanced fields."""
        self._is_advanced = advanced
        self._arrange()

    def focus_field(self, path: str) -> bool:
        """Scroll to a field and put the focus there; False when the form has no such field."""
        row = self._rows.get(path)
        if row is None:
            return False
        row.set_visible(visible=True)
        for card, section in self._cards:
            if row.field in section.fields:
                card.show()
        row.editor.input().setFocus(Qt.FocusReason.OtherFocusReason)
        # The row has its place only after the layout ran.
        QTimer.singleShot(0, self, lambda: self.ensureWidgetVisible(row.holder, 0, 120))
        return True

    def focus_first(self) -> None:
        """Put the focus into the first field."""
        first = next((row for row in self._rows.values() if not row.holder.isHidden()), None)
        if first is not None:
            first.editor.input().setFocus(Qt.FocusReason.TabFocusReason)

    def row(self, path: str) -> FieldRow:
        """Return the row of a field."""
        return self._rows[path]

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
            stack.addWidget(self._build_section(section))
        stack.addStretch(1)
        centred.addWidget(column, 1)
        centred.addStretch(0)
        return inner

    def _build_section(self, section: FormSection) -> Card:
        card = Card(section.title)
        grid = QGridLayout()
        grid.setColumnMinimumWidth(0, _LABEL_WIDTH)
        grid.setColumnStretch(1, 1)
        grid.setHorizontalSpacing(SPACE.m)
        grid.setVerticalSpacing(SPACE.xs)
        for n, field in enumerate(section.fields):
            self._rows[field.path] = FieldRow(field, self.state, grid, n)
            self._rows[field.path].label.setFixedWidth(_LABEL_WIDTH)
        card.body.addLayout(grid)
        self._cards.append((card, section))
        return card

    def _arrange(self) -> None:
        for card, section in self._cards:
            shown = [self._rows[field.path].is_wanted(advanced=self._is_advanced) for field in section.fields]
            for field, visible in zip(section.fields, shown, strict=True):
                self._rows[field.path].set_visible(visible=visible)
            card.setVisible(any(shown))

    def _on_loaded(self) -> None:
        for row in self._rows.values():
            row.read()
        self._arrange()

    def _on_problems_changed(self) -> None:
        for row in self._rows.values():
            row.read_problem()
            if row.holder.isHidden() and row.is_wanted(advanced=self._is_advanced):
                row.set_visible(visible=True)


def _help_of(field: FormField) -> str:
    bounds = bounds_text(field)
    # A bound that only keeps nonsense out (such as up to 4294967295) says nothing to people.
    has_sense = bounds and (field.maximum is None or abs(field.maximum) < 1e8)
    text = field.description
    if has_sense:
        text = f"{text} Allowed: {bounds}.".strip()
    return text
