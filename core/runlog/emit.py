"""Writes a run's event log. One file, standard library only, so that any script may be given a copy of it.

One event is one ``write()`` of one newline-ended JSON line on a descriptor opened with O_APPEND: a line handed over
survives ``kill -9`` of the writer. In a script of your own that Pilothouse launched::

    import pilothouse_emit
    pilothouse_emit.metric(step, loss=0.3, accuracy=0.9)   # does nothing when not launched by Pilothouse

Every rank may do so; each has a log of its own.

What a line means is defined in ``core.contracts.events``; this file only knows how to write it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path

EVENT_VERSION = 1
_TAIL_BYTES = 1 << 16
_HASH_BLOCK_BYTES = 1 << 20
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
        self.has_earlier_lines = self._seq > 0

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
_is_continued = False
_writer_lock = threading.Lock()


def _own_writer() -> EventWriter | None:
    """Return the writer of this process, opened at the first event; None when not launched by Pilothouse."""
    global _writer, _is_continued  # noqa: PLW0603 - one log a process, opened only when the script first writes
    run_dir = os.environ.get("PILOTHOUSE_EVENTS")
    if run_dir is None:
        return None
    with _writer_lock:
        if _writer is None:
            node = os.environ.get("PILOTHOUSE_NODE", "local")
            rank = os.environ.get("RANK", "0")
            _writer = EventWriter(os.path.join(run_dir, f"events.{node}.{rank}.jsonl"))  # noqa: PTH118
            attempt = int(os.environ.get("PILOTHOUSE_ATTEMPT", "1"))
            _is_continued = rank == "0" and (attempt > 1 or _writer.has_earlier_lines)
    return _writer


def metric(step: int, **values: float) -> None:
    """Record the scalars of one step, such as ``metric(10, loss=0.3)``."""
    global _is_continued  # noqa: PLW0603 - said once a process
    writer = _own_writer()
    if writer is None:
        return
    if _is_continued:
        # The first step after a restart tells where the script goes on: what was reported after that is void.
        _is_continued = False
        attempt = max(2, int(os.environ.get("PILOTHOUSE_ATTEMPT", "1")))
        writer.write("attempt", attempt=attempt, resumed_from_step=step - 1 if step > 0 else None)
    writer.metric(step, values)


def checkpoint(step: int, path: str | Path) -> None:
    """Record a checkpoint file below ``{checkpoints}``: when it is complete and in place, and again when it was removed.

    Call it on rank 0 only.
    """
    writer, run_dir = _own_writer(), os.environ.get("PILOTHOUSE_EVENTS", "")
    if writer is None:
        return
    file_path = Path(path).absolute()
    relative = file_path.relative_to(Path(run_dir).absolute()).as_posix()
    sha256, size = _hash_file(file_path) if file_path.exists() else ("", 0)
    is_removed = not sha256
    writer.write("checkpoint", step=step, path=relative, size_bytes=size, sha256=sha256, removed=is_removed)


def _hash_file(path: Path) -> tuple[str, int]:
    """Return a file's SHA-256 and its size in bytes."""
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as file:
        while block := file.read(_HASH_BLOCK_BYTES):
            digest.update(block)
            size += len(block)
    return digest.hexdigest(), size


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
