"""The files of a run directory as lines of text, so that they travel in the log of a pod.

A line is a mark and one JSON record; a file's bytes are compressed and in base64 within it. No line is longer than 12
KiB: container runtimes cut lines at 16 KiB. Every piece names its file and offset, so that lines read twice, after a
cut, do no harm. Lines without the mark are what else was printed, such as an interpreter's complaint.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Iterator

import msgspec

MARK = b"@pilothouse "
PIECE_BYTES = 8 << 10
_MOST_PLAIN_BYTES = 64 << 10


class Begin(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="begin"):
    """A pod began to carry out its node's part.

    Attributes:
        token: Of the run directory in the pod; another one means other files under the same names.
        ts: Unix seconds.
        version: Of the worker package in the image.
    """

    node: str
    token: str
    attempt: int
    ts: float
    version: str = ""


class Piece(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="piece"):
    """Bytes of an append-only file, from an offset on; ``data`` as made by ``packed``."""

    file: str
    offset: int
    data: str


class Part(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="part"):
    """Part of a small file that is replaced as a whole; ``version`` tells one state of the file from the next."""

    file: str
    version: int
    number: int
    total: int
    data: str


class Beat(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="beat"):
    """A sign of life, and how large the files are of which all was printed."""

    ts: float
    sizes: dict[str, int]


class End(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="end"):
    """The pod's last word: all was printed."""

    ts: float
    state: str
    sizes: dict[str, int]


Record = Begin | Piece | Part | Beat | End
_decode = msgspec.json.Decoder(Record).decode


def packed(data: bytes) -> str:
    """Return bytes as text."""
    return base64.b64encode(zlib.compress(data, 6)).decode()


def unpacked(text: str) -> bytes:
    """Return the bytes of ``packed``; ValueError when they are damaged, or far larger than a piece may be."""
    try:
        inflater = zlib.decompressobj()
        data = inflater.decompress(base64.b64decode(text, validate=True), _MOST_PLAIN_BYTES)
    except (zlib.error, binascii.Error) as error:
        raise ValueError(str(error)) from error
    if not inflater.eof:
        raise ValueError("cut off, or too large")
    return data


def line_of(record: Record) -> bytes:
    """Return a record as one line, newline included."""
    return MARK + msgspec.json.encode(record) + b"\n"


def record_of(line: bytes) -> Record | None:
    """Return the record in a line; None when it holds none, or a damaged one."""
    start = line.find(MARK)
    if start < 0:
        return None
    try:
        return _decode(line[start + len(MARK) :])
    except msgspec.MsgspecError:
        return None


def parts_of(file: str, version: int, data: bytes) -> Iterator[Part]:
    """Return a small file's parts."""
    total = max(1, -(-len(data) // PIECE_BYTES))
    for number in range(total):
        piece = data[number * PIECE_BYTES : (number + 1) * PIECE_BYTES]
        yield Part(file=file, version=version, number=number, total=total, data=packed(piece))
