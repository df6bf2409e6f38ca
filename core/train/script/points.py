"""What a metric source gives, and who may use which name: two sources never write into one curve."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Point:
    """The scalars that a script reported for one step."""

    step: int
    values: dict[str, float]


class MetricSource(Protocol):
    """Something a script writes metrics into.

    Attributes:
        label: Tells it from others of its kind, such as a file's name.
    """

    label: str

    def poll(self) -> Iterable[Point]:
        """Return what is new, in order; bounded per call. Never raises for what the script wrote."""
        ...


class KeyBook:
    """Gives each metric name to the first source that uses it; another source's gets its label in front."""

    def __init__(self) -> None:
        self._owners: dict[str, MetricSource] = {}
        self._names: dict[tuple[int, str], str] = {}

    def rename(self, source: MetricSource, values: dict[str, float]) -> dict[str, float]:
        """Return the values under the names that belong to ``source``."""
        return {self._name(source, key): value for key, value in values.items()}

    def _name(self, source: MetricSource, key: str) -> str:
        known = self._names.get((id(source), key))
        if known is not None:
            return known
        name, number = key, 1
        while self._owners.setdefault(name, source) is not source:
            name = f"{source.label}/{key}" if number == 1 else f"{source.label}-{number}/{key}"
            number += 1
        self._names[id(source), key] = name
        return name
