"""A snapshot of the user's code, small enough to travel in a ConfigMap; unpacked again in the pod.

Made the same, byte for byte, from the same files. A link to a file of the folder becomes a copy of it; links to folders
and links that lead out are not taken.
"""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

from core.contracts.errors import EnvironmentProblem, UserError

MOST_BYTES = 900_000
"""A ConfigMap holds 1 MiB in all."""
_MOST_PLAIN_BYTES = 64 << 20
_REMEDY = (
    "Put the code on the volume claim and set the code to 'shared', build it into the image, or leave files out with "
    "'Not copied' (launch.exclude)."
)


def _is_excluded(relative: Path, exclude: Sequence[str]) -> bool:
    return any(fnmatch(relative.name, pattern) or fnmatch(relative.as_posix(), pattern) for pattern in exclude)


def _files(folder: Path, exclude: Sequence[str]) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if _is_excluded(path.relative_to(folder), exclude):
            continue
        if path.is_dir() and not path.is_symlink():
            for inner in _files(path, exclude):
                if not _is_excluded(inner.relative_to(folder), exclude):
                    yield inner
        elif path.is_file() and path.resolve().is_relative_to(folder.resolve()):
            yield path


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """Leave out what differs from one machine and day to the next."""
    info.uid = info.gid = info.mtime = 0
    info.uname = info.gname = ""
    return info


def pack(folder: Path, exclude: Sequence[str]) -> bytes:
    """Return a folder as a compressed archive.

    Args:
        folder: The code.
        exclude: Patterns of names that are left out.

    Raises:
        UserError: It is too large for a ConfigMap; the remedy names the other ways.
        EnvironmentProblem: A file cannot be read.
    """
    plain = io.BytesIO()
    try:
        with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT, dereference=True) as archive:
            for path in _files(folder, exclude):
                archive.add(path, path.relative_to(folder).as_posix(), recursive=False, filter=_plain)
                if plain.tell() > _MOST_PLAIN_BYTES:
                    raise UserError(f"The code in {str(folder)!r} has more than 64 MiB.", _REMEDY)
    except OSError as error:
        raise EnvironmentProblem(
            f"The code in {str(folder)!r} cannot be read: {error.strerror or error}.", "Check its permissions."
        ) from error
    packed = gzip.compress(plain.getvalue(), 9, mtime=0)
    if len(packed) > MOST_BYTES:
        raise UserError(
            f"The code in {str(folder)!r} is {len(packed) / 1e3:.0f} kB when compressed; a ConfigMap holds "
            f"{MOST_BYTES / 1e3:.0f} kB.",
            _REMEDY,
        )
    return packed


def unpack(packed: bytes, folder: Path) -> None:
    """Put an archive's files into a folder, which is made; OSError or ``tarfile.TarError`` when that cannot be."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as archive:
        archive.extractall(folder, filter="data")
