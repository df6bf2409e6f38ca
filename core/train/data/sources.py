"""Files of a data source: a file, a folder, or any URL that fsspec knows (s3://, webhdfs://, hdfs://, memory://, hf://).

Lists the files with what identifies their content, opens them unpacked (.gz, .zst), and says in a sentence what keeps a
source from being read. Credentials are found by the libraries themselves (environment, configuration files); none are
taken from specs. What stands in the files is read by ``core.train.data.rows`` and ``documents``.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import io
import sysconfig
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast
from urllib.parse import urlsplit

from core.contracts.errors import EnvironmentProblem, PilothouseError, UserError
from core.train.specs.text_data import STDLIB

PACKED_SUFFIXES: Mapping[str, str] = {".gz": "gzip", ".zst": "zstd"}
_SKIPPED_FOLDERS = frozenset({"__pycache__", "site-packages", "dist-packages", "node_modules"})
_VERSION_KEYS = ("size", "ETag", "etag", "LastModified", "modificationTime", "mtime", "created")
_UNPACKED_BUFFER = 1 << 20
_NETWORK_MODULES = ("botocore", "aiobotocore", "aiohttp", "requests", "urllib3", "s3fs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One file.

    Attributes:
        name: For people: the path or URL.
        path: Where its file system finds it.
        root: URL that its file system is made from; empty: a local file.
        size_bytes: As stored; 0 when not known.
        version: Changes when the content does: size and time of change, or the store's own tag.
    """

    name: str
    path: str
    root: str = ""
    size_bytes: int = 0
    version: str = ""

    @property
    def suffix(self) -> str:
        """Return the suffix in lower case, that of a packed file without the packing: ``.jsonl`` of ``a.jsonl.gz``."""
        return suffix_of(self.path)


def suffix_of(path: str) -> str:
    """Return the suffix of a path in lower case, the packing left out."""
    suffixes = [one.lower() for one in PurePosixPath(path).suffixes]
    while suffixes and suffixes[-1] in PACKED_SUFFIXES:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def is_url(data: str) -> bool:
    """Return whether a source is a URL rather than a path."""
    return "://" in data


def list_sources(data: str, suffixes: frozenset[str]) -> list[Source]:
    """Return the files of a source, sorted by path; those of a folder by suffix, a single file whatever its name.

    Args:
        data: ``stdlib``, a file, a folder or a URL; a URL may hold ``*``.
        suffixes: Files of a folder that count.

    Raises:
        UserError: There is nothing, or nothing that counts.
        EnvironmentProblem: The source does not answer, or its library is not installed.
    """
    with sentences(data):
        found = _list_url(data, suffixes) if is_url(data) else _list_local(data, suffixes)
    if not found:
        known = ", ".join(sorted(suffixes))
        raise UserError(f"There are no files in {data} that can be read.", f"Files with these endings count: {known}.")
    return found


def _local(path: Path) -> Source:
    status = path.stat()
    return Source(
        name=str(path), path=str(path), size_bytes=status.st_size, version=f"{status.st_size}-{status.st_mtime_ns}"
    )


def _list_local(data: str, suffixes: frozenset[str]) -> list[Source]:
    if data == STDLIB:
        skipped = _SKIPPED_FOLDERS | {"test", "tests"}
        return _walk(Path(sysconfig.get_path("stdlib")), frozenset({".py"}), skipped)
    root = Path(data).expanduser()
    return _walk(root, suffixes, _SKIPPED_FOLDERS) if root.is_dir() else [_local(root)]


def _walk(folder: Path, suffixes: frozenset[str], skipped: frozenset[str]) -> list[Source]:
    found: list[Source] = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            found += _walk(path, suffixes, skipped) if path.name not in skipped else []
        elif suffix_of(path.name) in suffixes:
            found.append(_local(path))
    return found


