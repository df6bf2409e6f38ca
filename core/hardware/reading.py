"""The two habits of every reader here: what cannot be read is None, and counters become rates by their differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import psutil

MINIMUM_INTERVAL_S = 0.02

T = TypeVar("T")


def attempt(read: Callable[[], T]) -> T | None:
    """Return what a psutil call returns, or None where this system or this user cannot have it."""
    try:
        return read()
    except (OSError, RuntimeError, NotImplementedError, AttributeError, psutil.Error):
        return None


class Rates:
    """Turns growing counters into rates per second; a counter that fell (restart, wrap) gives None once."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[float, float]] = {}

    def rate(self, key: str, total: float | None, now: float) -> float | None:
        """Return the counter's growth per second since its last call with this key.

        Args:
            key: Names the counter.
            total: Its value now, in any unit; None where it cannot be read.
            now: Seconds of a monotonic clock.
        """
        if total is None:
            self._last.pop(key, None)
            return None
        before = self._last.get(key)
        if before is not None and now - before[1] < MINIMUM_INTERVAL_S:
            return None
        self._last[key] = (total, now)
        if before is None or total < before[0]:
            return None
        return (total - before[0]) / (now - before[1])
