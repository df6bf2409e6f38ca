"""Writes a run's event log. One file, standard library only, so that any script may be given a copy of it.

One event is one ``write()`` of one newline-ended JSON line on a descriptor opened with O_APPEND: a line handed over
survives ``kill -9`` of the writer. In a script of your own that Pilothouse launched::

    import pilothouse_emit
    pilothouse_emit.metric(step, loss=0.3, accuracy=0.9)   # does nothing when not launched by Pilothouse

What a line means is defined in ``core.contracts.events``; this file only knows how to write it.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path

EVENT_VERSION = 1
_TAIL_BYTES = 1 << 16
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=float).encode


def _finite(value: object) -> object:
    """Return a value that JSON can say: a non-finite float becomes its name, in nested values too."""
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


class EventWriter:
    """The one writer of one event log.

    Thread-safe. Opening an existing log continues its numbering; a line torn by a crash is closed first, so that it
    spoils nothing after it.

    Raises:
        OSError: The file cannot be opened or written (no space, no permission). Nothing is buffered: the
            call that raises is the one whose line was lost.
    """

    def __init__(self, path: Path | str) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0), 0o644)
        self._lock = threading.Lock()
        self._seq, self._torn = self._recover()

    def _recover(self) -> tuple[int, bool]:
        """Return the next sequence number and whether the file ends in a torn line."""
        size = os.lseek(self._fd, 0, os.SEEK_END)
        length = _TAIL_BYTES
        while True:
            start = os.lseek(self._fd, max(0, size - length), os.SEEK_SET)
            tail = os.read(self._fd, size - start)
            for line in reversed(tail.split(b"\n")[:-1]):
                try:
                    return int(json.loads(line)["seq"]) + 1, not tail.endswith(b"\n")
                except (ValueError, KeyError, TypeError):
                    continue
            if start == 0 or not tail:
                return 0, bool(tail) and not tail.endswith(b"\n")
            length *= 4

    def write(self, event_type: str, **fields: object) -> None:
        """Write one event; ``fields`` are its own fields beside ``v``, ``seq``, ``ts`` and ``type``."""
        with self._lock:
            record = {"v": EVENT_VERSION, "seq": self._seq, "ts": time.time(), "type": event_type, **fields}
            try:
                line = _encode(record)
            except ValueError:
                line = _encode(_finite(record))
            data = f"\n{line}\n".encode() if self._torn else f"{line}\n".encode()
            self._torn = True
            written = os.write(self._fd, data)
            while written < len(data):
                written += os.write(self._fd, data[written:])
            self._torn = False
            self._seq += 1

    def metric(self, step: int, values: Mapping[str, float]) -> None:
        """Write all scalars of one step as one line."""
        self.write("metric", step=int(step), values={key: float(value) for key, value in values.items()})

    def sync(self) -> None:
        """Wait until all lines are on the disk."""
        os.fsync(self._fd)

    def close(self) -> None:
        """Close the file; further writes raise."""
        os.close(self._fd)


_writer: EventWriter | None = None
_writer_lock = threading.Lock()


def _own_writer() -> EventWriter | None:
    """Return the writer of this process, opened at the first event; None when not launched by Pilothouse."""
    global _writer  # noqa: PLW0603 - one log a process, opened only when the script first writes
    run_dir = os.environ.get("PILOTHOUSE_EVENTS")
    if run_dir is None:
        return None
    with _writer_lock:
        if _writer is None:
            node = os.environ.get("PILOTHOUSE_NODE", "local")
            _writer = EventWriter(os.path.join(run_dir, f"events.{node}.{os.environ.get('RANK', '0')}.jsonl"))  # noqa: PTH118
    return _writer


def metric(step: int, **values: float) -> None:
    """Record the scalars of one step, such as ``metric(10, loss=0.3)``."""
    writer = _own_writer()
    if writer is not None:
        writer.metric(step, values)


def log(message: str, level: str = "info") -> None:
    """Record a sentence; ``level`` is ``info``, ``warning`` or ``error``."""
    writer = _own_writer()
    if writer is not None:
        writer.write("log", message=message, level=level)


def progress(done: float, stage: str = "") -> None:
    """Tell how far the run is, from 0 to 1."""
    writer = _own_writer()
    if writer is not None:
        writer.write("progress", done=float(done), stage=stage)


def result(**values: float) -> None:
    """Record final metrics."""
    writer = _own_writer()
    if writer is not None:
        writer.write("result", values={key: float(value) for key, value in values.items()})
