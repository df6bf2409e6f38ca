"""Finds what a script writes its metrics into: files below the watched places that are new or changed since the start."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_SKIPPED_FOLDERS = frozenset({"__pycache__", "node_modules", "site-packages", "wandb", "venv"})
_MAX_ENTRIES = 20_000
_MAX_DEPTH = 8
TRAINER_STATE = "trainer_state.json"


@dataclass(frozen=True, slots=True)
class _Seen:
    size: int
    mtime_ns: int


def is_tensorboard(path: Path) -> bool:
    """Tell whether a file is a TensorBoard event file, by its name."""
    return ".tfevents." in path.name


def _is_wanted(name: str) -> bool:
    return ".tfevents." in name or name == TRAINER_STATE or name.lower().endswith((".csv", ".tsv"))


def _walk(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield wanted files below a folder, at most a bounded number of entries and levels deep."""
    pending = [(str(root), 0)]
    entries = 0
    while pending and entries < _MAX_ENTRIES:
        folder, depth = pending.pop()
        try:
            found = list(os.scandir(folder))
        except OSError:
            continue
        entries += len(found)
        for entry in found:
            yield from _visit(entry, depth, pending)


def _visit(
    entry: os.DirEntry[str], depth: int, pending: list[tuple[str, int]]
) -> Iterator[tuple[Path, os.stat_result]]:
    try:
        if entry.is_dir(follow_symlinks=False):
            if depth < _MAX_DEPTH and entry.name not in _SKIPPED_FOLDERS and not entry.name.startswith("."):
                pending.append((entry.path, depth + 1))
        elif _is_wanted(entry.name):
            yield Path(entry.path), entry.stat()
    except OSError:
        return


class Discovery:
    """Files of interest below some places, compared with how they were when this object was made.

    Args:
        places: Folders to search, or files that are of interest whatever they are called.
    """

    def __init__(self, places: Iterable[Path]) -> None:
        self._places = tuple(dict.fromkeys(places))
        self._before = {path: _Seen(status.st_size, status.st_mtime_ns) for path, status in self._scan()}

    def size_before(self, path: Path) -> int:
        """Return how large a file was at the start; 0 when it was not there."""
        seen = self._before.get(path)
        return 0 if seen is None else seen.size

    def is_named(self, path: Path) -> bool:
        """Tell whether the file itself was given as a place."""
        return path in self._places

    def changed(self) -> list[Path]:
        """Return the files that are new or changed since the start, sorted."""
        return sorted(
            path for path, status in self._scan() if self._before.get(path) != _Seen(status.st_size, status.st_mtime_ns)
        )

    def _scan(self) -> Iterator[tuple[Path, os.stat_result]]:
        for place in self._places:
            try:
                if place.is_file():
                    yield place, place.stat()
                    continue
            except OSError:
                continue
            yield from _walk(place)
