"""The nodes and ranks of a run as the command line shows them: tables for people, plain values for scripts."""

from __future__ import annotations

from typing import Any

from core.cli.output import local_time, table
from core.contracts.nodes import RunNodes
from core.contracts.placement import LOCAL_NODE


def is_elsewhere(nodes: RunNodes) -> bool:
    """Tell whether a run is on more than this machine."""
    return any(node.node != LOCAL_NODE for node in nodes.nodes)


def nodes_document(nodes: RunNodes) -> dict[str, Any]:
    """Return the nodes and ranks of a run as plain values."""
    return {
        "nodes": [
            {
                "node": node.node,
                "host": node.host,
                "state": node.state.value if node.state else None,
                "message": node.message,
                "devices": list(node.devices),
                "is_reachable": node.is_reachable,
                "last_contact": node.last_contact,
                "alive_pids": None if node.alive_pids is None else list(node.alive_pids),
            }
            for node in nodes.nodes
        ],
        "ranks": [
            {"rank": rank.rank, "node": rank.node, "step": rank.step, "ts": rank.ts, "lag_s": rank.lag_s}
            for rank in nodes.ranks
        ],
        "straggler": nodes.straggler,
    }


def nodes_text(nodes: RunNodes) -> str:
    """Return the nodes and ranks of a run as tables."""
    rows = [
        (
            node.node,
            node.host or "this machine",
            node.state.value if node.state else "unknown",
            ",".join(map(str, node.devices)) or "-",
            "yes" if node.is_reachable else f"not since {local_time(node.last_contact)}",
            _processes(node.alive_pids),
            node.message,
        )
        for node in nodes.nodes
    ]
    parts = [table(("NODE", "HOST", "STATE", "DEVICES", "REACHABLE", "PROCESSES", "MESSAGE"), rows)]
    if nodes.ranks:
        ranks = [
            (
                str(rank.rank),
                rank.node,
                "-" if rank.step is None else str(rank.step),
                "-" if rank.lag_s is None else f"{rank.lag_s:.2f}",
            )
            for rank in nodes.ranks
        ]
        parts.append(table(("RANK", "NODE", "STEP", "LAG S"), ranks))
    return "\n\n".join([*parts, nodes.straggler] if nodes.straggler else parts)


def _processes(pids: tuple[int, ...] | None) -> str:
    if pids is None:
        return "-"
    return f"left: {', '.join(map(str, pids))}" if pids else "none left"
