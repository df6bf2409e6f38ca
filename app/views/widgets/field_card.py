"""A card of form fields: label, editor, help and problem of each, as rows; hides what is advanced until asked for.

A card of advanced fields alone can be folded up; its head (``section_<title>``) then tells how many differ from the default.
"""

from __future__ import annotations

from collections.abc import Iterable

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QGridLayout, QLabel, QSizePolicy, QToolButton, QVBoxLayout, QWidget

from app.viewmodels.form_state import FormState, bounds_text
from app.views.icons import icon
from app.views.theme import SPACE, set_kind
from app.views.widgets.card import Card
from app.views.widgets.field_editors import make_editor
from core.contracts.forms import FormField, FormValue

LABEL_WIDTH = 190


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
        """Tell whether the row is shown: plain ones with a meaning always, advanced ones when asked for or changed.

        A field that is wrong is shown in any case.
        """
        path = self.field.path
        if self._state.problem(path) is not None:
            return True
        return self._state.has_meaning(path) and (advanced or not self.field.advanced or self._state.is_changed(path))

    def _on_edited(self, value: FormValue) -> None:
        self._state.set_value(self.field.path, value)


class FieldCard(Card):
    """Rows for some fields of a form.

    Attributes:
        rows: The rows by path.
    """

    def __init__(self, title: str, fields: Iterable[FormField], state: FormState, *, folds: bool = False) -> None:
        super().__init__("" if folds else title)
        self._state = state
        self._head: QToolButton | None = self._build_head(title) if folds else None
        self.rows: dict[str, FieldRow] = {}
        self._inner = QWidget()
        self._column = QVBoxLayout(self._inner)
        self._column.setContentsMargins(0, 0, 0, 0)
        grid = QGridLayout()
        grid.setColumnMinimumWidth(0, LABEL_WIDTH)
        grid.setColumnStretch(1, 1)
        grid.setHorizontalSpacing(SPACE.m)
        grid.setVerticalSpacing(SPACE.xs)
        for n, field in enumerate(fields):
            self.rows[field.path] = FieldRow(field, state, grid, n)
            self.rows[field.path].label.setFixedWidth(LABEL_WIDTH)
        self._column.addLayout(grid)
        self.body.addWidget(self._inner)
        if self._head is not None:
            self._fold(is_open=self._num_changed() > 0)

    def add_lead(self, widget: QWidget) -> None:
        """Put a widget above the rows."""
        self._column.insertWidget(0, widget)

    def unfold(self) -> None:
        """Show the rows of a card that is folded up."""
        if self._head is not None:
            self._head.setChecked(True)

    def arrange(self, *, advanced: bool) -> None:
        """Show the rows that are wanted, and the card when there is one."""
        shown = [row.is_wanted(advanced=advanced) for row in self.rows.values()]
        for row, visible in zip(self.rows.values(), shown, strict=True):
            row.set_visible(visible=visible)
        self.setVisible(any(shown))
        if self._head is not None:
            changed = self._num_changed()
            self._count.setText(f"{changed} changed" if changed else "")
            if any(self._state.problem(path) is not None for path in self.rows):
                self.unfold()

    def _build_head(self, title: str) -> QToolButton:
        head = QToolButton()
        head.setObjectName(f"section_{title}")
        head.setText(title)
        head.setAccessibleName(f"{title}: show or hide the settings")
        head.setCheckable(True)
        head.setAutoRaise(True)
        head.setProperty("heading", True)
        head.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        head.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        head.toggled.connect(lambda on: self._fold(is_open=on))
        self._count = QLabel()
        set_kind(self._count, "caption")
        self.title_row.addWidget(head, 1)
        self.title_row.addWidget(self._count)
        return head

    def _fold(self, *, is_open: bool) -> None:
        if self._head is not None:
            self._head.setChecked(is_open)
            self._head.setIcon(icon("chevron-down" if is_open else "chevron-right"))
        self._inner.setVisible(is_open)

    def _num_changed(self) -> int:
        return sum(self._state.is_changed(path) and self._state.has_meaning(path) for path in self.rows)

    def read(self) -> None:
        """Show all values anew."""
        for row in self.rows.values():
            row.read()

    def read_problems(self, *, advanced: bool) -> None:
        """Show what is wrong; a row that is hidden and wrong appears."""
        for row in self.rows.values():
            row.read_problem()
            if row.holder.isHidden() and row.is_wanted(advanced=advanced):
                row.set_visible(visible=True)
            if self._state.problem(row.field.path) is not None:
                self.setVisible(True)
                self.unfold()


def _help_of(field: FormField) -> str:
    bounds = bounds_text(field)
    # A bound that only keeps nonsense out (such as up to 4294967295) says nothing to people.
    has_sense = bounds and (field.maximum is None or abs(field.maximum) < 1e8)
    text = field.description
    if has_sense:
        text = f"{text} Allowed: {bounds}.".strip()
    return text
