"""Which nodes a run has had: reads the placements in its directory, the present one and those of earlier attempts.

A node's name keeps its host and its role (head or not) over all attempts of a run, so that what a log's lines mean can
be told from its name alone. Choosing hosts and names is the launcher's work.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from core.contracts.placement import LOCAL_NODE, Placement
from core.runlog.layout import PLACEMENT, SUPERVISOR_RANK

HERE = ("", LOCAL_NODE)
"""What a placement calls this machine as a host."""
EARLIER_PLACEMENTS = "placement.attempt*.json"
_EVENT_LOG = re.compile(r"events\.(?P<node>.+)\.(?P<rank>[^.]+)\.jsonl")
_TELEMETRY_LOG = re.compile(r"telemetry\.(?P<node>.+)\.jsonl")
_decode = msgspec.json.Decoder(Placement).decode


def read_placement(run_dir: Path) -> Placement | None:
    """Return where a run is; None when it is on this machine alone, or its record is damaged."""
    return _read(run_dir / PLACEMENT)


def earlier_placements(run_dir: Path) -> tuple[Placement, ...]:
    """Return where earlier attempts of a run were, oldest first."""
    found = [placement for path in run_dir.glob(EARLIER_PLACEMENTS) if (placement := _read(path)) is not None]
    return tuple(sorted(found, key=lambda placement: placement.attempt))


def is_elsewhere(placement: Placement | None) -> bool:
    """Tell whether a run is on other machines, or is a cluster's: then what is here is a mirror of it."""
    if placement is None:
        return False
    return placement.engine != "direct" or any(placed.host not in HERE for placed in placement.nodes)


def is_mirrored(placement: Placement | None) -> bool:
    """Tell whether files of a run must be brought here: some of its nodes write them elsewhere."""
    return placement is not None and any(placed.host not in HERE for placed in placement.nodes)


def heads_of(run_dir: Path) -> frozenset[str]:
    """Return the nodes that were the head in some attempt; empty for a run without a placement: every node counts."""
    placement = read_placement(run_dir)
    if placement is None:
        return frozenset()
    return frozenset(known.head.node for known in (placement, *earlier_placements(run_dir)))


def node_of_log(file: str) -> str:
    """Return the node that wrote an event or telemetry log, from the log's name."""
    match = _EVENT_LOG.fullmatch(file) or _TELEMETRY_LOG.fullmatch(file)
    return match["node"] if match else LOCAL_NODE


def rank_logs(run_dir: Path, nodes: Sequence[str]) -> list[tuple[Path, int, str]]:
    """Return the event logs that ranks of some nodes wrote, with rank and node, by rank."""
    found: list[tuple[Path, int, str]] = []
    for path in run_dir.glob("events.*.jsonl"):
        match = _EVENT_LOG.fullmatch(path.name)
        if match is not None and match["rank"].isdecimal() and match["node"] in nodes:
            found.append((path, int(match["rank"]), match["node"]))
    return sorted(found, key=lambda log: (log[1], log[2]))


def speaks_for_run(file: str, heads: frozenset[str]) -> bool:
    """Tell whether a log's states, restarts and results are the run's: those of the other nodes are their own."""
    return not heads or node_of_log(file) in heads


def curve_name(file: str, key: str, heads: frozenset[str], *, is_telemetry: bool) -> str:
    """Return the name in its run of a curve that a log holds under ``key``.

    Telemetry of a node other than this machine is ``<node>:<key>``. A metric of rank 0, or of the head's own worker,
    keeps its name; of a further rank it is ``<key> [rank N]`` and of another node's worker ``<key> [<node>]``, so that
    no two writers ever share a curve.
    """
    if is_telemetry:
        node = node_of_log(file)
        return key if node == LOCAL_NODE else f"{node}:{key}"
    match = _EVENT_LOG.fullmatch(file)
    if match is None:
        return key
    if match["rank"].isdecimal():
        return f"{key} [rank {int(match['rank'])}]" if int(match["rank"]) else key
    if match["rank"] == SUPERVISOR_RANK or speaks_for_run(file, heads):
        return key
    return f"{key} [{match['node']}]"


def _read(path: Path) -> Placement | None:
    try:
        placement = _decode(path.read_bytes())
    except (OSError, msgspec.MsgspecError):
        return None
    return placement if placement.nodes else None
