"""What the reader here knows of a node that the node's own files do not say, as ``link.<node>.json``."""

from __future__ import annotations

from pathlib import Path

import msgspec

from core.contracts.states import RunState
from core.jobs.records import write_record
from core.runlog.layout import RunLayout


class NodeLink(msgspec.Struct, frozen=True, kw_only=True):
    """How a node stands as seen from here; fields as in the links of hosts over SSH."""

    node: str
    last_contact: float | None = None
    is_reachable: bool = True
    state: RunState | None = None
    message: str = ""
    hint: str = ""
    stdout_start: int = 0
    stdout_bytes: int = 0
    alive_pids: tuple[int, ...] | None = None


def write_link(run_dir: Path, link: NodeLink) -> None:
    """Replace the node's link record."""
    write_record(RunLayout(run_dir).link(link.node), link)
