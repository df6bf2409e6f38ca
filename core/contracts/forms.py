"""A form as data: what a view needs to draw and validate the fields of a spec without knowing its type.

``core.plugins.forms`` derives it from a spec type; ``app.views`` draws it; the values travel back as plain
``dict[str, FormValue]`` keyed by dotted field path.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from core.contracts.errors import FieldProblem
from core.contracts.estimates import MemoryEstimate

FormValue = str | int | float | bool | list[str] | dict[str, str] | None


class FieldKind(StrEnum):
    """Which editor a field needs."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    SWITCH = "switch"
    CHOICE = "choice"
    FILE = "file"
    FOLDER = "folder"
    LIST = "list"
    MAPPING = "mapping"


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldCondition:
    """When a field has a meaning, told by the value of another one. What is given must hold.

    Attributes:
        path: Dotted path of the other field.
        values: It has one of these values.
        above: It is a number greater than this.
        is_filled: It is not empty.
    """

    path: str
    values: tuple[str | int | float | bool, ...] = ()
    above: float | None = None
    is_filled: bool = False

    def holds(self, value: FormValue) -> bool:
        """Tell whether the other field's value gives the field a meaning."""
        if self.values and value not in self.values:
            return False
        if self.above is not None and not (isinstance(value, (int, float)) and value > self.above):
            return False
        return not self.is_filled or value not in (None, "", [], {})


@dataclass(frozen=True, slots=True, kw_only=True)
class FormField:
    """One field.

    Attributes:
        path: Dotted path in the spec, such as ``optimizer.lr``.
        kind: Which editor it needs.
        label: Short name in the user's words.
        description: What it does and the usual range; the tooltip.
        default: The value it starts with.
        unit: Shown behind the editor, such as ``s`` or ``MiB``; may be empty.
        minimum: Smallest allowed value, with ``exclusive_minimum`` telling whether it is itself excluded.
        maximum: Largest allowed value.
        choices: Allowed texts of a ``CHOICE``.
        section: Heading under which it is drawn.
        advanced: Hidden until the user asks for advanced settings.
        optional: May be left empty (``None``).
        shown_if: It has a meaning only then, and is hidden otherwise; None: always.
    """

    path: str
    kind: FieldKind
    label: str
    description: str = ""
    default: FormValue = None
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    exclusive_minimum: bool = False
    choices: tuple[str, ...] = ()
    section: str = ""
    advanced: bool = False
    optional: bool = False
    shown_if: FieldCondition | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunKindInfo:
    """A kind of run, as a card the user can choose, with its form.

    Attributes:
        spans_nodes: It can run on several hosts at once.
    """

    kind: str
    title: str
    summary: str
    icon: str
    group: str
    fields: tuple[FormField, ...]
    examples: tuple[str, ...] = ()
    spans_nodes: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecReview:
    """What the review page shows before a launch: all problems at once, or the spec and the command that equals it.

    Attributes:
        estimate: Memory that a rank will need; None where that cannot be told.
    """

    problems: tuple[FieldProblem, ...]
    warnings: tuple[FieldProblem, ...]
    toml: str
    command: str
    estimate: MemoryEstimate | None = None
