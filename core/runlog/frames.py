"""Frames: messages as length-prefixed blocks on a byte stream that may begin with a login shell's chatter.

A stream begins with ``MARK``; whatever comes before it is skipped. A frame is four bytes of length (big endian), one byte
that tells whether the payload is compressed, and the payload. Knows nothing of what the payloads mean.
"""

from __future__ import annotations

import struct
import zlib

from core.contracts.errors import EnvironmentProblem

MARK = b"\x00\x01pilothouse-frames 1\x02\n"
FRAME_LIMIT_BYTES = 16 << 20
CHATTER_LIMIT_BYTES = 1 << 20
_COMPRESS_FROM_BYTES = 4 << 10
_HEAD = struct.Struct(">IB")
_SHOWN_CHATTER = 300


def frame(payload: bytes) -> bytes:
    """Return a payload as a frame, compressed where that makes it smaller.

    Raises:
        ValueError: It is larger than a frame may be.
    """
    if len(payload) > FRAME_LIMIT_BYTES:
        raise ValueError(f"a payload of {len(payload)} bytes does not fit into a frame")
    if len(payload) >= _COMPRESS_FROM_BYTES:
        packed = zlib.compress(payload, 1)
        if len(packed) < len(payload):
            return _HEAD.pack(len(packed), 1) + packed
    return _HEAD.pack(len(payload), 0) + payload


class FrameReader:
    """Takes bytes as they come and gives back whole payloads. Holds at most one frame and what came with it."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._is_marked = False

    @property
    def chatter(self) -> str:
        """What came before the mark, shortened: the words of a shell that started something else."""
        return "" if self._is_marked else bytes(self._buffer[-_SHOWN_CHATTER:]).decode(errors="replace").strip()

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes; return the payloads that are whole now.

        Raises:
            EnvironmentProblem: This is no stream of frames; nothing more can be read from it.
        """
        self._buffer += data
        if not self._is_marked and not self._skip_chatter():
            return []
        payloads: list[bytes] = []
        while len(self._buffer) >= _HEAD.size:
            length, is_compressed = _HEAD.unpack_from(self._buffer)
            if length > FRAME_LIMIT_BYTES or is_compressed > 1:
                raise EnvironmentProblem("What the host sends is damaged.", "Connect again.")
            if len(self._buffer) < _HEAD.size + length:
                break
            body = bytes(self._buffer[_HEAD.size : _HEAD.size + length])
            del self._buffer[: _HEAD.size + length]
            payloads.append(_expanded(body) if is_compressed else body)
        return payloads

    def _skip_chatter(self) -> bool:
        start = self._buffer.find(MARK)
        if start < 0:
            if len(self._buffer) > CHATTER_LIMIT_BYTES:
                raise EnvironmentProblem(
                    f"Something else than Pilothouse's agent answers: {self.chatter[:80]!r}",
                    "Check the host's start-up files and its Python environment.",
                )
            return False
        del self._buffer[: start + len(MARK)]
        self._is_marked = True
        return True


def _expanded(body: bytes) -> bytes:
    """Expand a compressed payload, never beyond the limit of a frame."""
    expander = zlib.decompressobj()
    try:
        payload = expander.decompress(body, FRAME_LIMIT_BYTES)
    except zlib.error as error:
        raise EnvironmentProblem("What the host sends is damaged.", "Connect again.") from error
    if not expander.eof:
        raise EnvironmentProblem("What the host sends is damaged.", "Connect again.")
    return payload
