"""What a copied file or folder holds, by content: its files with their hashes, its links and its empty folders.

Surveying reads every file once; hashes of large files are remembered by path, size, time and inode, so that a second
launch does not read the data again. Sending is ``core.fleet.copying``'s work, writing ``core.fleet.receiving``'s.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import stat
from collections.abc import Callable, Generator, Iterable
from pathlib import Path, PurePosixPath

import msgspec

from core.contracts.errors import Cancelled, EnvironmentProblem, UserError

HASH_CHUNK_BYTES = 1 << 20
_REMEMBERED_BYTES = 1 << 20
"""Files from this size on have their hashes remembered."""


class CopiedFile(msgspec.Struct, frozen=True, kw_only=True):
    """One entry.

    Attributes:
        path: Relative to the copied folder, with ``/``; empty where a single file is copied.
        sha256: Of its content; empty for a link or a folder.
        link: Target of a symbolic link within the folder; empty for a file.
        is_folder: An empty folder.
    """

    path: str
    size: int = 0
    sha256: str = ""
    is_executable: bool = False
    link: str = ""
    is_folder: bool = False


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """All that is copied of one file or folder of this machine."""

    here: str
    files: tuple[CopiedFile, ...]

    @property
    def size_bytes(self) -> int:
        """Size of all files."""
        return sum(file.size for file in self.files)

    @property
    def digest(self) -> str:
        """What names the content: equal for equal trees, wherever they lie."""
        return hashlib.sha256(msgspec.json.encode(self.files)).hexdigest()[:20]

    def path_of(self, file: CopiedFile) -> Path:
        """Return where an entry lies on this machine."""
        return Path(self.here, file.path) if file.path else Path(self.here)


class _Remembered(msgspec.Struct, frozen=True, array_like=True):
    """A file's hash and what it held for."""

    size: int
    mtime_ns: int
    inode: int
    sha256: str


