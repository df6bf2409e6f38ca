"""The nodes and ranks of a run for its page: from the mirror alone, asking no host."""

from __future__ import annotations

from pathlib import Path

from core.contracts.nodes import NodeStatus, RunNodes
from core.contracts.placement import LOCAL_NODE, NodePlacement, Placement
from core.fleet.parts import Part, parts_of
from core.fleet.rank_progress import rank_statuses, straggler_sentence
from core.runlog.layout import RunLayout
from core.runlog.placements import is_elsewhere, read_placement


def nodes_of(run_dir: Path) -> RunNodes:
    """Return the nodes and ranks of a run as they stand here. Costs a few file reads for each node and rank."""
    placement = read_placement(run_dir) or Placement(nodes=(NodePlacement(node=LOCAL_NODE),))
    nodes = tuple(placed.node for placed in placement.nodes)
    ranks = rank_statuses(run_dir, nodes)
    parts = parts_of(run_dir, placement)
    is_open = any(not part.has_ended for part in parts)
    return RunNodes(
        nodes=tuple(_status(run_dir, part, is_mirrored=is_elsewhere(placement)) for part in parts),
        ranks=ranks,
        straggler=straggler_sentence(ranks, run_dir, nodes) if is_open else "",
    )


def _status(run_dir: Path, part: Part, *, is_mirrored: bool) -> NodeStatus:
    placed, link = part.placed, part.link
    size = link.stdout_bytes
    if not size:
        path = RunLayout(run_dir).stdout(placed.node)
        size = path.stat().st_size if path.exists() else 0
    return NodeStatus(
        node=placed.node,
        host=placed.host,
        state=part.state,
        message=part.message or link.message,
        devices=placed.devices,
        last_contact=link.last_contact if is_mirrored and placed.host else None,
        is_reachable=link.is_reachable,
        alive_pids=part.pids,
        stdout_start=link.stdout_start,
        stdout_bytes=size,
    )
