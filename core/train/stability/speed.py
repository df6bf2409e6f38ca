"""Watches how long steps take: a drop of the throughput, a rank that holds the others up, and waiting for data.

One slow step says nothing (a collection of garbage, a checkpoint, another program), so every judgement is of several
steps. Times are seconds by rank, the same on every rank. Nothing here decides what is done.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence

import numpy as np

from core.train.stability.windows import RecentValues

_RECENT_STEPS = 5
_LEAST_STEPS = 8
_STRAGGLER_PERIOD_STEPS = 16
_STANDS_OUT = 0.8
"""The second slowest rank takes less than this share of the slowest one's time when that is the cause."""
_LEAST_WAIT_S = 0.002
"""In steps of a millisecond or two, waiting is what the loop itself costs."""
_LEAST_DIFFERENCE_S = 0.005
"""What the scheduler of the operating system alone may cost is not called slow."""


class SpeedWatch:
    """Step times and waits of recent steps. One thread."""

    def __init__(self, window: int, slow_factor: float, max_wait_fraction: float) -> None:
        """Prepare an empty window.

        Args:
            window: Steps to keep.
            slow_factor: Time over the usual one that counts as slow.
            max_wait_fraction: Share of the step time spent waiting for data that is too much.
        """
        self._slow_factor = slow_factor
        self._max_wait_fraction = max_wait_fraction
        self._slowest = RecentValues(window)
        self._times: deque[tuple[float, ...]] = deque(maxlen=min(window, _STRAGGLER_PERIOD_STEPS))
        self._waits: deque[float] = deque(maxlen=window)
        self._totals: deque[float] = deque(maxlen=window)
        self._since_comparison = 0

    def add(self, times_s: tuple[float, ...], waits_s: Sequence[float]) -> None:
        """Take in the times of a step by rank and how long each rank waited for its data."""
        if not times_s:
            return
        if self._times and len(self._times[-1]) != len(times_s):  # resumed on another number of ranks
            self.load((), (), ())
        slowest = max(times_s)
        self._slowest.add(slowest)
        self._times.append(times_s)
        self._since_comparison += 1
        if waits_s:
            self._waits.append(max(waits_s))
            self._totals.append(max(slowest, *waits_s))

    def drop(self) -> str:
        """Return a sentence when recent steps have been much slower than those before, naming the slowest rank; else ''."""
        if len(self._slowest) < _LEAST_STEPS + _RECENT_STEPS or len(self._times) < _RECENT_STEPS:
            return ""
        usual = self._slowest.median()
        recent = list(self._times)[-_RECENT_STEPS:]
        now = sorted(max(times) for times in recent)[_RECENT_STEPS // 2]
        if now <= self._slow_factor * usual or now - usual < _LEAST_DIFFERENCE_S:
            return ""
        return f"Steps take {now:.3g} s, {now / usual:.1f} times their median of {usual:.3g} s{_who(recent, now)}."

    def straggler(self) -> str:
        """Return a sentence when one rank takes much longer than the usual one; looked for every 16th step; else ''."""
        if self._since_comparison < _STRAGGLER_PERIOD_STEPS or len(self._times[-1]) < 2:
            return ""
        self._since_comparison = 0
        by_rank = np.median(np.asarray(self._times), axis=0)
        rank = int(by_rank.argmax())
        usual = float(np.sort(by_rank)[(len(by_rank) - 1) // 2])
        slow = float(by_rank[rank])
        if slow <= self._slow_factor * usual or slow - usual < _LEAST_DIFFERENCE_S:
            return ""
        return f"Rank {rank} takes {slow:.3g} s a step, {slow / max(usual, 1e-9):.1f} times as long as the others."

    def waiting(self) -> float:
        """Return the share of recent steps' time spent waiting for data when that is too much; else 0."""
        if len(self._waits) < _LEAST_STEPS:
            return 0.0
        waited_s, total_s = sum(self._waits), sum(self._totals)
        if waited_s < _LEAST_WAIT_S * len(self._waits) or waited_s <= self._max_wait_fraction * total_s:
            return 0.0
        return waited_s / total_s

    def state_dict(self) -> dict[str, object]:
        """Return the windows as plain values."""
        return {
            "slowest": self._slowest.values(),
            "waits": list(self._waits),
            "totals": list(self._totals),
        }

    def load(self, slowest: Iterable[float], waits: Iterable[float], totals: Iterable[float]) -> None:
        """Go on from a state; the times by rank begin anew, for the ranks may be others."""
        self._slowest = RecentValues(self._slowest.size, slowest)
        self._times.clear()
        self._since_comparison = 0
        self._waits = deque(waits, maxlen=self._waits.maxlen)
        self._totals = deque(totals, maxlen=self._totals.maxlen)


def _who(recent: Sequence[tuple[float, ...]], slow_s: float) -> str:
    """Say which rank the others wait for; where they wait inside of collectives, all take as long and none is named."""
    if len(recent[-1]) < 2:
        return ""
    slow_steps = [step for step in recent if max(step) >= slow_s]
    if all(sorted(step)[-2] > _STANDS_OUT * max(step) for step in slow_steps):
        return ", on all ranks alike"
    rank = Counter(step.index(max(step)) for step in slow_steps).most_common(1)[0][0]
    return f"; the slowest rank is {rank}"
