"""Where a run is, for its supervisor and worker: its placement, or this machine alone when it has none."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from core.contracts.placement import LOCAL_NODE, NodePlacement, Placement
from core.runlog.layout import RunLayout


def local_placement(run_dir: Path, processes: int = 1) -> Placement:
    """Return the placement of a run on this machine alone."""
    node = NodePlacement(
        node=LOCAL_NODE,
        processes=processes,
        work_dir=str(run_dir.parent.parent),
        run_dir=str(run_dir),
        python=sys.executable,
    )
    return Placement(nodes=(node,))


def placement_of(run_dir: Path, processes: int = 1) -> Placement:
    """Return where a run is.

    Args:
        run_dir: The run directory.
        processes: Ranks on this machine, for a run without a placement.

    Raises:
        msgspec.MsgspecError: The record is damaged.
        OSError: It cannot be read.
    """
    try:
        data = RunLayout(run_dir).placement.read_bytes()
    except FileNotFoundError:
        return local_placement(run_dir, processes)
    return msgspec.json.decode(data, type=Placement)
