"""Labels as they stand in tables and files: read, sorted into classes, numbered; a wrong one is named with its place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from core.contracts.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def read_label(place: str, value: Any) -> str:
    """Return a label as text.

    Args:
        place: File and row, for the sentence.
        value: What stands there: a name or a whole number from 0 on.

    Raises:
        UserError: It is missing, or neither.
    """
    if isinstance(value, str) and value.strip():
        return value.strip()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)) and float(value).is_integer() and value >= 0:
        return str(int(value))
    told = "is missing" if value is None or value == "" else f"is {value!r}, which is no class"
    raise UserError(f"{place}: its label {told}.", "Labels are names, or whole numbers from 0 on.")


def sorted_classes(labels: Iterable[str]) -> tuple[str, ...]:
    """Return the distinct labels: in the order of their numbers where all are numbers, else sorted."""
    found = set(labels)
    if all(label.isdecimal() for label in found):
        return tuple(sorted(found, key=int))
    return tuple(sorted(found))


def numbered(labels: Sequence[str], places: Sequence[str], classes: Sequence[str]) -> NDArray[np.int64]:
    """Return the number of each label's class; one that is no name, but a number below their count, is that number.

    Raises:
        UserError: A label is none of the classes.
    """
    numbers = {name: number for number, name in enumerate(classes)}
    numbers.update({str(number): number for number in range(len(classes)) if str(number) not in numbers})
    for label, place in zip(labels, places, strict=True):
        if label not in numbers:
            known = ", ".join(classes[:10])
            raise UserError(
                f"{place}: the label {label!r} is none of the {len(classes)} classes ({known}).",
                "Correct the label, or add it to the classes.",
            )
    return np.array([numbers[label] for label in labels], dtype=np.int64)
