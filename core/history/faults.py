"""Which failure of SQLite means what to the user; everything not named here is a bug of ours and goes on as it is."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from core.contracts.errors import EnvironmentProblem
from core.history.blocks import DamagedBlock

_PRIMARY = 0xFF
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_SENTENCES: dict[int, tuple[str, str]] = {
    sqlite3.SQLITE_BUSY: (
        "The history {path} is held by another program.",
        "Close other Pilothouse windows and commands that are stuck, then try again.",
    ),
    sqlite3.SQLITE_FULL: (
        "The disk is full: the history {path} cannot be written.",
        "Free space on that disk; no run is lost, its directory holds everything.",
    ),
    sqlite3.SQLITE_READONLY: (
        "The history {path} cannot be written.",
        "Give yourself permission to write to the file and its folder.",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        "The history {path} cannot be opened.",
        "Check that its folder exists and that you may write to it.",
    ),
    sqlite3.SQLITE_IOERR: (
        "The disk failed while the history {path} was used.",
        "Check the disk (full, unplugged or broken); no run is lost, its directory holds everything.",
    ),
}
_SENTENCES[sqlite3.SQLITE_LOCKED] = _SENTENCES[sqlite3.SQLITE_BUSY]
_SENTENCES[sqlite3.SQLITE_PERM] = _SENTENCES[sqlite3.SQLITE_READONLY]


def _code_of(error: BaseException) -> int:
    original = error.orig if isinstance(error, DBAPIError) else error
    return getattr(original, "sqlite_errorcode", 0) & _PRIMARY


def is_damage(error: BaseException) -> bool:
    """Tell whether an error means that the file itself is damaged."""
    return isinstance(error, DamagedBlock) or _code_of(error) in _DAMAGED


def is_busy(error: BaseException) -> bool:
    """Tell whether somebody else held the file for too long."""
    return _code_of(error) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def problem_of(error: BaseException, path: Path) -> EnvironmentProblem | None:
    """Return the problem of the machine behind an error of SQLite; None when it is a bug of ours."""
    if _code_of(error) not in _SENTENCES:
        return None
    message, hint = _SENTENCES[_code_of(error)]
    return EnvironmentProblem(message.format(path=repr(str(path))), hint)


def folder_problem(path: Path, error: OSError) -> EnvironmentProblem:
    """Return the problem of a folder that cannot hold the history."""
    return EnvironmentProblem(
        f"The folder {str(path.parent)!r} cannot hold the history: {error.strerror or error}.",
        "Make it a folder that you may write to, or set PILOTHOUSE_HOME to another one.",
    )
