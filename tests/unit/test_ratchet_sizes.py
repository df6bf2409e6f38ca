"""Keeps modules within 500 lines and functions within 60; what is longer is listed with a reason and may only shrink."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("app", "core", "packaging", "native", "tests", "resources")
MODULE_LINES = 500
FUNCTION_LINES = 60
EXCEPTIONS = Path(__file__).with_name("size_exceptions.toml")


def functions(tree: ast.AST, scope: str = "") -> Iterator[tuple[str, int]]:
    """Yield the qualified name and the number of lines of every function."""
    for node in ast.iter_child_nodes(tree):
        inner = scope
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inner = f"{scope}.{node.name}" if scope else node.name
            if not isinstance(node, ast.ClassDef):
                yield inner, (node.end_lineno or node.lineno) - node.lineno + 1
        yield from functions(node, inner)


def oversized(text: str, name: str) -> dict[str, int]:
    """Return what is too long in one module, by ``path`` or ``path:function``."""
    lines = text.count("\n")
    found = {name: lines} if lines > MODULE_LINES else {}
    for function, length in functions(ast.parse(text)):
        if length > FUNCTION_LINES:
            found[f"{name}:{function}"] = length
    return found


def all_oversized() -> dict[str, int]:
    found: dict[str, int] = {}
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            found |= oversized(path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix())
    return found


def complaints(found: dict[str, int], listed: dict[str, dict[str, object]]) -> list[str]:
    """Return a sentence for each difference between what is too long and what is listed."""
    said: list[str] = []
    for name, lines in found.items():
        if name not in listed:
            limit = FUNCTION_LINES if ":" in name else MODULE_LINES
            said.append(f"{name} has {lines} lines; at most {limit} are allowed: split it")
        elif lines > int(str(listed[name]["lines"])):
            said.append(f"{name} grew to {lines} lines; the listed {listed[name]['lines']} may only shrink")
        elif lines < int(str(listed[name]["lines"])):
            said.append(f"{name} shrank to {lines} lines: lower its number in {EXCEPTIONS.name}")
    said += [f"{name} is small enough now: take it off {EXCEPTIONS.name}" for name in listed if name not in found]
    said += [f"{name} is listed without a reason" for name, entry in listed.items() if not entry.get("reason")]
    return said


def test_modules_and_functions_keep_their_size() -> None:
    listed = tomllib.loads(EXCEPTIONS.read_text(encoding="utf-8"))
    assert not complaints(all_oversized(), listed), "\n" + "\n".join(complaints(all_oversized(), listed))


def test_a_long_function_in_a_class_is_found_by_name() -> None:
    body = "\n".join("        pass" for _ in range(FUNCTION_LINES))
    text = f"class Page:\n    def show(self):\n{body}\n"
    assert oversized(text, "app/x.py") == {"app/x.py:Page.show": FUNCTION_LINES + 1}


def test_a_long_module_is_found() -> None:
    assert oversized("x = 1\n" * (MODULE_LINES + 1), "app/x.py") == {"app/x.py": MODULE_LINES + 1}
    assert oversized("x = 1\n" * MODULE_LINES, "app/x.py") == {}


@pytest.mark.parametrize(
    ("found", "entry", "word"),
    [
        ({"a.py": 510}, None, "split it"),
        ({"a.py": 510}, {"lines": 505, "reason": "r"}, "grew"),
        ({"a.py": 510}, {"lines": 520, "reason": "r"}, "lower its number"),
        ({}, {"lines": 520, "reason": "r"}, "take it off"),
        ({"a.py": 510}, {"lines": 510}, "without a reason"),
    ],
)
def test_the_ratchet_turns_one_way(found: dict[str, int], entry: dict[str, object] | None, word: str) -> None:
    (said,) = complaints(found, {"a.py": entry} if entry else {})
    assert word in said


def test_an_exact_entry_is_quiet() -> None:
    assert complaints({"a.py": 510}, {"a.py": {"lines": 510, "reason": "r"}}) == []
