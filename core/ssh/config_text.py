"""The text of an ssh config: its ``Include`` lines followed, its ``Match`` blocks left out, and its aliases.

For where OpenSSH is not asked. Never raises: a file that cannot be read counts as empty, a bad line as a comment.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

_LINE = re.compile(r'\s*"?(?P<keyword>[A-Za-z]+)"?\s*(?:=\s*|\s+)(?P<value>\S.*)')
_MAX_DEPTH = 16


def without_match_blocks(path: Path) -> str:
    """Return the config with what it includes, without ``Match`` blocks and lines that are not understood."""
    kept: list[str] = []
    is_left_out = False
    for keyword, value in _lines(path, 0):
        if keyword.lower() in {"host", "match"}:
            is_left_out = keyword.lower() == "match"
        if not is_left_out:
            kept.append(f"{keyword} {value}")
    return "\n".join(kept)


def files_of(path: Path) -> tuple[Path, ...]:
    """Return the config and all files that it includes, whether they exist or not."""
    found: list[Path] = []
    for _ in _lines(path, 0, found):
        pass
    return tuple(found)


def runs_programs(path: Path) -> bool:
    """Return whether what the config says depends on a program that it runs (``Match exec``)."""
    return any(key.lower() == "match" and "exec" in value.lower() for key, value in _lines(path, 0))


def aliases(text: str) -> tuple[str, ...]:
    """Return the names after ``Host`` that are not patterns, each once, in their order."""
    found: dict[str, None] = {}
    for line in text.splitlines():
        keyword, _, value = line.partition(" ")
        if keyword.lower() == "host":
            found.update(dict.fromkeys(name for name in words(value) if not set("*?!") & set(name)))
    return tuple(found)


def words(value: str) -> list[str]:
    """Split a value at spaces, quotes respected."""
    try:
        return shlex.split(value)
    except ValueError:
        return value.split()


def _lines(path: Path, depth: int, files: list[Path] | None = None) -> Iterator[tuple[str, str]]:
    """Yield keywords and values; the files that they come from are added to ``files``."""
    if files is not None:
        files.append(path)
    try:
        text = path.read_text("utf-8", "surrogateescape")
    except OSError:
        return
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None or line.lstrip().startswith("#"):
            continue
        value = match["value"].strip()
        if match["keyword"].lower() != "include":
            if _is_understood(value):
                yield match["keyword"], value
        elif depth < _MAX_DEPTH:
            for pattern in words(value):
                for included in _included(pattern):
                    yield from _lines(included, depth + 1, files)


def _is_understood(value: str) -> bool:
    """Paramiko refuses the whole file for one unbalanced quote."""
    return value.count('"') % 2 == 0


def _included(pattern: str) -> list[Path]:
    """Return the files that a pattern means; relative ones are meant relative to ``~/.ssh``."""
    path = Path(pattern).expanduser()
    path = path if path.is_absolute() else Path.home() / ".ssh" / path
    return sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
