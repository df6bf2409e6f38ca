"""What the nodes of a run wrote since it was last asked, as chunks in an order that a reader may trust.

The supervisors' logs are measured before everything else is read, and read after it; the exit records come last of all. So
whoever has taken in the end of a run has taken in all before it, as ``core.runlog.tail`` promises for local runs. Reads
only; of a large output only the last part. One thread.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from core.contracts.agent import FileChunk
from core.runlog.layout import ENVIRONMENT, STDOUT_PREFIX, SUPERVISOR_RANK

CHUNK_BYTES = 256 << 10
_RECORD_LIMIT_BYTES = 4 << 20


class NodeFiles:
    """Names of the files that nodes of a run write and that are followed; everything else stays on the host.

    Attributes:
        ends: The supervisors' logs, with the states of the run.
        streams: Files that only grow, the former among them.
        first_records: Small files that are replaced as a whole; ``last_records`` those that tell how it ended.
    """

    def __init__(self, nodes: tuple[str, ...]) -> None:
        either = "|".join(re.escape(node) for node in nodes)
        self.ends = re.compile(rf"events\.({either})\.{SUPERVISOR_RANK}\.jsonl")
        self.streams = re.compile(
            rf"(?:events\.(?P<of_rank>{either})\.[A-Za-z0-9_-]+\.jsonl|telemetry\.(?P<host>{either})\.jsonl"
            rf"|{STDOUT_PREFIX}\.(?P<output>{either})\.(?:log|index)|supervisor\.(?P<own>{either})\.log)"
        )
        self.first_records = re.compile(rf"supervisor\.({either})\.json|{re.escape(ENVIRONMENT)}")
        self.last_records = re.compile(rf"exit\.({either})(\.attempt\d+)?\.json")

    def node_of_stream(self, name: str) -> str | None:
        """Return the node that writes a growing file; None when it is not one of ours."""
        found = self.streams.fullmatch(name)
        return None if found is None else next(node for node in found.groupdict().values() if node)

    def is_record(self, name: str) -> bool:
        """Return whether a file is one of the records."""
        return bool(self.first_records.fullmatch(name) or self.last_records.fullmatch(name))


@dataclass(slots=True)
class _Record:
    stamp: tuple[int, int]
    data: bytes


class RunPusher:
    """Follows the files of some nodes of one run directory on this machine.

    Args:
        run_dir: The run directory; may vanish.
        nodes: Names of the nodes whose files are wanted.
        offsets: Where to go on, by file name.
        backlog_bytes: Unread output beyond this is passed over...
        tail_bytes: ... but for this last part, from the start of a line.
    """

    def __init__(
        self, run_dir: Path, nodes: tuple[str, ...], offsets: Mapping[str, int], *, backlog_bytes: int, tail_bytes: int
    ) -> None:
        self._run_dir = run_dir
        self._offsets = dict(offsets)
        self._backlog_bytes = backlog_bytes
        self._tail_bytes = tail_bytes
        self._records: dict[str, _Record] = {}
        self._files = NodeFiles(nodes)

    def chunks(self) -> Iterator[FileChunk]:
        """Yield everything new, in order; when it is through, all that was written before the call has been yielded.

        May be left before it is through: the next call goes on where it was.

        Raises:
            OSError: A file that is there cannot be read.
        """
        files, names = self._files, self._names()
        ends = {name: self._size(name) for name in names if files.ends.fullmatch(name)}
        lasts = [name for name in names if files.last_records.fullmatch(name)]
        for name in names:
            if files.first_records.fullmatch(name):
                yield from self._record(name)
        for name in names:
            if name not in ends and files.streams.fullmatch(name):
                yield from self._stream(name, self._size(name))
        for name, size in ends.items():
            yield from self._stream(name, size)
        for name in lasts:
            yield from self._record(name)

    def _names(self) -> list[str]:
        try:
            return sorted(entry.name for entry in os.scandir(self._run_dir))
        except FileNotFoundError:
            return []

    def _size(self, name: str) -> int:
        try:
            return (self._run_dir / name).stat().st_size
        except FileNotFoundError:
            return 0

    def _stream(self, name: str, size: int) -> Iterator[FileChunk]:
        offset = self._offsets.get(name, 0)
        restart = offset > size
        if restart:
            offset = 0
        if name.startswith(STDOUT_PREFIX) and name.endswith(".log") and size - offset > self._backlog_bytes:
            offset, restart = self._line_start(name, size - self._tail_bytes), True
        while offset < size:
            data = self._read(name, offset, min(CHUNK_BYTES, size - offset))
            if not data:
                return
            self._offsets[name] = offset + len(data)
            yield FileChunk(
                run_id=self._run_dir.name, name=name, offset=offset, data=data, restart=restart, size=self._size(name)
            )
            offset += len(data)
            restart = False

    def _line_start(self, name: str, offset: int) -> int:
        """Return the start of the first line after an offset; the offset itself within an endless line."""
        position = self._read(name, offset, CHUNK_BYTES).find(b"\n")
        return offset if position < 0 else offset + position + 1

    def _read(self, name: str, offset: int, limit: int) -> bytes:
        try:
            with (self._run_dir / name).open("rb") as file:
                file.seek(offset)
                return file.read(limit)
        except FileNotFoundError:
            return b""

    def _record(self, name: str) -> Iterator[FileChunk]:
        """Yield a record whose content changed; one that is only touched (a heartbeat) is not sent again."""
        try:
            found = (self._run_dir / name).stat()
        except FileNotFoundError:
            return
        known = self._records.get(name)
        stamp = (found.st_ino, found.st_mtime_ns)
        if (known is not None and known.stamp == stamp) or found.st_size > _RECORD_LIMIT_BYTES:
            return
        data = self._read(name, 0, _RECORD_LIMIT_BYTES)
        is_new = known is None or known.data != data
        self._records[name] = _Record(stamp, data)
        if data and is_new:
            yield FileChunk(run_id=self._run_dir.name, name=name, offset=0, data=data, is_record=True, size=len(data))
