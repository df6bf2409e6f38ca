"""The host's side of a copy: keeps contents by hash, and makes a file or folder of them, whole or not at all.

One line of JSON each way at a time, and raw bytes after a line that announces them, over standard input and output:
``Order`` in, ``Wanted`` out, ``Blob`` and its bytes in for each wanted content, ``Done`` out; then the next. A content that a cut left
half is gone on with; nothing is used before its hash is right. The target appears by rename, when all of it is there.
Needs nothing but the standard library and msgspec.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Generator
from pathlib import Path
from typing import BinaryIO

import msgspec

from core.fleet.manifest import CopiedFile

CACHE = "cache"
MARK = b"pilothouse takes copies 1"
"""The first line said; whatever a login shell printed before it is no answer."""
CHUNK_BYTES = 256 << 10
_LONGEST_LINE_BYTES = 256 << 20


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be made.

    Attributes:
        target: Its place, relative to the work folder.
        files: What it holds; one entry without a path for a single file.
        is_shared: Several runs use it: made once, of links to the kept contents, and not for writing.
        replaces: A target that is there is replaced; else it is taken as it is.
    """

    target: str
    files: tuple[CopiedFile, ...]
    is_shared: bool = False
    replaces: bool = False


class Wanted(msgspec.Struct, frozen=True, kw_only=True, tag="wanted"):
    """Contents that are not there, with how many bytes of each are."""

    contents: dict[str, int] = {}


class Blob(msgspec.Struct, frozen=True, kw_only=True):
    """Announces ``size`` bytes of a content, from where it stands."""

    sha256: str
    size: int


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """The end: all is there, or a sentence and a remedy; ``changed`` names a content whose hash was wrong."""

    error: str = ""
    hint: str = ""
    changed: str = ""


class _Changed(Exception):
    """A content is not what was announced."""


def serve(work_dir: Path, source: BinaryIO, sink: BinaryIO) -> int:
    """Carry out orders until no more come or one fails; return the exit status."""
    sink.write(b"\n" + MARK + b"\n")
    sink.flush()
    try:
        while line := source.readline(_LONGEST_LINE_BYTES):
            done = _answer(work_dir, msgspec.json.decode(line, type=Order), source, sink)
            _say(sink, done)
            if done.error:
                return 1
    except (EOFError, BrokenPipeError):
        return 1
    return 0


def _answer(work_dir: Path, order: Order, source: BinaryIO, sink: BinaryIO) -> Done:
    try:
        return _carry_out(work_dir, order, source, sink)
    except _Changed as error:
        return Done(error="A file changed while it was being copied.", changed=str(error))
    except BrokenPipeError:
        raise
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        return Done(
            error=f"The copy cannot be written to {str(work_dir)!r} on the host{where}: {error.strerror or error}.",
            hint="Free space there, or check the permissions of the host's work folder.",
        )


def _carry_out(work_dir: Path, order: Order, source: BinaryIO, sink: BinaryIO) -> Done:
    target = work_dir / order.target
    if not target.resolve().is_relative_to(work_dir.resolve()) or any(_leads_out(file) for file in order.files):
        return Done(error=f"{order.target!r} lies outside of the host's work folder.")
    if target.exists() and not order.replaces:
        _say(sink, Wanted())
        return Done()
    cache = work_dir / CACHE
    cache.mkdir(parents=True, exist_ok=True)
    missing = {file.sha256: file.size for file in order.files if file.sha256 and not (cache / file.sha256).exists()}
    with contextlib.ExitStack() as held:
        parts = {sha256: held.enter_context(_part(cache, sha256)) for sha256 in missing}
        _say(sink, Wanted(contents={sha256: part.seek(0, os.SEEK_END) for sha256, part in parts.items()}))
        for _ in missing:
            blob = msgspec.json.decode(_line(source), type=Blob)
            _receive(cache, blob, parts[blob.sha256], source)
    _make(cache, target, order)
    return Done()


def _leads_out(file: CopiedFile) -> bool:
    """Tell whether an entry would be written, or point, outside of the target."""
    parts = Path(file.path).parts
    if Path(file.path).is_absolute() or ".." in parts or Path(file.link).is_absolute():
        return True
    depth = len(parts) - 1
    for part in Path(file.link).parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            return True
    return False


@contextlib.contextmanager
def _part(cache: Path, sha256: str) -> Generator[BinaryIO]:
    """Yield the half content of an earlier copy, or a new one while somebody else fetches the same."""
    path = cache / f"{sha256}.part"
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            own = cache / f"{sha256}.{uuid.uuid4().hex}.part"
            with own.open("xb") as other:
                try:
                    yield other
                finally:
                    own.unlink(missing_ok=True)
            return
        yield file


def _receive(cache: Path, blob: Blob, part: BinaryIO, source: BinaryIO) -> None:
    """Append a content's bytes, look at its hash, and put it into its place."""
    left = blob.size
    while left:
        data = source.read(min(left, CHUNK_BYTES))
        if not data:
            raise EOFError("the copy was cut off")
        part.write(data)
        left -= len(data)
    part.flush()
    os.fsync(part.fileno())
    path = Path(str(part.name))
    with path.open("rb") as file:
        found = hashlib.file_digest(file, hashlib.sha256).hexdigest()
    if found != blob.sha256:
        path.unlink(missing_ok=True)
        raise _Changed(blob.sha256)
    path.replace(cache / blob.sha256)


def _make(cache: Path, target: Path, order: Order) -> None:
    """Make the target beside its place and rename it there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
    try:
        if len(order.files) == 1 and not order.files[0].path:
            _put(cache, order.files[0], partial, is_shared=order.is_shared)
        else:
            partial.mkdir()
            for file in order.files:
                place = partial / file.path
                place.parent.mkdir(parents=True, exist_ok=True)
                _put(cache, file, place, is_shared=order.is_shared)
        if order.replaces and target.exists():
            target.rename(target.with_name(f".{target.name}.{uuid.uuid4().hex}.old"))
        try:
            partial.rename(target)
        except OSError:
            if not (order.is_shared and target.exists()):  # else somebody made the very same meanwhile
                raise
    finally:
        for left in target.parent.glob(f".{target.name}.*.old"):
            shutil.rmtree(left, ignore_errors=True)
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)


def _put(cache: Path, file: CopiedFile, place: Path, *, is_shared: bool) -> None:
    if file.link:
        place.symlink_to(file.link)
    elif file.is_folder:
        place.mkdir(exist_ok=True)
    elif is_shared and not file.is_executable:
        os.link(cache / file.sha256, place)
        place.chmod(0o444)
    else:
        shutil.copyfile(cache / file.sha256, place)
        place.chmod(0o755 if file.is_executable else 0o644)


def _line(source: BinaryIO) -> bytes:
    line = source.readline(_LONGEST_LINE_BYTES)
    if not line.endswith(b"\n"):
        raise EOFError("the copy was cut off")
    return line


def _say(sink: BinaryIO, record: msgspec.Struct) -> None:
    sink.write(msgspec.json.encode(record) + b"\n")
    sink.flush()
