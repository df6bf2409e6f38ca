"""Reads event logs from byte offsets: whole lines only, so that a torn last line waits for its end.

Knows nothing of where the offsets are kept. A line that is no event is counted as damaged, never raised; a line of a
type this version does not know becomes an ``UnknownEvent``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from core.contracts.events import AnyEvent, UnknownEvent
from core.runlog.layout import RunLayout, is_supervisor_log

_decode_event = msgspec.json.Decoder(AnyEvent).decode
_decode_any = msgspec.json.Decoder(dict[str, Any]).decode


@dataclass(frozen=True, slots=True)
class FileBatch:
    """The new whole lines of one log.

    Attributes:
        name: File name inside the run directory.
        start: Byte offset at which reading began.
        end: Byte offset just after the last whole line read: where to go on.
        events: The events, in file order.
        damaged_lines: Lines between start and end that are no event.
    """

    name: str
    start: int
    end: int
    events: tuple[AnyEvent, ...]
    damaged_lines: int


@dataclass(frozen=True, slots=True)
class TailBatch:
    """The new lines of all logs of a run; ``more`` tells that the limit cut it and another read is due at once."""

    files: tuple[FileBatch, ...]
    more: bool

    @property
    def is_empty(self) -> bool:
        """True when nothing was written since the offsets."""
        return not self.files


def parse_line(line: bytes) -> AnyEvent | None:
    """Return the event of one line without its newline; None when it is damaged."""
    try:
        return _decode_event(line)
    except msgspec.MsgspecError:
        pass
    try:
        record = _decode_any(line)
        return UnknownEvent(
            seq=int(record["seq"]), ts=float(record["ts"]), v=int(record["v"]), original_type=str(record["type"])
        )
    except (msgspec.MsgspecError, KeyError, ValueError, TypeError):
        return None


def read_file(path: Path, start: int, limit_bytes: int, *, skip_damaged: bool = False) -> FileBatch | None:
    """Read the whole lines after ``start``; None when there is none yet. Reads at most ``limit_bytes``.

    With ``skip_damaged`` a stretch of ``limit_bytes`` without a newline is skipped as one damaged line.
    """
    with path.open("rb") as file:
        file.seek(start)
        data = file.read(limit_bytes)
    cut = data.rfind(b"\n") + 1
    if cut == 0:
        return FileBatch(path.name, start, start + len(data), (), 1) if skip_damaged and data else None
    events: list[AnyEvent] = []
    damaged = 0
    for line in data[: cut - 1].split(b"\n"):
        event = parse_line(line) if line else None
        if event is not None:
            events.append(event)
        elif line:
            damaged += 1
    return FileBatch(path.name, start, start + cut, tuple(events), damaged)


def read_batch(run_dir: Path, offsets: Mapping[str, int], limit_bytes: int = 4 << 20) -> TailBatch:
    """Read what was written to any log of a run since ``offsets`` (by file name; absent means 0).

    Args:
        run_dir: The run directory; may vanish while it is read.
        offsets: Where each file was read up to.
        limit_bytes: Most to read of one log; once that much was read of any, the rest waits for the next call.

    Raises:
        OSError: A log cannot be read (permission, a broken disk).
    """
    layout = RunLayout(run_dir)
    # The end of a run is the last line of all. Its supervisor's log is measured before the others and read after
    # them, so that whoever sees the end has seen everything before it.
    ends = {path: _size(path) for path in layout.event_files() if is_supervisor_log(path)}
    files: list[FileBatch] = []
    left = limit_bytes
    more = False
    for path in layout.event_files():
        start = offsets.get(path.name, 0)
        unread = ends.get(path, _size(path)) - start
        if unread <= 0:
            continue
        if left <= 0 or (more and path in ends):
            more = True
            break
        # Each log may take the whole limit: the rest that another left over could cut a good line in two.
        try:
            batch = read_file(path, start, min(unread, limit_bytes), skip_damaged=unread >= limit_bytes)
        except FileNotFoundError:
            continue
        more = more or unread > limit_bytes
        if batch is not None:
            files.append(batch)
            left -= batch.end - batch.start
    return TailBatch(tuple(files), more)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
