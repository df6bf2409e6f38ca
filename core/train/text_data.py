"""Text as bytes in two parts: whole files held out for validation, the rest to train on.

Sources: the Python standard library's own source (real text that every machine has), a file, or a folder. The list
of files and the split are deterministic.
"""

from __future__ import annotations

import hashlib
import os
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from core.contracts.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

STDLIB = "stdlib"
TEXT_SUFFIXES = frozenset(
    {".c", ".cc", ".cpp", ".csv", ".h", ".html", ".java", ".js", ".json", ".md", ".py", ".rs", ".rst", ".tex", ".txt"}
)
MAX_BYTES = 1 << 30
_SKIPPED_FOLDERS = frozenset({"__pycache__", "site-packages", "dist-packages", "node_modules"})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TextParts:
    """The text as uint8 arrays, files separated by a zero byte."""

    train: NDArray[np.uint8]
    validation: NDArray[np.uint8]
    num_files: int


def list_texts(source: str) -> list[Path]:
    """Return the text files of a source, sorted.

    Raises:
        OSError: The path cannot be listed.
    """
    if source == STDLIB:
        return _walk(Path(sysconfig.get_path("stdlib")), frozenset({".py"}), _SKIPPED_FOLDERS | {"test", "tests"})
    root = Path(source).expanduser()
    if root.is_file():
        return [root]
    return _walk(root, TEXT_SUFFIXES, _SKIPPED_FOLDERS)


def _walk(root: Path, suffixes: frozenset[str], skipped: frozenset[str]) -> list[Path]:
    found: list[Path] = []

    def refuse(error: OSError) -> None:
        raise error

    for folder, subfolders, names in os.walk(root, onerror=refuse):
        subfolders[:] = [name for name in subfolders if name not in skipped and not name.startswith(".")]
        found += [Path(folder, name) for name in names if Path(name).suffix.lower() in suffixes]
    return sorted(found)


def _is_held_out(name: str, fraction: float) -> bool:
    """Decide by a hash of the file's name, so that adding a file moves no other between the parts."""
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    return number / 2**64 < fraction


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"The text {path} cannot be read: {error.strerror}.", "Check its permissions or remove it."
        ) from error


def _as_array(pieces: list[bytes]) -> NDArray[np.uint8]:
    return np.frombuffer(b"\0".join(pieces), dtype=np.uint8)


def load_text(source: str, validation_fraction: float, max_bytes: int) -> TextParts:
    """Read a source into two parts.

    A source of one or two files is cut at the end instead of by file.

    Args:
        source: ``stdlib``, a file or a folder.
        validation_fraction: Share of the files (or of the text) held out.
        max_bytes: Reading stops after this much.

    Raises:
        UserError: Nothing there, or a file cannot be read.
    """
    try:
        files = list_texts(source)
    except OSError as error:
        raise UserError(f"{source} cannot be read: {error.strerror}.", "Choose a text file or a folder.") from error
    train: list[bytes] = []
    held_out: list[bytes] = []
    total = 0
    for path in files:
        text = _read(path)[: max_bytes - total]
        total += len(text)
        (held_out if len(files) > 2 and _is_held_out(path.name, validation_fraction) else train).append(text)
        if total >= max_bytes:
            break
    if not held_out or not train:
        whole = b"\0".join(train or held_out)
        cut = len(whole) - int(len(whole) * validation_fraction)
        train, held_out = [whole[:cut]], [whole[cut:]]
    return TextParts(train=_as_array(train), validation=_as_array(held_out), num_files=len(files))
