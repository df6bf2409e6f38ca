"""What can be told of a user's training file without running it: its functions, and its settings as values."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path

from core.contracts.errors import FieldProblem

REQUIRED = ("model", "data", "loss")

Setting = bool | int | float | str


def as_settings(settings: Mapping[str, str]) -> dict[str, Setting]:
    """Return settings with numbers and truth values in the place of their text: ``"32"`` becomes 32, ``"true"`` True."""
    return {name: _value(text) for name, text in settings.items()}


def _value(text: str) -> Setting:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def _names(tree: ast.Module) -> set[str]:
    """Return the names that a module binds at its top level, as far as plain statements tell."""
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


def check_file(path: Path, field: str) -> tuple[FieldProblem, ...]:
    """Return what keeps a file from being a custom training, without running it; never raises.

    Args:
        path: The file.
        field: Name of the spec's field, for the problem.
    """
    try:
        tree = ast.parse(path.read_bytes(), filename=str(path))
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}."
        return (FieldProblem(field=field, message=message, hint="Name the Python file of the training."),)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        message = f"{path}{f', line {line}' if line else ''}: {getattr(error, 'msg', error)}."
        return (FieldProblem(field=field, message=message, hint="Correct the file."),)
    names = _names(tree)
    if "*" in names:
        return ()
    missing = [name for name in REQUIRED if name not in names]
    if not missing:
        return ()
    message = f"{path} defines no {' and no '.join(missing)}."
    hint = "It needs the functions model(settings), data(settings) and loss(outputs, batch)."
    return (FieldProblem(field=field, message=message, hint=hint),)