def file_system(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL, of this process, and the path within."""
    from fsspec.core import url_to_fs

    system, path = url_to_fs(url)
    return system, path


def _list_url(data: str, suffixes: frozenset[str]) -> list[Source]:
    system, path = file_system(data)
    # Listings of earlier calls in this process would hide what has changed since.
    system.invalidate_cache()
    if "*" in path:
        infos: dict[str, dict[str, Any]] = system.glob(path, detail=True)
    else:
        info = system.info(path)
        infos = system.find(path, detail=True) if info["type"] == "directory" else {path: info}
    single = len(infos) == 1 and "*" not in path and path in infos
    files = {name: info for name, info in infos.items() if info["type"] == "file"}
    return [_remote(data, name, files[name]) for name in sorted(files) if single or suffix_of(name) in suffixes]


def _remote(root: str, path: str, info: Mapping[str, Any]) -> Source:
    version = "-".join(str(info[key]) for key in _VERSION_KEYS if key in info)
    parts, inner = urlsplit(root), path.lstrip("/")
    # The bucket of a store is the first part of the path; the host of a file system is not.
    host = "" if inner.split("/", 1)[0] == parts.netloc else f"{parts.netloc}/"
    name = f"{parts.scheme}://{host}{inner}"
    return Source(name=name, path=path, root=root, size_bytes=int(info.get("size") or 0), version=version)


@contextlib.contextmanager
def opened(source: Source) -> Generator[IO[bytes]]:
    """Open a file for reading bytes, unpacked; errors while it is open become sentences that name it.

    Raises:
        UserError, EnvironmentProblem: See ``sentences``.
    """
    packing = PACKED_SUFFIXES.get(PurePosixPath(source.path).suffix.lower())
    with sentences(source.name), contextlib.ExitStack() as stack:
        if source.root:
            raw = stack.enter_context(file_system(source.root)[0].open(source.path, "rb"))
        else:
            raw = stack.enter_context(Path(source.path).open("rb"))
        yield stack.enter_context(_unpacked(raw, packing)) if packing else raw


def _unpacked(raw: IO[bytes], packing: str) -> IO[bytes]:
    if packing == "gzip":
        return cast("IO[bytes]", gzip.GzipFile(fileobj=raw))
    import zstandard

    stream = zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
    return io.BufferedReader(cast("io.RawIOBase", stream), _UNPACKED_BUFFER)


def read_bytes(source: Source, start: int = 0, stop: int | None = None) -> bytes:
    """Return a piece of a file as it is stored.

    Raises:
        UserError, EnvironmentProblem: See ``sentences``.
    """
    with sentences(source.name):
        if source.root:
            return file_system(source.root)[0].cat_file(source.path, start=start, end=stop)
        with Path(source.path).open("rb") as file:
            file.seek(start)
            return file.read() if stop is None else file.read(stop - start)


@contextlib.contextmanager
def sentences(name: str) -> Generator[None]:
    """Turn what a file system raises into a sentence about ``name``.

    Raises:
        UserError: It is not there, is not readable for us, or is damaged.
        EnvironmentProblem: Credentials, network or a library are missing.
    """
    try:
        yield
    except PilothouseError:
        raise
    except Exception as error:
        # Each file system has exceptions of its own, which share no base class; what is none of theirs goes on as it is.
        told = _told(error, name)
        if told is None:
            raise
        raise told from error


def _told(error: Exception, name: str) -> PilothouseError | None:
    kinds: tuple[tuple[type[BaseException], Callable[[Exception, str], PilothouseError]], ...] = (
        (FileNotFoundError, lambda _, name: UserError(f"There is no {name}.", "Check the path, bucket and host.")),
        (PermissionError, _forbidden),
        (NotADirectoryError, lambda _, name: UserError(f"{name} is no folder.", "Check the path.")),
        (IsADirectoryError, lambda _, name: UserError(f"{name} is a folder.", "Choose a file.")),
        (ImportError, _no_library),
        (EOFError, lambda _, name: UserError(f"{name} ends too early: it is cut off.", "Copy or download it again.")),
    )
    for kind, tell in kinds:
        if isinstance(error, kind):
            return tell(error, name)
    if type(error).__name__ in {"NoCredentialsError", "PartialCredentialsError", "TokenRetrievalError"}:
        return _forbidden(error, name)
    if isinstance(error, OSError) and any(library in str(error) for library in ("libjvm", "libhdfs")):
        return _no_library(error, name)
    if type(error).__name__ in {"BadGzipFile", "ZstdError"}:
        return UserError(f"{name} cannot be unpacked: {_reason(error)}.", "Copy or download it again.")
    is_network = type(error).__module__.split(".")[0] in _NETWORK_MODULES
    if is_network or (isinstance(error, (OSError, ValueError)) and is_url(name)):
        hint = "Check host, port, bucket and network; for S3-compatible stores set AWS_ENDPOINT_URL."
        return EnvironmentProblem(f"{name} cannot be reached: {_reason(error)}.", hint)
    if isinstance(error, OSError):
        return EnvironmentProblem(f"{name} cannot be read: {_reason(error)}.", "Check the disk and its permissions.")
    return None


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).strip().splitlines()[0].rstrip(".")


def _forbidden(error: Exception, name: str) -> PilothouseError:
    if not is_url(name):
        return UserError(f"{name} cannot be read: permission denied.", "Check its permissions.")
    hint = (
        "Give the credentials of its store: for S3 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile in ~/.aws."
    )
    return EnvironmentProblem(f"{name} cannot be read without valid credentials: {_reason(error)}.", hint)


def _no_library(error: Exception, name: str) -> PilothouseError:
    kind = name.split("://", 1)[0]
    hint = "Use webhdfs:// instead, or install Hadoop's libhdfs." if kind == "hdfs" else "Install the library it names."
    return EnvironmentProblem(f"{kind}:// needs a library that is missing: {_reason(error)}.", hint)


@functools.lru_cache(maxsize=1)
def known_protocols() -> frozenset[str]:
    """Return the URL schemes that fsspec knows, without loading their libraries."""
    from fsspec import available_protocols

    return frozenset(available_protocols())
