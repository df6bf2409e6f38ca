"""Ranges of parameters: their small language, their check against a field, and the values of a grid.

``A..B`` (uniform), ``A..B log``, ``A..B step S``, ``A..B in N`` (N values evenly spread, on the log scale after
``log``) and ``a|b|c``. A range over a whole-number field gives whole numbers. What a value may be is asked of the field
itself, at both ends of a range and for every choice.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import msgspec
from msgspec import inspect

from core.contracts.errors import FieldProblem
from core.contracts.sweeps import ParameterKind, ParameterValue, SweepParameter
from core.plugins.decode import explain
from core.plugins.fields import SpecField

_RANGE = re.compile(
    r"^(?P<low>\S+?)\s*\.\.\s*(?P<high>\S+)(?P<log>\s+log)?(?:\s+step\s+(?P<step>\S+)|\s+in\s+(?P<count>\S+))?$"
)
_FORMS = "Write a range such as 1e-4..1e-2 log, 16..64 step 8 or 0.1..0.9 in 5, or choices such as adamw|muon."
MAX_VALUES = 1000
"""Most values that one parameter may have in a grid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """The values that one field may take.

    Attributes:
        field: The field that is varied.
        text: What was asked.
        choices: The values, where they are listed or counted; else empty.
        low: Smallest value of a range.
        high: Largest value of a range.
        step: Distance of its values; None where there is no grid.
        log: It is sampled on a logarithmic scale.
        listed: The choices were listed, and have no order.
    """

    field: SpecField
    text: str
    choices: tuple[ParameterValue, ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False
    listed: bool = False

    @property
    def is_integer(self) -> bool:
        """True when its values are whole numbers."""
        return isinstance(self.field.type, inspect.IntType)

    def grid(self) -> tuple[ParameterValue, ...] | None:
        """Return all values in order; None for a continuous range."""
        if self.choices:
            return self.choices
        step = self.step or (1.0 if self.is_integer and not self.log else None)
        if step is None:
            return None
        # Half a part in a million of a step more: 0.1 + 0.2 must not miss 0.3.
        count = math.floor((self.high - self.low) / step + 1e-6) + 1
        values = [self.low + step * number for number in range(count)]
        return tuple(round(v) if self.is_integer else float(f"{v:.12g}") for v in values)

    def record(self) -> SweepParameter:
        """Return it as it is shown."""
        kind: ParameterKind = "choice" if self.listed else "integer" if self.is_integer else "number"
        return SweepParameter(
            path=self.field.dotted,
            label=str(self.field.meta.get("title", self.field.dotted)),
            kind=kind,
            text=self.text,
            low=None if self.listed else self.low,
            high=None if self.listed else self.high,
            log=self.log,
            choices=self.choices,
        )


class _Wrong(Exception):
    """A range that cannot be used, with the sentence why."""


def _number(text: str, *, whole: bool) -> float:
    try:
        value = float(text)
    except ValueError:
        raise _Wrong(f"{text!r} is not a number.") from None
    if not math.isfinite(value):
        raise _Wrong(f"{text!r} is not a finite number.")
    if whole and not value.is_integer():
        raise _Wrong(f"{text!r} is not a whole number, and the field needs whole numbers.")
    return value


def _allowed(field: SpecField, value: ParameterValue) -> None:
    """Refuse a value that the field refuses."""
    try:
        msgspec.convert(value, field.annotation, strict=True)
    except msgspec.ValidationError as error:
        raise _Wrong(explain(error, value)) from None


def _choice(field: SpecField, text: str) -> ParameterValue:
    """Return a listed choice as a value of the field's type."""
    try:
        value = msgspec.convert(text, field.annotation, strict=False)
    except msgspec.ValidationError as error:
        raise _Wrong(explain(error, text)) from None
    return msgspec.to_builtins(value)


def _listed(field: SpecField, text: str) -> Domain:
    texts = [part.strip() for part in text.split("|")]
    if not all(texts):
        raise _Wrong("a choice is empty.")
    choices = tuple(dict.fromkeys(_choice(field, part) for part in texts))
    return Domain(field=field, text=text, choices=choices, listed=True)


def _spread(low: float, high: float, count: int, *, log: bool, whole: bool) -> tuple[ParameterValue, ...]:
    """Return ``count`` values from low to high, evenly spaced, on the log scale if asked."""
    shares = [number / (count - 1) for number in range(count)] if count > 1 else [0.0]
    if log:
        values = [math.exp(math.log(low) + share * (math.log(high) - math.log(low))) for share in shares]
    else:
        values = [low + share * (high - low) for share in shares]
    rounded = [round(v) if whole else float(f"{v:.12g}") for v in values]
    return tuple(dict.fromkeys(rounded))


def _ranged(field: SpecField, text: str, match: re.Match[str]) -> Domain:
    whole = isinstance(field.type, inspect.IntType)
    if not whole and not isinstance(field.type, inspect.FloatType):
        raise _Wrong("a range needs a field that is a number; list choices instead, such as a|b.")
    low, high = (_number(match[end], whole=whole) for end in ("low", "high"))
    log = match["log"] is not None
    if low >= high:
        raise _Wrong(f"the range runs from {match['low']} to {match['high']}, which is not more.")
    if log and low <= 0:
        raise _Wrong("a log range must begin above 0.")
    for value in (low, high):
        _allowed(field, round(value) if whole else value)
    if match["count"] is not None:
        count = _number(match["count"], whole=True)
        if not 1 <= count <= MAX_VALUES:
            raise _Wrong(f"'in {match['count']}' must be 1 to {MAX_VALUES} values.")
        values = _spread(low, high, round(count), log=log, whole=whole)
        return Domain(field=field, text=text, choices=values, low=low, high=high, log=log)
    step = None if match["step"] is None else _number(match["step"], whole=whole)
    if step is not None and log:
        raise _Wrong("a log range has no step; write 'log in 5' for five values.")
    if step is not None and not 0 < step <= high - low:
        raise _Wrong(f"the step {match['step']} does not fit into the range.")
    return Domain(field=field, text=text, low=low, high=high, step=step, log=log)


def parse_domain(field: SpecField, text: str, *, at: str) -> Domain | FieldProblem:
    """Return the values that a range stands for, or what is wrong with it.

    Args:
        field: The field that is varied.
        text: The range.
        at: Where it stands, for the problem.
    """
    stripped = text.strip()
    if not isinstance(field.type, (inspect.IntType, inspect.FloatType, inspect.BoolType, inspect.StrType)) and not (
        isinstance(field.type, inspect.LiteralType)
    ):
        return FieldProblem(field=at, message="is not a number, a switch or a text, so it cannot be varied.")
    if not stripped:
        return FieldProblem(field=at, message="has no range.", hint=_FORMS)
    try:
        match = _RANGE.match(stripped)
        if match is not None and not isinstance(field.type, (inspect.StrType, inspect.LiteralType)):
            return _ranged(field, stripped, match)
        return _listed(field, stripped)
    except _Wrong as wrong:
        return FieldProblem(field=at, message=f"{stripped!r}: {wrong}", hint=_FORMS)
