"""Moves the paths of a spec to where a node has them: what was copied lies elsewhere on each host."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any, TypeVar, cast

import msgspec

from core.contracts.placement import Placement
from core.contracts.specs import RunSpec

_OWN = frozenset(field.name for field in msgspec.structs.fields(RunSpec)) | {"kind"}
Spec = TypeVar("Spec", bound=RunSpec)


def relocated(spec: Spec, placement: Placement, node: str) -> Spec:
    """Return the spec as a node is to carry it out: paths that are, or lie below, a copied one are those of the copy.

    A text such as ``--data=/path`` is moved behind its ``=``. Names, labels and launch settings stay as they are.

    Args:
        spec: What was asked on the launching machine.
        placement: What was copied where.
        node: The node that carries it out.

    Raises:
        KeyError: The placement has no such node.
    """
    work_dir = PurePosixPath(placement.of(node).work_dir)
    moves = sorted(
        ((PurePosixPath(copied.here), work_dir / copied.there) for copied in placement.copies),
        key=lambda move: len(move[0].parts),
        reverse=True,
    )
    if not moves:
        return spec
    tree = cast("dict[str, Any]", msgspec.to_builtins(spec))
    moved = {name: value if name in _OWN else _moved(value, moves) for name, value in tree.items()}
    return msgspec.convert(moved, type(spec))


def _moved(value: Any, moves: list[tuple[PurePosixPath, PurePosixPath]]) -> Any:
    if isinstance(value, str):
        return _moved_text(value, moves)
    if isinstance(value, list | tuple):
        return [_moved(item, moves) for item in cast("list[Any]", value)]
    if isinstance(value, dict):
        return {key: _moved(item, moves) for key, item in cast("dict[str, Any]", value).items()}
    return value


def _moved_text(text: str, moves: list[tuple[PurePosixPath, PurePosixPath]]) -> str:
    name, sign, rest = text.partition("=")
    if sign and not text.startswith("/"):
        return f"{name}={_moved_path(rest, moves)}"
    return _moved_path(text, moves)


def _moved_path(text: str, moves: list[tuple[PurePosixPath, PurePosixPath]]) -> str:
    if not text.startswith("/"):
        return text
    path = PurePosixPath(text)
    for here, there in moves:
        if path.is_relative_to(here):
            return str(there / path.relative_to(here))
    return text
