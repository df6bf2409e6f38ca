"""Where images come from: a folder with a sub-folder for each class, WebDataset tars, or Parquet files, local or by URL.

Each gives its images' labels at once and the bytes of any image on demand. Tars are read through once for an index of
where their members are, which is kept in the cache; Parquet files keep the row group that was read last. Decoding is
``core.train.data.images``.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

import msgspec
import numpy as np

from core.contracts.errors import UserError
from core.train.data.labels import numbered, read_label, sorted_classes
from core.train.data.rows import open_parquet
from core.train.data.sources import Source, file_system, is_url, list_sources, opened, read_bytes
from core.train.data.tokens import Made, key_of, made_once

if TYPE_CHECKING:
    from numpy.typing import NDArray

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
SHARD_SUFFIXES = frozenset({".tar", ".parquet"})
_IMAGE_COLUMN = "image"
_LABEL_COLUMN = "label"
_INDEX = "index.json"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FolderImages:
    """A file for each image."""

    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    sources: Sequence[Source]

    def name(self, number: int) -> str:
        """Return its path."""
        return self.sources[number].name

    def raw(self, number: int) -> bytes:
        """Return the file."""
        return read_bytes(self.sources[number])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TarImages:
    """Members of tars; ``members`` holds tar, first byte and size of each image, int64, shape (n, 3)."""

    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    sources: Sequence[Source]
    members: NDArray[np.int64]
    keys: Sequence[str]

    def name(self, number: int) -> str:
        """Return tar and member."""
        return f"{self.sources[int(self.members[number, 0])].name}, {self.keys[number]}"

    def raw(self, number: int) -> bytes:
        """Return the member's bytes."""
        tar, first, size = self.members[number].tolist()
        return read_bytes(self.sources[tar], first, first + size)


@dataclass(slots=True, kw_only=True, eq=False)
class ParquetImages:
    """Rows of Parquet files; ``rows`` holds file, row group, row within and row of the file, int64, shape (n, 4)."""

    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    sources: Sequence[Source]
    rows: NDArray[np.int64]
    _group: tuple[tuple[int, int], list[Any]] = ((-1, -1), [])

    def name(self, number: int) -> str:
        """Return file and row."""
        return _row_name(self.sources[int(self.rows[number, 0])], int(self.rows[number, 3]))

    def raw(self, number: int) -> bytes:
        """Return the bytes of a row's image."""
        file, group, row, _ = self.rows[number].tolist()
        at, images = self._group  # replaced as a whole, since several threads read
        if at != (file, group):
            with opened(self.sources[file]) as opened_file:
                table = open_parquet(self.sources[file], opened_file, (_IMAGE_COLUMN,))
                images = table.read_row_group(group, columns=[_IMAGE_COLUMN]).column(0).to_pylist()
            self._group = ((file, group), images)
        image = images[row]
        found = image.get("bytes") if isinstance(image, dict) else image
        if not isinstance(found, bytes):
            raise UserError(
                f"{self.name(number)} has no bytes in its column {_IMAGE_COLUMN!r}.", "Store encoded images."
            )
        return found


ImageFiles = FolderImages | TarImages | ParquetImages
"""Encoded images: ``labels`` int64 (n,), ``classes``, ``sources``; ``name(number)`` for people, ``raw(number)`` the bytes."""


def _row_name(source: Source, row: int) -> str:
    return f"{source.name}, row {row + 1}"


def find_images(data: str, cache: Path, should_stop: Callable[[], bool]) -> ImageFiles:
    """Return the images of a source, whose form its files tell.

    Args:
        data: Folder, file or URL.
        cache: Folder of this machine for indices of tars.
        should_stop: Asked meanwhile.

    Raises:
        UserError: No images, a label is missing or out of range, or a file cannot be read.
        EnvironmentProblem: The source does not answer, or the cache cannot be written.
        Cancelled: A stop was asked for.
    """
    sources = list_sources(data, IMAGE_SUFFIXES | SHARD_SUFFIXES)
    tars = [source for source in sources if source.suffix == ".tar"]
    tables = [source for source in sources if source.suffix == ".parquet"]
    if tars:
        return _tar_images(tars, cache, should_stop)
    return _parquet_images(tables) if tables else _folder_images(data, sources)


def class_of(data: str, source: Source) -> str:
    """Return the name of the sub-folder that an image is in; empty for one that is in none."""
    if is_url(data):
        root = file_system(data)[1].strip("/")
        inner = PurePosixPath(source.path.strip("/")).relative_to(root)
    else:
        inner = PurePosixPath(Path(source.path).relative_to(Path(data).expanduser()).as_posix())
    return inner.parts[0] if len(inner.parts) > 1 else ""


