"""Turns TOML or form values into a checked spec and back, naming every problem at once with its field and remedy."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import msgspec
import tomli_w

from core.contracts.errors import FieldProblem, InvalidSpec
from core.contracts.kinds import RunKind
from core.contracts.specs import RunSpec
from core.plugins.fields import SpecField, spec_fields
from core.plugins.registry import Registry, registry

_KINDS_OF_VALUE = {
    "int": "a whole number",
    "float": "a number",
    "str": "text in quotes",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
    "null": "nothing",
}
_EXPECTED = re.compile(r"Expected `([^`]+)`(?:, got `([^`]+)`)?(.*)")
MISSING = object()


def _say(kind: str) -> str:
    return " or ".join(_KINDS_OF_VALUE.get(part.strip(), part.strip()) for part in kind.split("|"))


def explain(error: msgspec.ValidationError, value: object) -> str:
    """Return msgspec's complaint about one value as a sentence for people."""
    text = str(error).partition(" - at `")[0]
    match = _EXPECTED.match(text)
    if match is None:
        return f"{value!r} is not allowed: {text[0].lower()}{text[1:]}."
    expected, got, rest = match.groups()
    if got is not None:
        return f"must be {_say(expected)}, not {_say(got)} ({value!r})."
    bound = rest.replace(">=", "at least").replace("<=", "at most").replace(">", "more than").replace("<", "less than")
    return f"must be {_say(expected)} {bound.strip()}; {value!r} is not."


def _choices(field: SpecField) -> str:
    values = getattr(field.type, "values", ())
    return f"Use one of: {', '.join(str(v) for v in values)}." if values else ""


def _lookup(mapping: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    current: Any = mapping
    for name in path:
        if not isinstance(current, Mapping) or name not in current:
            return MISSING
        current = cast("Any", current)[name]
    return current


def _put(tree: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
    tree[path[-1]] = value


def _unknown_keys(mapping: Mapping[str, Any], fields: list[SpecField], prefix: tuple[str, ...]) -> list[FieldProblem]:
    """Find keys that no field has, and tables where a value belongs or the reverse."""
    known = {field.path[len(prefix)] for field in fields if field.path[: len(prefix)] == prefix}
    leaves = {field.path for field in fields}
    problems: list[FieldProblem] = []
    for key, value in mapping.items():
        path = (*prefix, key)
        if key == "kind" and not prefix:
            continue
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known here: {', '.join(sorted(known))}."
            problems.append(FieldProblem(field=".".join(path), message="is not a known field.", hint=hint))
        elif path not in leaves:
            if isinstance(value, Mapping):
                problems += _unknown_keys(cast("Mapping[str, Any]", value), fields, path)
            else:
                problems.append(FieldProblem(field=".".join(path), message=f"must be a table, not {value!r}."))
    return problems


def _resolve_path(field: SpecField, value: Any, folder: Path | None) -> Any:
    """Make a relative path absolute against the spec's own folder.

    What is no path stays: URLs, the field's fixed ``names``, and, where the field takes a path ``or_name`` (such as that
    of a model on the Hub), all that does not begin with ``.``, ``/`` or ``~``.
    """
    if not field.path_kind or not isinstance(value, str) or not value or folder is None:
        return value
    if value in field.meta.get("names", ()) or "://" in value:
        return value
    if field.meta.get("or_name") and not value.startswith((".", "/", "~")):
        return value
    try:
        expanded = Path(value).expanduser()
    except RuntimeError:  # "~somebody", and there is no such user
        expanded = Path(value)
    return str(expanded if expanded.is_absolute() else (folder / expanded).absolute())


def _convert(field: SpecField, value: Any) -> tuple[Any, FieldProblem | None]:
    try:
        return msgspec.convert(value, field.annotation, strict=True), None
    except msgspec.ValidationError as error:
        return None, FieldProblem(field=field.dotted, message=explain(error, value), hint=_choices(field))


def _kind_of(mapping: Mapping[str, Any], kinds: Registry) -> RunKind:
    tag = mapping.get("kind")
    if isinstance(tag, str) and tag in kinds.kinds:
        return kinds.kinds[tag]
    known = sorted(kinds.kinds)
    near = difflib.get_close_matches(str(tag), known, 1)
    hint = f"Did you mean {near[0]!r}?" if near else f"Use one of: {', '.join(known)}."
    message = "is missing." if tag is None else f"{tag!r} is not a kind of run."
    raise InvalidSpec((FieldProblem(field="kind", message=message, hint=hint),))


def decode_spec(
    mapping: Mapping[str, Any], *, folder: Path | None = None, source: str = "The spec", kinds: Registry | None = None
) -> RunSpec:
    """Return the spec that a mapping describes, defaults filled in.

    Args:
        mapping: Nested plain values with a ``kind``.
        folder: Relative paths are resolved against it; None leaves them.
        source: Names the whole in the error, such as a file's name.
        kinds: The registry to look the kind up in.

    Raises:
        InvalidSpec: Lists every problem found, each with its field.
    """
    kind = _kind_of(mapping, kinds or registry())
    fields = list(spec_fields(kind.spec))
    problems = _unknown_keys(mapping, fields, ())
    tree: dict[str, Any] = {}
    for field in fields:
        value = _resolve_path(field, _lookup(mapping, field.path), folder)
        if value is MISSING:
            if field.default is msgspec.NODEFAULT:
                problems.append(FieldProblem(field=field.dotted, message="is missing.", hint=_choices(field)))
            continue
        converted, problem = _convert(field, value)
        if problem is None:
            _put(tree, field.path, converted)
        else:
            problems.append(problem)
    if problems:
        raise InvalidSpec(tuple(problems), source)
    try:
        return msgspec.convert({"kind": mapping["kind"], **msgspec.to_builtins(tree)}, kind.spec)
    except msgspec.ValidationError as error:
        raise InvalidSpec((FieldProblem(field="", message=f"{error}."),), source) from error


def parse_toml(text: str, source: str = "The spec") -> dict[str, Any]:
    """Return the tables of a TOML text.

    Raises:
        InvalidSpec: It is no TOML; the sentence gives line and column.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problem = FieldProblem(field="", message=f"it is not valid TOML: {error}.", hint="Correct that line.")
        raise InvalidSpec((problem,), source) from error


def read_spec(path: Path, kinds: Registry | None = None) -> RunSpec:
    """Return the spec in a TOML file; relative paths in it are taken from the file's folder.

    Raises:
        InvalidSpec: Missing, unreadable, not TOML, or with wrong fields; every problem is listed.
    """
    source = f"The spec {str(path)!r}"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        problem = FieldProblem(field="", message=f"it cannot be read: {reason}.", hint="Check the path.")
        raise InvalidSpec((problem,), source) from error
    return decode_spec(parse_toml(text, source), folder=path.absolute().parent, source=source, kinds=kinds)


def encode_spec(spec: RunSpec) -> str:
    """Return a spec as TOML, complete: defaults are written out, absent values left out."""
    return tomli_w.dumps(_without_none(msgspec.to_builtins(spec)))


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in cast("dict[str, Any]", value).items() if item is not None}
    return value