class HashMemory:
    """Hashes of large files, kept in a file between launches. One thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._known = msgspec.json.decode(path.read_bytes(), type=dict[str, _Remembered])
        except (OSError, msgspec.MsgspecError):
            self._known = {}
        self._changed = False

    def sha256(self, path: Path, is_cancelled: Callable[[], bool]) -> tuple[str, int]:
        """Return hash and size of a file; EnvironmentProblem when it cannot be read, Cancelled when asked to end."""
        try:
            before = path.stat()
            known = self._known.get(str(path))
            if known is not None and (known.size, known.mtime_ns, known.inode) == (
                before.st_size,
                before.st_mtime_ns,
                before.st_ino,
            ):
                return known.sha256, known.size
            found, size = _hash(path, is_cancelled)
        except OSError as error:
            raise EnvironmentProblem(
                f"{str(path)!r} cannot be read, so it cannot be copied: {error.strerror or error}.",
                "Give yourself permission to read it, or leave it out (launch.exclude).",
            ) from error
        if size >= _REMEMBERED_BYTES:
            self._known[str(path)] = _Remembered(size, before.st_mtime_ns, before.st_ino, found)
            self._changed = True
        return found, size

    def save(self) -> None:
        """Keep what was learnt; where that cannot be written, the files are read again next time."""
        if not self._changed:
            return
        kept = {path: known for path, known in self._known.items() if Path(path).exists()}
        partial = self._path.with_name(f".{self._path.name}.{os.getpid()}.tmp")
        try:
            partial.write_bytes(msgspec.json.encode(kept))
            partial.replace(self._path)
        except OSError:
            partial.unlink(missing_ok=True)


def _hash(path: Path, is_cancelled: Callable[[], bool]) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(HASH_CHUNK_BYTES):
            if is_cancelled():
                raise Cancelled
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size


def survey(
    here: Path,
    exclude: Iterable[str],
    memory: HashMemory,
    *,
    limit_bytes: int | None = None,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> Manifest:
    """Return what a file or folder holds.

    Args:
        here: The file or folder, absolute.
        exclude: Patterns of names, or of paths below the folder, that are left out.
        memory: Hashes known already.
        limit_bytes: More than this is refused; None for no limit.
        is_cancelled: Polled.

    Raises:
        UserError: It is not there, holds a name that is no text, or is larger than the limit.
        EnvironmentProblem: A file cannot be read.
        Cancelled: Asked to end.
    """
    if here.is_file():
        sha256, size = memory.sha256(here, is_cancelled)
        return Manifest(here=str(here), files=(_file("", here, sha256, size),))
    if not here.is_dir():
        raise UserError(f"There is nothing to copy at {str(here)!r}.", "Correct the path, or leave it out.")
    files: list[CopiedFile] = []
    total = 0
    for relative, path in _walk(here, tuple(exclude)):
        if is_cancelled():
            raise Cancelled
        entry = _entry(here, relative, path, memory, is_cancelled)
        if entry is None:
            continue
        total += entry.size
        if limit_bytes is not None and total > limit_bytes:
            raise UserError(
                f"The folder {str(here)!r} is larger than {limit_bytes >> 20} MiB, too large to be copied as code.",
                "Leave out what is no code (launch.exclude), or use a folder that the hosts share (launch.copy_code).",
            )
        files.append(entry)
    return Manifest(here=str(here), files=tuple(sorted(files, key=lambda file: file.path)))


def _file(relative: str, path: Path, sha256: str, size: int) -> CopiedFile:
    is_executable = bool(path.stat().st_mode & stat.S_IXUSR)
    return CopiedFile(path=relative, size=size, sha256=sha256, is_executable=is_executable)


def _entry(
    root: Path, relative: str, path: Path, memory: HashMemory, is_cancelled: Callable[[], bool]
) -> CopiedFile | None:
    """Return one entry; None for what cannot be copied: sockets, pipes, devices, links that lead nowhere."""
    try:
        relative.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"The name {relative!r} is no text and cannot be copied.", "Rename it.") from error
    if path.is_symlink() and (target := _target_within(root, path)) is not None:
        return CopiedFile(path=relative, link=target)
    if path.is_dir():
        return CopiedFile(path=relative, is_folder=True)
    if not path.is_file():
        return None
    sha256, size = memory.sha256(path, is_cancelled)
    return _file(relative, path, sha256, size)


def _target_within(root: Path, link: Path) -> str | None:
    """Return the target of a link, relative to the link's folder; None where it leads outside: its content is copied."""
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):
        return None
    if not target.is_relative_to(root.resolve()):
        return None
    inside = target.relative_to(root.resolve())
    return PurePosixPath(os.path.relpath(root / inside, link.parent)).as_posix()


def _is_left_out(relative: str, exclude: tuple[str, ...]) -> bool:
    name = relative.rpartition("/")[2]
    return any(
        fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(relative, pattern.strip("/")) for pattern in exclude
    )


def _walk(root: Path, exclude: tuple[str, ...]) -> Generator[tuple[str, Path]]:
    """Yield all files, links and empty folders; a link to a folder outside is walked, each such folder once."""
    pending: list[tuple[str, Path]] = [("", root)]
    seen = {root.resolve()}
    while pending:
        prefix, folder = pending.pop()
        try:
            entries = sorted(folder.iterdir())
        except OSError as error:
            raise EnvironmentProblem(
                f"The folder {str(folder)!r} cannot be read, so it cannot be copied: {error.strerror or error}.",
                "Give yourself permission to read it, or leave it out (launch.exclude).",
            ) from error
        if not entries and prefix:
            yield prefix, folder
        for path in entries:
            relative = f"{prefix}/{path.name}" if prefix else path.name
            if _is_left_out(relative, exclude):
                continue
            is_link = path.is_symlink()
            if not path.is_dir() or (is_link and _target_within(root, path) is not None):
                yield relative, path
            elif not is_link or path.resolve() not in seen:
                seen.add(path.resolve())
                pending.append((relative, path))
