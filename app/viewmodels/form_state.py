"""The values and problems of one form while it is being filled in; knows the fields, not the widgets.

A value is checked against its field's own bounds at once; problems of the last review stay beside their field until
that field is changed. Values that do not parse (``abc`` in a number) are kept as typed, with their problem.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from PySide6.QtCore import QObject, Signal

from core.contracts.errors import FieldProblem
from core.contracts.forms import FieldKind, FormField, FormValue, RunKindInfo, SpecReview

_NUMERIC = (FieldKind.INTEGER, FieldKind.NUMBER)
_FIRST_SECTIONS = ("Run", "Settings", "Model", "Trained weights", "Data")
_LAST_SECTIONS = (
    "Training",
    "Optimizer",
    "Precision and memory",
    "Parallel layout",
    "Checkpoints",
    "Stability guard",
    "Loading",
    "Distillation and penalties",
    "Found by trying",
    "Processes",
)
"""Sections of the kinds themselves stand between the two, in the order of their spec."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FormSection:
    """A heading with its fields; ``has_advanced_only`` tells that all of them are advanced."""

    title: str
    fields: tuple[FormField, ...]
    has_advanced_only: bool


def parse_number(text: str, kind: FieldKind) -> FormValue:
    """Return what was typed as a number where it is one, else the text itself; an empty text is None."""
    plain = text.strip().replace(" ", "").replace("\u202f", "").replace("_", "")
    if not plain:
        return None
    try:
        if kind is FieldKind.NUMBER:
            return float(plain)
        value = float(plain)
        return int(plain) if plain.lstrip("+-").isdigit() else (int(value) if value.is_integer() else text)
    except (ValueError, OverflowError):
        return text


