"""Arrays as compressed bytes, exact to the bit.

How: 8-byte numbers are taken apart into planes of equal bytes (all first bytes, all second bytes, ...), since the high
bytes of neighbours agree, and compressed with Zstandard level 1. Axes (steps, times) are kept as differences of their
64-bit patterns first: a steady axis then costs almost nothing.
"""

from __future__ import annotations

import threading

import numpy as np
import zstandard
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
_LEVEL = 1
_WIDTH = 8


class _Codec(threading.local):
    """One compressor a thread: the library's are not safe to share."""

    def __init__(self) -> None:
        self.compress = zstandard.ZstdCompressor(level=_LEVEL).compress
        self.decompress = zstandard.ZstdDecompressor().decompress


_codec = _Codec()


class DamagedBlock(Exception):
    """Stored bytes are not what was written."""


def pack_ints(values: Ints) -> bytes:
    """Return int64 values as bytes."""
    planes = np.ascontiguousarray(values).view(np.uint8).reshape(-1, _WIDTH).T
    return _codec.compress(planes.tobytes())


def unpack_ints(data: bytes, count: int) -> Ints:
    """Return the ``count`` int64 values of ``pack_ints``.

    Raises:
        DamagedBlock: The bytes are damaged.
    """
    try:
        planes = _codec.decompress(data)
    except zstandard.ZstdError as error:
        raise DamagedBlock(str(error)) from error
    if len(planes) != count * _WIDTH:
        raise DamagedBlock(f"{len(planes)} bytes instead of {count * _WIDTH}")
    return np.ascontiguousarray(np.frombuffer(planes, np.uint8).reshape(_WIDTH, count).T).view(np.int64).ravel()


def pack_floats(values: Floats) -> bytes:
    """Return float64 values as bytes; NaN payloads and infinities survive."""
    return pack_ints(np.ascontiguousarray(values).view(np.int64))


def unpack_floats(data: bytes, count: int) -> Floats:
    """Return the values of ``pack_floats``."""
    return unpack_ints(data, count).view(np.float64)


def pack_axis(values: Ints | Floats) -> bytes:
    """Return an axis (steps or Unix seconds) as bytes: small where it is steady."""
    patterns = np.ascontiguousarray(values).view(np.int64)
    return pack_ints(np.diff(patterns, prepend=np.int64(0)))


def unpack_steps(data: bytes, count: int) -> Ints:
    """Return the steps of ``pack_axis``."""
    return np.cumsum(unpack_ints(data, count), dtype=np.int64)


def unpack_times(data: bytes, count: int) -> Floats:
    """Return the times of ``pack_axis``."""
    return np.cumsum(unpack_ints(data, count), dtype=np.int64).view(np.float64)
