"""Prints a node's part of a run directory as lines, as it grows: the pod's side of following by logs.

Nothing is kept but offsets; what was printed is not printed again by the same process. The supervisor's event log comes
last in each sweep, so that whoever sees the end of the run has seen everything before it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from core.fleet.kubernetes.log_lines import PIECE_BYTES, Beat, Begin, End, Piece, Record, line_of, packed, parts_of
from core.fleet.worker_wheel import worker_version
from core.runlog.layout import ENVIRONMENT, RunLayout, is_supervisor_log

BEAT_PERIOD_S = 5.0
_SWEEP_BYTES = 512 << 10
"""Most bytes of one file in one sweep: a flood of output must not hold up the events."""


class RunEcho:
    """Prints what is new in one node's files. One thread."""

    def __init__(self, run_dir: Path, node: str, write: Callable[[bytes], object]) -> None:
        """Prepare; prints nothing yet.

        Args:
            run_dir: The run directory in the pod.
            node: Whose files to print: those of the other nodes are theirs.
            write: Takes whole lines.
        """
        self._run_dir = run_dir
        self._node = node
        self._write = write
        self._offsets: dict[str, int] = {}
        self._versions: dict[str, int] = {}
        self._next_beat = 0.0

    def begin(self, token: str, attempt: int) -> None:
        """Say that this process begins."""
        self._put(Begin(node=self._node, token=token, attempt=attempt, ts=time.time(), version=worker_version()))

    def sweep(self) -> bool:
        """Print what is new, and a sign of life when one is due; return whether a file has more left."""
        grown = self._grown()
        more = False
        for path, size in grown:
            more = self._pieces(path, size) or more
        for path in self._small():
            self._whole(path)
        if time.monotonic() >= self._next_beat:
            self._next_beat = time.monotonic() + BEAT_PERIOD_S
            self._put(Beat(ts=time.time(), sizes=dict(self._offsets)))
        return more

    def end(self, state: str) -> None:
        """Print all that is left and the last word."""
        while self.sweep():
            pass
        self._put(End(ts=time.time(), state=state, sizes=dict(self._offsets)))

    def _put(self, record: Record) -> None:
        self._write(line_of(record))

    def _grown(self) -> list[tuple[Path, int]]:
        """Return the append-only files with their sizes; the supervisor's log, measured before the others, comes last."""
        layout = RunLayout(self._run_dir)
        events = sorted(self._run_dir.glob(f"events.{self._node}.*.jsonl"), key=is_supervisor_log, reverse=True)
        fixed = (layout.stdout(self._node), layout.stdout_index(self._node), layout.telemetry(self._node))
        others = [*fixed, self._run_dir / f"supervisor.{self._node}.log"]
        measured = [(path, _size(path)) for path in (*events, *others)]
        return sorted(measured, key=lambda found: is_supervisor_log(found[0]))

    def _pieces(self, path: Path, size: int) -> bool:
        offset = self._offsets.get(path.name, 0)
        limit = min(size, offset + _SWEEP_BYTES)
        if offset >= limit:
            return False
        with path.open("rb") as file:
            file.seek(offset)
            while offset < limit and (data := file.read(min(PIECE_BYTES, limit - offset))):
                self._put(Piece(file=path.name, offset=offset, data=packed(data)))
                offset += len(data)
        self._offsets[path.name] = offset
        return offset < size

    def _small(self) -> tuple[Path, ...]:
        layout = RunLayout(self._run_dir)
        records = (layout.supervisor(self._node), layout.exit_record(self._node))
        return (*records, self._run_dir / ENVIRONMENT) if self._node == "node0" else records

    def _whole(self, path: Path) -> None:
        """Print a small file anew when its content was replaced; a heartbeat that only touches it is told by the beat."""
        try:
            data = path.read_bytes()
            version = path.stat().st_mtime_ns
        except FileNotFoundError:
            return
        known = hash(data)
        if self._versions.get(path.name) == known:
            return
        self._versions[path.name] = known
        for part in parts_of(path.name, version, data):
            self._put(part)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