def _folder_images(data: str, sources: Sequence[Source]) -> FolderImages:
    single = len(sources) == 1 and not is_url(data) and Path(data).expanduser().is_file()
    found = [] if single else [(source, class_of(data, source)) for source in sources]
    inside = [(source, name) for source, name in found if name]
    if not inside:
        raise UserError(f"There are no images in the sub-folders of {data}.", "Make one sub-folder for each class.")
    classes = tuple(sorted({name for _, name in inside}))
    labels = np.array([classes.index(name) for _, name in inside], dtype=np.int64)
    return FolderImages(labels=labels, classes=classes, sources=[source for source, _ in inside])


def _tar_images(sources: Sequence[Source], cache: Path, should_stop: Callable[[], bool]) -> TarImages:
    folder = cache / key_of("tars", [(source.name, source.version) for source in sources])

    def make(temporary: Path) -> Made:
        found = [(number, *entry) for number, source in enumerate(sources) for entry in _index(source)]
        (temporary / _INDEX).write_text(json.dumps(found), encoding="utf-8")
        return Made(names=(), dtype="uint8", is_counted=False)

    made_once(folder, make, should_stop)
    entries: list[tuple[int, str, int, int, str]] = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
    if not entries:
        raise UserError(f"There are no images in {sources[0].name}.", "A sample is an image and a .cls or .json file.")
    labels = [entry[4] for entry in entries]
    classes = sorted_classes(labels)
    return TarImages(
        labels=numbered(labels, labels, classes),
        classes=classes,
        sources=sources,
        members=np.array([[entry[0], entry[2], entry[3]] for entry in entries], dtype=np.int64),
        keys=[entry[1] for entry in entries],
    )


def _index(source: Source) -> Iterator[tuple[str, int, int, str]]:
    """Yield member, first byte, size and label of each image of a tar; the files of a sample share a name and stand together."""
    image: tarfile.TarInfo | None = None
    label: str | None = None
    key = ""
    try:
        with opened(source) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if not member.isfile():
                    continue
                stem, _, ending = member.name.rpartition("/")[2].partition(".")
                of = f"{member.name.rpartition('/')[0]}/{stem}"
                if of != key:
                    yield from _entry(source, image, label)
                    key, image, label = of, None, None
                if f".{ending.rpartition('.')[2].lower()}" in IMAGE_SUFFIXES:
                    image = member
                elif ending in {"cls", "json"} and label is None:
                    label = _tar_label(f"{source.name}, {member.name}", ending, tar.extractfile(member))
            yield from _entry(source, image, label)
    except tarfile.TarError as error:
        raise UserError(f"{source.name} is damaged or no tar file: {error}.", "Copy or write it again.") from error


def _tar_label(place: str, ending: str, file: IO[bytes] | None) -> str | None:
    content = file.read() if file is not None else b""
    if ending == "cls":
        return read_label(place, content.decode("utf-8", errors="replace"))
    try:
        described = msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{place} is no JSON object: {error}.", "Repair or remove the sample.") from error
    value = described.get("label", described.get("cls"))
    return None if value is None else read_label(place, value)


def _entry(source: Source, image: tarfile.TarInfo | None, label: str | None) -> Iterator[tuple[str, int, int, str]]:
    if image is None:
        return
    if label is None:
        raise UserError(
            f"{source.name}, {image.name}: its label is missing.", "Add a .cls file, or label in its .json."
        )
    yield image.name, image.offset_data, image.size, label


def _parquet_images(sources: Sequence[Source]) -> ParquetImages:
    labels: list[str] = []
    places: list[str] = []
    rows: list[tuple[int, int, int, int]] = []
    names: tuple[str, ...] = ()
    for number, source in enumerate(sources):
        with opened(source) as file:
            table = open_parquet(source, file, (_IMAGE_COLUMN, _LABEL_COLUMN))
            names = names or _class_names(table.schema_arrow.metadata or {})
            whole = 0
            for group in range(table.num_row_groups):
                values = table.read_row_group(group, columns=[_LABEL_COLUMN]).column(0).to_pylist()
                for row, value in enumerate(values):
                    places.append(_row_name(source, whole + row))
                    labels.append(read_label(places[-1], value))
                    rows.append((number, group, row, whole + row))
                whole += len(values)
    if not rows:
        raise UserError(f"There are no rows in {sources[0].name}.", "Choose a table with rows.")
    classes = names or sorted_classes(labels)
    return ParquetImages(
        labels=numbered(labels, places, classes),
        classes=classes,
        sources=sources,
        rows=np.array(rows, dtype=np.int64),
    )


def _class_names(metadata: dict[bytes, bytes]) -> tuple[str, ...]:
    """Return the class names that the ``datasets`` library writes into a table's description; empty without."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        return tuple(features[_LABEL_COLUMN]["names"])
    except (KeyError, TypeError, ValueError):
        return ()
