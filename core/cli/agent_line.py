"""The agent's way back: whole frames, one writer at a time, and only a few megabytes of pushed bytes on their way."""

from __future__ import annotations

import os
import threading

import msgspec

from core.contracts import agent as said
from core.runlog.frames import MARK, frame

WINDOW_BYTES = 4 << 20


class Line:
    """The way back: whole frames, one writer at a time, and no more pushed bytes on their way than the window."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._room = threading.Condition()
        self._on_way = 0
        self.is_closed = False
        self._write(MARK)

    def send(self, message: said.FromAgent) -> None:
        """Send one message; once the other side is gone, nothing."""
        self._write(frame(msgspec.msgpack.encode(message)))

    def push(self, chunk: said.FileChunk) -> None:
        """Send a chunk when there is room for it; blocks until then."""
        with self._room:
            self._room.wait_for(lambda: self._on_way < WINDOW_BYTES or self.is_closed)
            self._on_way += len(chunk.data)
        self.send(chunk)

    def credit(self, amount: int) -> None:
        """Take note that pushed bytes have arrived."""
        with self._room:
            self._on_way -= amount
            self._room.notify_all()

    def close(self) -> None:
        """Let nobody wait any more."""
        with self._room:
            self.is_closed = True
            self._room.notify_all()

    def _write(self, data: bytes) -> None:
        with self._lock:
            try:
                while data and not self.is_closed:
                    data = data[os.write(self._descriptor, data) :]
            except OSError:
                self.close()
