"""Events of one log as columns: for each metric or telemetry name, its points as arrays.

Names that were written together share their step and time arrays, so that they are stored once. Points that a restart
made void are left out. Pure: knows nothing of the database.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from core.contracts.events import AnyEvent, AttemptEvent, MetricEvent, SampleEvent
from core.history.blocks import Floats, Ints
from core.history.extremes import Points, join
from core.runlog.fold import Restart
from core.runlog.placements import curve_name

METRIC = "metric"
TELEMETRY = "telemetry"


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """New points of one curve.

    Attributes:
        key: Name of the curve in its run.
        source: ``metric`` or ``telemetry``.
        points: Its points; columns written together share the very same ``step`` and ``ts`` arrays.
    """

    key: str
    source: str
    points: Points


@dataclass(slots=True)
class _Group:
    """Events that carry the same names; their values one after the other, without a list for each."""

    positions: list[int] = field(default_factory=list[int])
    steps: list[int] = field(default_factory=list[int])
    values: list[float | str] = field(default_factory=list[float | str])


def columns_of(
    file: str,
    events: Sequence[AnyEvent],
    times: Sequence[float],
    restarts: Sequence[Restart] = (),
    heads: frozenset[str] = frozenset(),
) -> list[Column]:
    """Return the points of the events, by name.

    Args:
        file: Name of the log.
        events: Consecutive events of it.
        times: Their times, never falling.
        restarts: Every restart of the run that is known; those in other logs void by time, those among ``events`` by order.
        heads: Nodes whose worker writes the run's own curves; empty for all. See ``core.runlog.placements``.
    """
    groups = _groups(events)
    voids = _voids(file, events, times, restarts)
    moments = np.asarray(times, np.float64)
    pieces: dict[tuple[str, str], list[tuple[Ints, Points]]] = {}
    for (source, keys), group in groups.items():
        positions, steps, table = _arrays(group, voids if source == METRIC else [])
        ts = moments[positions]
        for number, key in enumerate(keys):
            points = Points(steps, ts, np.ascontiguousarray(table[:, number]))
            name = curve_name(file, key, heads, is_telemetry=source == TELEMETRY)
            pieces.setdefault((source, name), []).append((positions, points))
    return [Column(key, source, _in_order(parts)) for (source, key), parts in pieces.items() if _has_points(parts)]


def _groups(events: Sequence[AnyEvent]) -> dict[tuple[str, tuple[str, ...]], _Group]:
    """Return events by the names they carry; the loop is what folding a long log costs most."""
    groups: dict[tuple[str, tuple[str, ...]], _Group] = {}
    for position, event in enumerate(events):
        if type(event) is MetricEvent:
            name, step, row = (METRIC, tuple(event.values)), event.step, event.values
        elif type(event) is SampleEvent:
            row = {key: value for key, value in event.values.items() if value is not None}
            name, step = (TELEMETRY, tuple(row)), event.seq
        else:
            continue
        group = groups.get(name)
        if group is None:
            group = groups[name] = _Group()
        group.positions.append(position)
        group.steps.append(step)
        group.values.extend(row.values())
    return groups


def merged(columns: Sequence[Column]) -> list[Column]:
    """Join columns of one name, which several logs may hold, in the order given."""
    by_name: dict[tuple[str, str], list[Column]] = {}
    for column in columns:
        by_name.setdefault((column.source, column.key), []).append(column)
    return [
        parts[0] if len(parts) == 1 else Column(key, source, join([part.points for part in parts]))
        for (source, key), parts in by_name.items()
    ]


def _arrays(group: _Group, voids: list[tuple[int, int | None]]) -> tuple[Ints, Ints, Floats]:
    """Return positions, steps and the table of values of the events that are not void."""
    positions = np.array(group.positions, np.int64)
    steps = np.array(group.steps, np.int64)
    table = np.array(group.values, np.float64).reshape(len(steps), -1)
    if voids:
        kept = ~_is_void(positions, steps, voids)
        positions, steps, table = positions[kept], steps[kept], table[kept]
    return positions, steps, table


def _voids(
    file: str, events: Sequence[AnyEvent], times: Sequence[float], restarts: Sequence[Restart]
) -> list[tuple[int, int | None]]:
    """Return for each restart the position before which, and the step after which, points are void."""
    own = [
        (position, event.resumed_from_step)
        for position, event in enumerate(events)
        if type(event) is AttemptEvent and event.attempt > 1
    ]
    others = [(bisect_right(times, restart.ts), restart.from_step) for restart in restarts if restart.file != file]
    return [void for void in (*own, *others) if void[0] > 0]


def _is_void(positions: Ints, steps: Ints, voids: list[tuple[int, int | None]]) -> NDArray[np.bool_]:
    is_void = np.zeros(len(steps), np.bool_)
    for before, from_step in voids:
        is_void |= (positions < before) & ((steps > from_step) if from_step is not None else True)
    return is_void


def _has_points(parts: list[tuple[Ints, Points]]) -> bool:
    return any(len(positions) for positions, _ in parts)


def _in_order(parts: list[tuple[Ints, Points]]) -> Points:
    """Join the parts of a name that was written in several companies, in the order written."""
    if len(parts) == 1:
        return parts[0][1]
    order = np.argsort(np.concatenate([positions for positions, _ in parts]), kind="stable")
    return join([points for _, points in parts])[order]
