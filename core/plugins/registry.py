"""Finds every kind of run: one module per kind in the scanned packages, and third parties by entry point.

A module that fails to import does not take the others down: it is kept as a broken kind with its sentence.
Importing a kind's module is cheap by rule: heavy libraries are imported inside its ``run`` only.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points

from core.contracts.errors import UserError
from core.contracts.kinds import RunKind

SCANNED_PACKAGES = ("core.train.tasks", "core.compress.methods", "core.infer.tasks", "core.pipeline.recipes")
ENTRY_POINT_GROUP = "pilothouse.kinds"


def tag_of(kind: RunKind) -> str:
    """Return the kind's name as it stands in a spec, such as ``train.image``."""
    return str(kind.spec.__struct_config__.tag)


@dataclass(frozen=True, slots=True)
class BrokenKind:
    """A module that should declare a kind and could not be imported."""

    module: str
    reason: str


@dataclass(slots=True)
class Registry:
    """All kinds by tag, in the order found."""

    kinds: dict[str, RunKind] = field(default_factory=dict[str, RunKind])
    broken: list[BrokenKind] = field(default_factory=list[BrokenKind])

    def get(self, tag: str) -> RunKind:
        """Return the kind with this tag; UserError naming those there are."""
        if tag in self.kinds:
            return self.kinds[tag]
        raise UserError(f"There is no kind of run called {tag!r}.", f"Use one of: {', '.join(sorted(self.kinds))}.")

    def add(self, kind: RunKind) -> None:
        """Add one kind."""
        self.kinds[tag_of(kind)] = kind

    def load(self, module: str) -> None:
        """Import a module and add the kind it declares, or remember why that failed."""
        try:
            loaded = importlib.import_module(module)
            kind = loaded.KIND
            if not isinstance(kind, RunKind):
                raise TypeError(f"{module}.KIND is not a RunKind")
        except Exception as error:  # noqa: BLE001 - a third party's module may raise anything
            self.broken.append(BrokenKind(module, f"{type(error).__name__}: {error}"))
        else:
            self.add(kind)


@cache
def registry() -> Registry:
    """Return the registry of this process, scanned once."""
    found = Registry()
    for package in SCANNED_PACKAGES:
        for info in pkgutil.iter_modules(importlib.import_module(package).__path__):
            if not info.name.startswith("_"):
                found.load(f"{package}.{info.name}")
    for point in entry_points(group=ENTRY_POINT_GROUP):
        found.load(point.value.partition(":")[0])
    return found
