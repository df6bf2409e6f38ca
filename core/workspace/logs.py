"""Reads a run's output by byte offset in bounded pieces, however large it or one of its lines is."""

from __future__ import annotations

from pathlib import Path

from core.contracts.runs import LogChunk

_UTF8_CONTINUATION = 0xC0
_UTF8_MARK = 0x80


def read_log(path: Path, start: int, limit: int = 256_000) -> LogChunk:
    """Return text from a byte offset; a negative ``start`` counts from the end. A missing file is empty.

    The piece begins and ends on whole UTF-8 characters; undecodable bytes become the replacement character.

    Raises:
        OSError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            total = file.seek(0, 2)
            begin = max(0, total + start) if start < 0 else min(start, total)
            file.seek(begin)
            data = file.read(limit)
    except FileNotFoundError:
        return LogChunk(text="", start=0, end=0, total=0)
    if start < 0:
        skipped = _continuation_bytes(data)
        begin, data = begin + skipped, data[skipped:]
    end = begin + len(data)
    if end < total:
        data = _whole_characters(data)
        end = begin + len(data)
    return LogChunk(text=data.decode("utf-8", errors="replace"), start=begin, end=end, total=total)


def _continuation_bytes(data: bytes) -> int:
    """Return how many bytes at the start belong to a character begun before."""
    count = 0
    while count < min(3, len(data)) and data[count] & _UTF8_CONTINUATION == _UTF8_MARK:
        count += 1
    return count


def _whole_characters(data: bytes) -> bytes:
    """Cut a character that the end of the piece splits, so that the next piece begins with it."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & _UTF8_CONTINUATION == _UTF8_MARK:
            continue
        needed = 1 + (byte >= 0xC0) + (byte >= 0xE0) + (byte >= 0xF0)
        return data[:-back] if needed > back and len(data) > back else data
    return data
