"""A spec type as a flat list of its fields, nested groups included; the common ground of decoding and of forms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import inspect

from core.contracts.specs import RunSpec


@dataclass(frozen=True, slots=True)
class SpecField:
    """One leaf field of a spec.

    Attributes:
        path: Names from the spec down, such as ``("launch", "threads")``.
        type: Its type without description and without ``None``.
        meta: Title, description, unit and the other keys of its ``Meta``.
        optional: ``None`` is allowed.
        default: Its default, ``msgspec.NODEFAULT`` when it must be given.
        annotation: The type as declared, to convert values with.
    """

    path: tuple[str, ...]
    type: inspect.Type
    meta: dict[str, Any]
    optional: bool
    default: Any
    annotation: Any

    @property
    def dotted(self) -> str:
        """Path as text, such as ``launch.threads``."""
        return ".".join(self.path)

    @property
    def path_kind(self) -> str:
        """``file`` or ``folder`` when the text names one, else empty."""
        return str(self.meta.get("path", ""))


def _strip(declared: inspect.Type) -> tuple[inspect.Type, dict[str, Any], bool]:
    """Take description and ``None`` off a declared type."""
    meta: dict[str, Any] = {}
    optional = False
    current = declared
    while True:
        if isinstance(current, inspect.Metadata):
            meta = {**(current.extra_json_schema or {}), **meta}
            current = current.type
        elif isinstance(current, inspect.UnionType) and any(isinstance(t, inspect.NoneType) for t in current.types):
            optional = True
            rest = tuple(t for t in current.types if not isinstance(t, inspect.NoneType))
            current = rest[0] if len(rest) == 1 else inspect.UnionType(types=rest)
            if len(rest) > 1:
                return current, meta, optional
        else:
            return current, meta, optional


def default_of(field: inspect.Field) -> Any:
    """Return a field's default value, made fresh when it has a factory."""
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default


def spec_fields(spec_type: type[msgspec.Struct], prefix: tuple[str, ...] = ()) -> Iterator[SpecField]:
    """Yield every leaf field of a spec type, nested structs entered, in the order declared (``RunSpec``'s own last)."""
    info = inspect.type_info(spec_type)
    assert isinstance(info, inspect.StructType)
    annotations = {field.name: field.type for field in msgspec.structs.fields(spec_type)}
    common = {field.name for field in msgspec.structs.fields(RunSpec)} if not prefix else set[str]()
    for field in sorted(info.fields, key=lambda f: f.name in common):
        inner, meta, optional = _strip(field.type)
        path = (*prefix, field.encode_name)
        if isinstance(inner, inspect.StructType) and not optional:
            yield from spec_fields(inner.cls, path)
        else:
            yield SpecField(path, inner, meta, optional, default_of(field), annotations[field.name])
