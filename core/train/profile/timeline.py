"""Splits wall time among what went on: intervals with a category in, seconds by category out. Knows no profiler."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from core.contracts.profiles import (
    CATEGORIES,
    COMMUNICATION,
    COMPUTE,
    DATA_LOADING,
    IDLE,
    MEMORY_COPY,
    OPTIMIZER,
    CategoryTime,
    MemoryCurve,
)

ON_DEVICE = (OPTIMIZER, COMPUTE, COMMUNICATION, MEMORY_COPY, DATA_LOADING)
"""Of what goes on at once on a GPU, what counts: communication and loading only where they hide behind no computation."""
ON_CPU = (DATA_LOADING, OPTIMIZER, MEMORY_COPY, COMPUTE, COMMUNICATION)
"""The same where the CPU computes: there an inner operation is part of the marked span around it."""
_CURVE_POINTS = 500


class Interval(NamedTuple):
    """A stretch of time, in any one unit, that belongs to a category."""

    start: float
    end: float
    category: str


def split(intervals: Iterable[Interval], start: float, end: float, priority: Sequence[str]) -> dict[str, float]:
    """Return how long each category had the word between two times, ``idle`` included; the parts add up to the whole.

    Args:
        intervals: In any order, overlapping or not.
        start: Begin of the window; what lies outside of it is cut.
        end: Its end.
        priority: Of categories that go on at once the first here is counted.
    """
    rank = {name: index for index, name in enumerate(priority)}
    edges: list[tuple[float, int, int]] = []
    for one in intervals:
        first, last = max(one.start, start), min(one.end, end)
        if last > first and one.category in rank:
            edges += ((first, 1, rank[one.category]), (last, -1, rank[one.category]))
    edges.sort()
    found = dict.fromkeys((*priority, IDLE), 0.0)
    active = [0] * len(priority)
    now = start
    for at, change, index in edges:
        if at > now:
            found[next((name for name, count in zip(priority, active, strict=True) if count), IDLE)] += at - now
            now = at
        active[index] += change
    found[IDLE] += max(end - now, 0.0)
    return found


def categories(found: dict[str, float], unit_s: float) -> tuple[CategoryTime, ...]:
    """Return the records of a split; ``unit_s`` is how many seconds its unit has."""
    total = sum(found.values()) or 1.0
    return tuple(
        CategoryTime(name=name, seconds=found.get(name, 0.0) * unit_s, fraction=found.get(name, 0.0) / total)
        for name in CATEGORIES
    )


def decimated(device: str, points: Sequence[tuple[float, int]], points_kept: int = _CURVE_POINTS) -> MemoryCurve:
    """Return a curve of about ``points_kept`` points: of each span of time the highest value, so that no peak is lost.

    Args:
        device: Whose memory.
        points: (seconds, bytes), by time.
        points_kept: How many to keep about.
    """
    if len(points) > points_kept:
        first, last = points[0][0], points[-1][0]
        width = (last - first) / points_kept or 1.0
        highest: dict[int, tuple[float, int]] = {}
        for at, held in points:
            slot = int((at - first) / width)
            if slot not in highest or held > highest[slot][1]:
                highest[slot] = (at, held)
        points = list(highest.values())
    return MemoryCurve(
        device=device, times_s=tuple(at for at, _ in points), allocated_bytes=tuple(held for _, held in points)
    )
