"""When the output of a node reached which size: lines of ``<unix seconds> <bytes>``, to merge the outputs of several nodes."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

PERIOD_S = 0.5


class OutputIndex:
    """Writes the index of one growing log. One thread; raises nothing once it is open.

    Args:
        log: The log; may come into being later.
        index: The index, appended to.
    """

    def __init__(self, log: Path, index: Path) -> None:
        self._log = log
        self._index = index
        self._size = self._size_now()
        self._next = 0.0

    def _size_now(self) -> int:
        try:
            return self._log.stat().st_size
        except OSError:
            return 0

    def tick(self, now: float) -> None:
        """Note the size if it is due and has changed; ``now`` is monotonic seconds."""
        if now < self._next:
            return
        self._next = now + PERIOD_S
        size = self._size_now()
        if size == self._size:
            return
        # On a full disk the line is said again with the next growth.
        with contextlib.suppress(OSError):
            descriptor = os.open(self._index, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            try:
                os.write(descriptor, f"{time.time():.3f} {size}\n".encode("ascii"))
            finally:
                os.close(descriptor)
            self._size = size
