"""Checkpoint folders: written under a temporary name, hashed, renamed, and only then older ones removed.

``MANIFEST.json`` inside a checkpoint holds the hash of its other files; a checkpoint that does not hash to it is
never resumed from.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from pathlib import Path

import msgspec

MANIFEST = "MANIFEST.json"
_PREFIX = "step-"
_PARTIAL = ".partial-"
_REPLACED = ".replaced-"
_BLOCK_BYTES = 1 << 20


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a verified checkpoint says of itself."""

    step: int
    sha256: str
    size_bytes: int
    ts: float


def hash_path(path: Path) -> tuple[str, int]:
    """Return SHA-256 and size in bytes of a file, or of a folder's names and contents (the manifest left out)."""
    if path.is_file():
        return _hash_file(path)
    digest = hashlib.sha256()
    size = 0
    for file in sorted(p for p in path.rglob("*") if p.is_file() and p.name != MANIFEST):
        file_hash, file_size = _hash_file(file)
        digest.update(f"{file.relative_to(path).as_posix()}\0{file_hash}\n".encode())
        size += file_size
    return digest.hexdigest(), size


def _hash_file(path: Path) -> tuple[str, int]:
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            size += len(block)
    return digest.hexdigest(), size


def sync_path(path: Path) -> None:
    """Wait until a file, or a folder and all in it, is on the disk."""
    for entry in [path, *path.rglob("*")] if path.is_dir() else [path]:
        descriptor = os.open(entry, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def begin(checkpoints: Path, step: int) -> Path:
    """Return an empty temporary folder for the checkpoint of ``step``; leftovers of a crash, of any step, are cleared."""
    for leftover in checkpoints.glob(f"{_PARTIAL}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    partial = checkpoints / f"{_PARTIAL}{step:010d}"
    partial.mkdir(parents=True)
    return partial


def commit(checkpoints: Path, step: int) -> tuple[Path, Manifest]:
    """Seal the folder of ``begin`` and move it into place; one of the same step is replaced."""
    partial = checkpoints / f"{_PARTIAL}{step:010d}"
    sha256, size = hash_path(partial)
    manifest = Manifest(step=step, sha256=sha256, size_bytes=size, ts=time.time())
    (partial / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    sync_path(partial)
    final = checkpoints / f"{_PREFIX}{step:010d}"
    # An older one of the same step is moved aside first: at every moment one of the two has the final name's content.
    aside = checkpoints / f"{_REPLACED}{step:010d}"
    shutil.rmtree(aside, ignore_errors=True)
    if final.exists():
        final.rename(aside)
    partial.rename(final)
    sync_path_entry(checkpoints)
    shutil.rmtree(aside, ignore_errors=True)
    return final, manifest


def sync_path_entry(folder: Path) -> None:
    """Make a rename inside a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def all_checkpoints(checkpoints: Path) -> list[tuple[Path, Manifest]]:
    """Return the sealed checkpoints, newest step first; not verified."""
    found: list[tuple[Path, Manifest]] = []
    for folder in sorted(checkpoints.glob(f"{_PREFIX}*"), reverse=True):
        try:
            found.append((folder, read_manifest(folder)))
        except (OSError, msgspec.MsgspecError):
            continue
    return found


def read_manifest(folder: Path) -> Manifest:
    """Return what a sealed checkpoint says of itself.

    Raises:
        OSError, MsgspecError: It cannot be read.
    """
    return msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)


def is_intact(folder: Path, manifest: Manifest) -> bool:
    """Tell whether a checkpoint's files still hash as its manifest says."""
    try:
        return hash_path(folder) == (manifest.sha256, manifest.size_bytes)
    except OSError:
        return False