def show_number(value: FormValue) -> str:
    """Return a number as it is typed: shortest text that reads back the same."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return repr(value) if isinstance(value, float) else str(value)


def bounds_text(field: FormField) -> str:
    """Return the allowed range in words; empty when there is none."""
    low, high = show_number(field.minimum), show_number(field.maximum)
    if low and high:
        return f"more than {low}, up to {high}" if field.exclusive_minimum else f"{low} to {high}"
    if low:
        return f"more than {low}" if field.exclusive_minimum else f"{low} or more"
    return f"up to {high}" if high else ""


def check_value(field: FormField, value: FormValue) -> FieldProblem | None:
    """Return what is wrong with a value as far as the field itself tells."""
    if value is None or value == "":
        if field.optional or field.default is not None:
            return None if field.optional or field.kind not in _NUMERIC else _problem(field, "A number is needed.")
        return _problem(field, f"{field.label} is needed.")
    if field.kind in _NUMERIC:
        return _check_number(field, value)
    if field.kind is FieldKind.CHOICE and field.choices and value not in field.choices:
        return _problem(field, f"Choose one of: {', '.join(field.choices)}.")
    return None


def _check_number(field: FormField, value: FormValue) -> FieldProblem | None:
    if isinstance(value, str) or not isinstance(value, (int, float)):
        return _problem(
            field, "A whole number is needed." if field.kind is FieldKind.INTEGER else "A number is needed."
        )
    if isinstance(value, float) and not math.isfinite(value):
        return _problem(field, "A finite number is needed.")
    low, high = field.minimum, field.maximum
    too_low = low is not None and (value <= low if field.exclusive_minimum else value < low)
    too_high = high is not None and value > high
    return _problem(field, f"Must be {bounds_text(field)}.") if too_low or too_high else None


def _section_rank(title: str) -> int:
    if title in _FIRST_SECTIONS:
        return _FIRST_SECTIONS.index(title)
    own = len(_FIRST_SECTIONS)
    return own + 1 + _LAST_SECTIONS.index(title) if title in _LAST_SECTIONS else own


def _problem(field: FormField, message: str) -> FieldProblem:
    return FieldProblem(field=field.path, message=message)


class FormState(QObject):
    """What has been filled in so far. Thread: UI.

    Attributes:
        info: The kind of run whose form this is.

    Signals:
        value_changed: Path (str) of the field that changed.
        loaded: Many values changed at once; editors read theirs anew.
        problems_changed: Problems of some field changed.
    """

    value_changed = Signal(object)
    loaded = Signal()
    problems_changed = Signal()

    def __init__(self, info: RunKindInfo, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.info = info
        self._fields = {field.path: field for field in info.fields}
        self._values: dict[str, FormValue] = {field.path: field.default for field in info.fields}
        self._review: dict[str, FieldProblem] = {}
        self._touched: set[str] = set()

    def field(self, path: str) -> FormField | None:
        """Return a field by its dotted path."""
        return self._fields.get(path)

    def value(self, path: str) -> FormValue:
        """Return a field's value."""
        return self._values[path]

    def values(self) -> dict[str, FormValue]:
        """Return all values by dotted path, as ``Workspace.review`` and ``launch`` take them."""
        return dict(self._values)

    def set_value(self, path: str, value: FormValue) -> None:
        """Change one value; its problem of the last review is thereby answered."""
        self._touched.add(path)
        if self._values[path] == value and type(self._values[path]) is type(value):
            return
        self._values[path] = value
        self._review.pop(path, None)
        self.value_changed.emit(path)
        self.problems_changed.emit()

    def set_values(self, values: Mapping[str, FormValue]) -> None:
        """Change several values at once, as by hand; paths without a field are left out."""
        for path, value in values.items():
            if path in self._fields:
                self.set_value(path, value)
        self.loaded.emit()

    def load(self, values: Mapping[str, FormValue]) -> None:
        """Start from the defaults and take over these values; paths without a field are left out."""
        self._values = {field.path: field.default for field in self.info.fields}
        self._values.update({path: value for path, value in values.items() if path in self._fields})
        self._review.clear()
        self._touched.clear()
        self.loaded.emit()
        self.problems_changed.emit()

    def take_review(self, review: SpecReview) -> None:
        """Put the problems of a review beside their fields."""
        self._review = {problem.field: problem for problem in review.problems if problem.field in self._fields}
        self.problems_changed.emit()

    def problem(self, path: str) -> FieldProblem | None:
        """Return what to show beside a field now; an untouched empty field is not blamed yet."""
        found = self._review.get(path)
        if found is not None:
            return found
        value = self._values[path]
        if path not in self._touched and value in (None, ""):
            return None
        return check_value(self._fields[path], value)

    def problems(self) -> tuple[FieldProblem, ...]:
        """Return every problem that the fields themselves tell, untouched ones included."""
        checked = (
            self._review.get(path) or check_value(field, self._values[path]) for path, field in self._fields.items()
        )
        return tuple(problem for problem in checked if problem is not None)

    def is_changed(self, path: str) -> bool:
        """True when the value is not the default."""
        return self._values[path] != self._fields[path].default

    def has_meaning(self, path: str) -> bool:
        """Tell whether a field has a meaning with the values as they are: its condition holds, and the one of that field."""
        condition = self._fields[path].shown_if
        if condition is None or condition.path not in self._fields:
            return True
        return condition.holds(self._values[condition.path]) and self.has_meaning(condition.path)

    def steers(self, path: str) -> bool:
        """Tell whether other fields have a meaning or not by this one."""
        return any(field.shown_if is not None and field.shown_if.path == path for field in self.info.fields)

    def sections(self) -> tuple[FormSection, ...]:
        """Return the fields by heading: run, model and data, what is the kind's own, then the training group by group."""
        grouped: dict[str, list[FormField]] = {}
        for field in self.info.fields:
            grouped.setdefault(field.section or "Settings", []).append(field)
        ordered = sorted(grouped, key=_section_rank)
        return tuple(
            FormSection(
                title=title, fields=tuple(grouped[title]), has_advanced_only=all(f.advanced for f in grouped[title])
            )
            for title in ordered
        )
