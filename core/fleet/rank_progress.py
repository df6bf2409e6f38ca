"""How far each rank of a run is, and whether one holds the others up: from the ends of the ranks' event logs.

Only the last 64 KiB of each log are read, so that it costs the same however long the run is. Times are those of the
ranks' hosts; ``skews`` sets them against each other. It judges nothing but steps and times.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from core.contracts.events import MetricEvent
from core.contracts.nodes import RankStatus
from core.runlog.placements import rank_logs
from core.runlog.tail import read_file

_TAIL_BYTES = 64 << 10
_MOST_STEPS = 20
_STUCK_STEPS = 3
_MIN_LAG_S = 0.25
_LAG_SHARE = 0.25
"""A rank holds the others up when it is later by this share of a step's time, and by ``_MIN_LAG_S``."""


@dataclass(frozen=True, slots=True)
class _Tail:
    """The last steps of one rank, with the times at which it wrote them."""

    rank: int
    node: str
    steps: Mapping[int, float]
    ts: float | None


def rank_statuses(
    run_dir: Path, nodes: Sequence[str], skews: Mapping[str, float] | None = None
) -> tuple[RankStatus, ...]:
    """Return every rank that wrote events, by number.

    Args:
        run_dir: The run directory, or its mirror.
        nodes: The nodes of the present attempt.
        skews: Seconds by which a node's clock is ahead of ours; 0 where it is not known.
    """
    tails = [_read(path, rank, node, (skews or {}).get(node, 0.0)) for path, rank, node in rank_logs(run_dir, nodes)]
    latest: dict[int, _Tail] = {}
    for tail in tails:  # a rank that moved to another node has a log on both
        known = latest.get(tail.rank)
        if known is None or (tail.ts or 0.0) > (known.ts or 0.0):
            latest[tail.rank] = tail
    lags = _lags(list(latest.values()))
    return tuple(
        RankStatus(
            rank=rank,
            node=tail.node,
            step=max(tail.steps, default=None),
            ts=tail.ts,
            lag_s=lags.get(rank),
        )
        for rank, tail in sorted(latest.items())
    )


def _read(path: Path, rank: int, node: str, skew_s: float) -> _Tail:
    try:
        start = max(0, path.stat().st_size - _TAIL_BYTES)
        batch = read_file(path, start, _TAIL_BYTES)
    except OSError:
        batch = None
    events = batch.events if batch is not None else ()
    steps: dict[int, float] = {}
    for event in events:
        if isinstance(event, MetricEvent):
            if steps and event.step < next(reversed(steps)):
                steps.clear()  # it was resumed from an earlier step
            steps.setdefault(event.step, event.ts - skew_s)
    last = list(steps.items())[-_MOST_STEPS:]
    return _Tail(rank, node, dict(last), events[-1].ts - skew_s if events else None)


def _lags(tails: Sequence[_Tail]) -> dict[int, float]:
    """Return each rank's median delay behind the first to arrive at the same step."""
    common = set[int].intersection(*(set(tail.steps) for tail in tails)) if len(tails) > 1 else set[int]()
    if not common:
        return {}
    first = {step: min(tail.steps[step] for tail in tails) for step in common}
    return {tail.rank: statistics.median(tail.steps[step] - first[step] for step in common) for tail in tails}


def straggler_sentence(ranks: Sequence[RankStatus], run_dir: Path, nodes: Sequence[str]) -> str:
    """Return which rank holds the others up, as a sentence; empty when none does."""
    moving = [rank for rank in ranks if rank.step is not None]
    if len(moving) < 2:
        return ""
    ahead = max(moving, key=lambda rank: rank.step or 0)
    behind = min(moving, key=lambda rank: rank.step or 0)
    if (ahead.step or 0) - (behind.step or 0) >= _STUCK_STEPS:
        return (
            f"Rank {behind.rank} on {behind.node} is at step {behind.step}, while rank {ahead.rank} is at {ahead.step}."
        )
    late = max(moving, key=lambda rank: rank.lag_s or 0.0)
    step_time_s = _step_time_s(run_dir, nodes, late)
    if late.lag_s is None or late.lag_s < max(_MIN_LAG_S, _LAG_SHARE * step_time_s):
        return ""
    return f"Rank {late.rank} on {late.node} comes to each step {late.lag_s:.1f} s after the first."


def _step_time_s(run_dir: Path, nodes: Sequence[str], of: RankStatus) -> float:
    """Return the median time of a rank's last steps; 0 when it made fewer than two."""
    for path, rank, node in rank_logs(run_dir, nodes):
        if (rank, node) == (of.rank, of.node):
            times = list(_read(path, rank, node, 0.0).steps.values())
            gaps = [later - earlier for earlier, later in pairwise(times)]
            return statistics.median(gaps) if gaps else 0.0
    return 0.0
