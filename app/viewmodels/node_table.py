"""The nodes and ranks of a run as rows: state, host, devices, last contact, steps, lag, and what is left after the end."""

from __future__ import annotations

import time
from dataclasses import dataclass

from app.viewmodels.host_wording import age_text, clock_text, host_title
from app.viewmodels.wording import STATE_TITLES, size_text, span_text
from core.contracts.hosts import LOCAL_HOST
from core.contracts.nodes import NodeStatus, RankStatus, RunNodes
from core.contracts.states import RunState

_FRESH_S = 15.0
_MIN_LAG_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRow:
    """One node in words. ``is_silent``: its host does not answer, which says nothing about the run there."""

    node: str
    host: str
    state: RunState | None
    state_text: str
    contact: str
    devices: str
    ranks: str
    processes: str
    message: str
    is_silent: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RankRow:
    """One rank in words. ``behind`` is how many steps it lags behind the first, None where unknown."""

    rank: int
    node: str
    step: str
    last_event: str
    lag: str
    behind: int | None


def node_rows(nodes: RunNodes, now: float | None = None) -> tuple[NodeRow, ...]:
    """Return the rows of all nodes, in their order."""
    moment = time.time() if now is None else now
    return tuple(_node_row(node, nodes.ranks, moment) for node in nodes.nodes)


def rank_rows(nodes: RunNodes, now: float | None = None) -> tuple[RankRow, ...]:
    """Return the rows of all ranks, in their order."""
    moment = time.time() if now is None else now
    furthest = max((rank.step for rank in nodes.ranks if rank.step is not None), default=None)
    return tuple(_rank_row(rank, furthest, moment) for rank in sorted(nodes.ranks, key=lambda rank: rank.rank))


def is_spread(nodes: RunNodes) -> bool:
    """Tell whether there is more to see than one process on this computer."""
    return len(nodes.nodes) > 1 or len(nodes.ranks) > 1 or any(node.host for node in nodes.nodes)


def nodes_sentence(nodes: RunNodes) -> str:
    """Return how many nodes and ranks there are, and which do not answer."""
    parts = [_count(len(nodes.nodes), "node")]
    if nodes.ranks:
        parts.append(_count(len(nodes.ranks), "rank"))
    silent = [node for node in nodes.nodes if not node.is_reachable]
    if silent:
        names = ", ".join(node.host or node.node for node in silent[:3])
        parts.append(f"no answer from {names}" + (f" and {len(silent) - 3} more" if len(silent) > 3 else ""))
    return " · ".join(parts)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _node_row(node: NodeStatus, ranks: tuple[RankStatus, ...], now: float) -> NodeRow:
    own = [rank.rank for rank in ranks if rank.node == node.node]
    is_over = node.state is not None and node.state.is_terminal
    return NodeRow(
        node=node.node,
        host=host_title(node.host or LOCAL_HOST),
        state=node.state,
        state_text="Not started yet" if node.state is None else STATE_TITLES[node.state],
        contact=_contact_text(node, now),
        devices=f"GPU {', '.join(map(str, node.devices))}" if node.devices else "Processor",
        ranks=_range_text(own),
        processes=_processes_text(node.alive_pids, is_over=is_over),
        message=_message_of(node),
        is_silent=not node.is_reachable,
    )


def _contact_text(node: NodeStatus, now: float) -> str:
    if not node.host:
        return "Here"
    if not node.is_reachable:
        return "No answer yet" if node.last_contact is None else f"No answer since {clock_text(node.last_contact, now)}"
    if node.last_contact is None or now - node.last_contact < _FRESH_S:
        return "Answers"
    return f"Last heard {age_text(now - node.last_contact)}"


def _processes_text(alive: tuple[int, ...] | None, *, is_over: bool) -> str:
    if not is_over:
        return ""
    if alive is None:
        return "Not verified yet"
    if alive:
        return f"{len(alive)} left: {', '.join(map(str, alive[:6]))}" + ("…" if len(alive) > 6 else "")
    return "None left, verified"


def _message_of(node: NodeStatus) -> str:
    if node.stdout_start:
        hidden = f"The first {size_text(node.stdout_start)} of its output stay on the host."
        return f"{node.message} {hidden}".strip()
    return node.message


def _range_text(ranks: list[int]) -> str:
    if not ranks:
        return ""
    ranks = sorted(ranks)
    whole = ranks == list(range(ranks[0], ranks[-1] + 1))
    if whole and len(ranks) > 1:
        return f"{ranks[0]}–{ranks[-1]}"
    return ", ".join(map(str, ranks))


def _rank_row(rank: RankStatus, furthest: int | None, now: float) -> RankRow:
    behind = None if rank.step is None or furthest is None else furthest - rank.step
    lag = ""
    if rank.lag_s is not None:
        lag = "In time" if rank.lag_s < _MIN_LAG_S else f"{span_text(rank.lag_s)} late"
    return RankRow(
        rank=rank.rank,
        node=rank.node,
        step="" if rank.step is None else f"{rank.step:,}".replace(",", "\u202f"),
        last_event="" if rank.ts is None else age_text(max(now - rank.ts, 0.0)),
        lag=lag,
        behind=behind,
    )
