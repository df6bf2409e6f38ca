"""Reads a run's output by byte offset in bounded pieces, however large it or one of its lines is."""

from __future__ import annotations

from pathlib import Path

from core.contracts.errors import UserError
from core.contracts.placement import LOCAL_NODE
from core.contracts.runs import LogChunk
from core.runlog.layout import RunLayout
from core.runlog.placements import earlier_placements, read_placement
from core.workspace.merged_log import merged_log

_UTF8_CONTINUATION = 0xC0
_UTF8_MARK = 0x80


def output_of(run_dir: Path, node: str = "") -> Path:
    """Return the file with a run's output: of one node, or merged where there are several and none is named.

    Raises:
        UserError: The run has no such node.
        OSError: The merged output cannot be written.
    """
    layout = RunLayout(run_dir)
    placement = read_placement(run_dir)
    if placement is None:
        if node not in ("", LOCAL_NODE):
            raise UserError(f"The run has no node {node!r}.", "It ran on this machine alone.")
        return layout.stdout()
    placements = (*earlier_placements(run_dir), placement)
    nodes = tuple(dict.fromkeys(placed.node for known in placements for placed in known.nodes))
    if node:
        if node not in nodes:
            raise UserError(f"The run has no node {node!r}.", f"Its nodes are: {', '.join(nodes)}.")
        return layout.stdout(node)
    if len(nodes) == 1:
        return layout.stdout(nodes[0])
    is_ended = all(layout.exit_record(placed.node).exists() for placed in placement.nodes)
    return merged_log(run_dir, nodes, is_ended=is_ended)


def read_log(path: Path, start: int, limit: int = 256_000) -> LogChunk:
    """Return text from a byte offset; a negative ``start`` counts from the end. A missing file is empty.

    The piece begins and ends on whole UTF-8 characters; undecodable bytes become the replacement character.

    Raises:
        OSError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            total = file.seek(0, 2)
            begin = max(0, total + start) if start < 0 else min(start, total)
            file.seek(begin)
            data = file.read(limit)
    except FileNotFoundError:
        return LogChunk(text="", start=0, end=0, total=0)
    if start < 0:
        skipped = _continuation_bytes(data)
        begin, data = begin + skipped, data[skipped:]
    end = begin + len(data)
    if end < total:
        data = _whole_characters(data)
        end = begin + len(data)
    return LogChunk(text=data.decode("utf-8", errors="replace"), start=begin, end=end, total=total)


def _continuation_bytes(data: bytes) -> int:
    """Return how many bytes at the start belong to a character begun before."""
    count = 0
    while count < min(3, len(data)) and data[count] & _UTF8_CONTINUATION == _UTF8_MARK:
        count += 1
    return count


def _whole_characters(data: bytes) -> bytes:
    """Cut a character that the end of the piece splits, so that the next piece begins with it."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & _UTF8_CONTINUATION == _UTF8_MARK:
            continue
        needed = 1 + (byte >= 0xC0) + (byte >= 0xE0) + (byte >= 0xF0)
        return data[:-back] if needed > back and len(data) > back else data
    return data
