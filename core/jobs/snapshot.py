"""Copies the code of a run that will wait in a queue into its run directory, so that later changes do not touch it."""

from __future__ import annotations

import fnmatch
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from core.contracts.errors import UserError
from core.contracts.placement import CopiedPath

CODE_FOLDER = "code"
LIMIT_BYTES = 512 << 20
LIMIT_FILES = 50_000


def _ignored(exclude: tuple[str, ...]) -> Callable[[str, list[str]], set[str]]:
    def ignored(_: str, names: list[str]) -> set[str]:
        return {name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in exclude)}

    return ignored


def _sizes(folder: Path, exclude: tuple[str, ...]) -> Iterable[int]:
    """Yield the size in bytes of each file that is to be copied."""
    ignored = _ignored(exclude)
    for parent, folders, files in os.walk(folder):
        left_out = ignored(parent, [*folders, *files])
        folders[:] = [name for name in folders if name not in left_out]
        for name in files:
            if name not in left_out:
                yield (Path(parent) / name).lstat().st_size


def _check_size(folder: Path, exclude: tuple[str, ...]) -> None:
    total = 0
    for count, size in enumerate(_sizes(folder, exclude), start=1):
        total += size
        if total > LIMIT_BYTES or count > LIMIT_FILES:
            raise UserError(
                f"The code's folder {str(folder)!r} is too large to be copied for the queue.",
                "Move the code into a folder of its own, leave more out (launch.exclude), or set launch.copy_code to shared.",
            )


def snapshot_code(folder: str, run_dir: Path, run_id: str, exclude: tuple[str, ...]) -> CopiedPath:
    """Copy the folder to ``<run_dir>/code``; links stay links.

    Args:
        folder: The code's folder, absolute.
        run_dir: Where to; may be a temporary name of the run directory.
        run_id: The run, for the path that the copy will have in the home folder.
        exclude: Patterns of names that are left out.

    Raises:
        UserError: It is too large.
        OSError: It cannot be read or written.
    """
    source = Path(folder)
    _check_size(source, exclude)
    shutil.copytree(source, run_dir / CODE_FOLDER, symlinks=True, ignore=_ignored(exclude))
    return CopiedPath(here=str(source), there=f"runs/{run_id}/{CODE_FOLDER}")
