"""One log of all nodes of a run: whole lines, each with its node before it, in the order in which they were written.

How: ``merged.log`` in the run directory only ever grows, so that an offset into it stays good. What came since the last
look is cut into pieces at the times of ``stdout.<node>.index`` and appended in order of time; a node whose output comes
late (its host was out of reach) is appended when it comes. It can be removed at any time and is then made anew. The
nodes' own outputs are left as they are.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from core.contracts.mirrors import LinkRecord
from core.runlog.layout import RunLayout

MERGED_LOG = "merged.log"
_STATE = "merged.json"
_LOCK = ".merged.lock"
_LONGEST_LINE_BYTES = 64 << 10
_MOST_BYTES = 32 << 20
"""Most of one node's output to take in at once; older parts are passed over with a line that says so."""


class _State(msgspec.Struct, kw_only=True):
    """How far the log has come: its own size, and what of each node's output (as it is there) and index is in it."""

    size: int = 0
    outputs: dict[str, int] = {}
    indexes: dict[str, int] = {}
    last_ts: dict[str, float] = {}


@dataclass(frozen=True, slots=True)
class _Piece:
    """Whole lines of one node, written up to ``ts``."""

    ts: float
    node: str
    data: bytes


def merged_log(run_dir: Path, nodes: Sequence[str], *, is_ended: bool = False) -> Path:
    """Bring the merged log up to date and return its path.

    Args:
        run_dir: The run directory.
        nodes: The run's nodes, of all attempts.
        is_ended: Nothing more will be written: a last line without its end is taken as it is.

    Raises:
        OSError: A log cannot be read, or the merged one not written.
    """
    layout = RunLayout(run_dir)
    path = run_dir / MERGED_LOG
    with _locked(run_dir):
        state = _read_state(run_dir)
        if path.exists() and all(_end(layout, node) <= state.outputs.get(node, 0) for node in nodes):
            return path
        pieces = [piece for node in nodes for piece in _new_pieces(layout, node, state, is_ended=is_ended)]
        with path.open("ab") as file:
            # What a reader that was killed had appended, but not counted, is taken back.
            file.truncate(state.size)
            file.seek(0, os.SEEK_END)
            for piece in sorted(pieces, key=lambda piece: piece.ts):
                file.write(_prefixed(piece))
            state.size = file.tell()
        partial = run_dir / f".{_STATE}.tmp"
        partial.write_bytes(msgspec.json.encode(state))
        partial.replace(run_dir / _STATE)
    return path


@contextlib.contextmanager
def _locked(run_dir: Path) -> Generator[None]:
    descriptor = os.open(run_dir / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _read_state(run_dir: Path) -> _State:
    if not (run_dir / MERGED_LOG).exists():
        return _State()
    try:
        return msgspec.json.decode((run_dir / _STATE).read_bytes(), type=_State)
    except (OSError, msgspec.MsgspecError):
        return _State()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _base(layout: RunLayout, node: str) -> int:
    """Return the offset in the node's whole output of the first byte that is here: not 0 where it is huge."""
    try:
        return msgspec.json.decode(layout.link(node).read_bytes(), type=LinkRecord).stdout_start
    except (OSError, msgspec.MsgspecError):
        return 0


def _end(layout: RunLayout, node: str) -> int:
    size = _size(layout.stdout(node))
    return _base(layout, node) + size if size else 0


def _new_pieces(layout: RunLayout, node: str, state: _State, *, is_ended: bool) -> list[_Piece]:
    """Return the node's new whole lines and move the state on past them."""
    path, base = layout.stdout(node), _base(layout, node)
    start, end = state.outputs.get(node, 0), base + _size(path)
    if end <= start:
        return []
    begin = max(start, base, end - _MOST_BYTES)
    passed_over = begin - start
    with path.open("rb") as file:
        file.seek(begin - base)
        data = file.read(_MOST_BYTES)
    data = data if is_ended else _whole_lines(data)
    marks = _new_marks(layout, node, state)
    state.outputs[node] = begin + len(data)
    pieces = _cut(node, data, begin, marks, state.last_ts.get(node, 0.0))
    if pieces:
        state.last_ts[node] = pieces[-1].ts
    if passed_over:
        note = f"... {max(passed_over >> 20, 1)} MiB of this node's output are left out here; look at it alone.\n"
        pieces.insert(0, _Piece(pieces[0].ts if pieces else 0.0, node, note.encode()))
    return pieces


def _whole_lines(data: bytes) -> bytes:
    """Return the data up to its last line's end; all of it where a line is endless."""
    cut = data.rfind(b"\n") + 1
    return data if len(data) - cut > _LONGEST_LINE_BYTES else data[:cut]


def _new_marks(layout: RunLayout, node: str, state: _State) -> list[tuple[float, int]]:
    """Return the lines of the node's index that were not used yet, as (Unix seconds, bytes of output by then)."""
    path = layout.stdout_index(node)
    start = state.indexes.get(node, 0)
    try:
        with path.open("rb") as file:
            file.seek(start)
            text = file.read()
    except FileNotFoundError:
        return []
    whole = text[: text.rfind(b"\n") + 1]
    marks: list[tuple[float, int]] = []
    used = 0
    for line in whole.splitlines(keepends=True):
        ts, _, size = line.partition(b" ")
        with contextlib.suppress(ValueError):
            marks.append((float(ts), int(size)))
        if marks and marks[-1][1] <= state.outputs.get(node, 0):
            used += len(line)
    state.indexes[node] = start + used
    return marks


def _cut(node: str, data: bytes, begin: int, marks: list[tuple[float, int]], since: float) -> list[_Piece]:
    """Cut lines at the index's marks; a line belongs to the mark by which it was whole. Times never fall."""
    pieces: list[_Piece] = []
    at, latest = 0, since
    for ts, size in marks:
        end = data.rfind(b"\n", at, max(at, size - begin)) + 1
        latest = max(latest, ts)
        if end > at:
            pieces.append(_Piece(latest, node, data[at:end]))
            at = end
    if at < len(data):
        pieces.append(_Piece(latest, node, data[at:]))
    return pieces


def _prefixed(piece: _Piece) -> bytes:
    """Return the lines with the node before each of them."""
    before = f"{piece.node} | ".encode()
    body = piece.data.removesuffix(b"\n")
    return before + body.replace(b"\n", b"\n" + before) + b"\n"
