"""Derives forms from spec types, and specs from form values; the one source of labels, help, bounds and units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import msgspec
from msgspec import inspect

from core.contracts.forms import FieldCondition, FieldKind, FormField, FormValue, RunKindInfo
from core.contracts.kinds import RunKind
from core.contracts.specs import RunSpec
from core.plugins.fields import SpecField, spec_fields
from core.plugins.registry import tag_of

_COMMON_SECTION = "Run"
_LAUNCH_SECTION = "Processes"


def _editor(field: SpecField) -> FieldKind:
    by_path = {"file": FieldKind.FILE, "folder": FieldKind.FOLDER}.get(field.path_kind)
    if by_path is not None:
        return by_path
    match field.type:
        case inspect.BoolType():
            return FieldKind.SWITCH
        case inspect.IntType():
            return FieldKind.INTEGER
        case inspect.FloatType():
            return FieldKind.NUMBER
        case inspect.LiteralType() | inspect.EnumType():
            return FieldKind.CHOICE
        case inspect.ListType() | inspect.VarTupleType() | inspect.TupleType():
            return FieldKind.LIST
        case inspect.DictType():
            return FieldKind.MAPPING
        case _:
            return FieldKind.TEXT


def _section(field: SpecField) -> str:
    if "section" in field.meta:
        return str(field.meta["section"])
    if len(field.path) > 1:
        group = field.path[-2]
        return _LAUNCH_SECTION if group == "launch" else group.replace("_", " ").capitalize()
    return _COMMON_SECTION if field.dotted in RunSpec.__struct_fields__ else ""


def _condition(field: SpecField) -> FieldCondition | None:
    """Return the ``shown_if`` of a field's ``extra_json_schema``: ``{"field": path, "in": [...], "above": n, "filled": true}``."""
    told = field.meta.get("shown_if")
    if told is None:
        return None
    return FieldCondition(
        path=told["field"],
        values=tuple(told.get("in", ())),
        above=told.get("above"),
        is_filled=bool(told.get("filled", False)),
    )


def _form_field(field: SpecField) -> FormField:
    bounds = field.type if isinstance(field.type, (inspect.IntType, inspect.FloatType)) else None
    low = None if bounds is None else (bounds.ge if bounds.ge is not None else bounds.gt)
    high = None if bounds is None else (bounds.le if bounds.le is not None else bounds.lt)
    choices: tuple[object, ...] = tuple(getattr(field.type, "values", ()))
    default = None if field.default is msgspec.NODEFAULT else msgspec.to_builtins(field.default)
    return FormField(
        path=field.dotted,
        kind=_editor(field),
        label=str(field.meta.get("title", field.path[-1].replace("_", " ").capitalize())),
        description=str(field.meta.get("description", "")),
        default=cast("FormValue", list(default) if isinstance(default, tuple) else default),
        unit=str(field.meta.get("unit", "")),
        minimum=low,
        maximum=high,
        exclusive_minimum=bounds is not None and bounds.gt is not None,
        choices=tuple(str(choice) for choice in choices),
        section=_section(field),
        advanced=bool(field.meta.get("advanced", field.path[0] == "launch")),
        optional=field.optional,
        shown_if=_condition(field),
    )


def form_of(kind: RunKind) -> RunKindInfo:
    """Return a kind with its form."""
    return RunKindInfo(
        kind=tag_of(kind),
        title=kind.title,
        summary=kind.summary,
        icon=kind.icon,
        group=kind.group,
        fields=tuple(_form_field(field) for field in spec_fields(kind.spec)),
        examples=kind.examples,
        spans_nodes=kind.spans_nodes,
    )


def mapping_of(kind: str, values: Mapping[str, FormValue]) -> dict[str, Any]:
    """Return form values (by dotted path) as the nested mapping that ``decode_spec`` takes; None means unset."""
    tree: dict[str, Any] = {"kind": kind}
    for dotted, value in values.items():
        if value is None:
            continue
        *groups, name = dotted.split(".")
        branch = tree
        for group in groups:
            branch = branch.setdefault(group, {})
        branch[name] = value
    return tree


def values_of(spec: RunSpec) -> dict[str, FormValue]:
    """Return a spec as form values by dotted path."""
    tree = msgspec.to_builtins(spec)
    values: dict[str, FormValue] = {}
    for field in spec_fields(type(spec)):
        current: Any = tree
        for name in field.path:
            current = current[name]
        values[field.dotted] = cast("FormValue", list(current) if isinstance(current, tuple) else current)
    return values
