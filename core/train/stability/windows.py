"""Recent values of a watched quantity and the limit that a usual next value stays below.

The centre is the median and the spread the median absolute deviation, as Leys et al. recommend ("Detecting outliers: Do
not use standard deviation around the mean, use absolute deviation around the median", Journal of Experimental Social
Psychology 49, 2013): neither is moved by the outliers that are looked for. Losses and gradient norms have a longer tail
upwards, and only a rise is of interest, so the deviation is taken of the upper half alone (the "double MAD"): the distance
of the upper quartile from the median. A window that is kept sorted gives both without any sum. Nothing here decides.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIGMA_OF_MAD = 1.4826
"""Standard deviation over median absolute deviation, for a normal distribution."""
_REFRESH_STEPS = 8
_TINIEST = 1e-30
_NO_LIMIT = 1e9


class RecentValues:
    """The last values of one quantity, in order of time and sorted. A few hundred nanoseconds a value; one thread."""

    __slots__ = ("_by_time", "_sorted", "size")

    def __init__(self, size: int, values: Iterable[float] = ()) -> None:
        """Keep up to ``size`` values, beginning with ``values``, the oldest first."""
        self.size = size
        self._by_time: deque[float] = deque(maxlen=size)
        self._sorted: list[float] = []
        for value in values:
            self.add(value)

    def __len__(self) -> int:
        """Return how many values there are."""
        return len(self._sorted)

    def add(self, value: float) -> None:
        """Take in a finite value; the oldest goes when the window is full."""
        if len(self._by_time) == self.size:
            del self._sorted[bisect_left(self._sorted, self._by_time[0])]
        self._by_time.append(value)
        insort(self._sorted, value)

    def median(self) -> float:
        """Return the (upper) median; there must be a value."""
        return self._sorted[len(self._sorted) // 2]

    def spread(self) -> float:
        """Return the robust standard deviation of the upper half."""
        count = len(self._sorted)
        return SIGMA_OF_MAD * (self._sorted[(3 * count) // 4] - self._sorted[count // 2])

    def values(self) -> list[float]:
        """Return the values, the oldest first."""
        return list(self._by_time)


class BlockValues:
    """The last logarithms of the gradient norms of all blocks of a model, judged together.

    Norms differ by factors, not by sums, hence logarithms. The limits are computed anew every eighth step: the cost of a step
    is that of a few small array operations, whatever the number of blocks.
    """

    def __init__(self, size: int, deviations: float, floor: float) -> None:
        """Prepare an empty window.

        Args:
            size: Steps to keep.
            deviations: Robust standard deviations above the median that a usual value stays below.
            floor: Least standard deviation of a logarithm that is believed.
        """
        self._size = size
        self._deviations = deviations
        self._floor = floor
        self._names: tuple[str, ...] = ()
        self._rows: NDArray[np.float64] = np.zeros((size, 0))
        self._count = 0
        self._since_refresh = 0
        self._medians: NDArray[np.float64] = np.zeros(0)
        self._limits: NDArray[np.float64] = np.zeros(0)

    def __len__(self) -> int:
        """Return how many steps are kept."""
        return min(self._count, self._size)

    @staticmethod
    def _logarithms(norms: Sequence[float]) -> NDArray[np.float64]:
        return np.log(np.maximum(np.asarray(norms, dtype=np.float64), _TINIEST))

    def add(self, norms: dict[str, float]) -> None:
        """Take in the finite norms of one step; other blocks than before start the window anew."""
        names = tuple(norms)
        if names != self._names:
            self._names, self._count = names, 0
            self._rows = np.zeros((self._size, len(names)))
        self._rows[self._count % self._size] = self._logarithms(list(norms.values()))
        self._count += 1
        self._since_refresh += 1
        if self._since_refresh >= _REFRESH_STEPS or self._count <= _REFRESH_STEPS:
            self._refresh()

    def _refresh(self) -> None:
        self._since_refresh = 0
        kept = np.sort(self._rows[: len(self)], axis=0)
        self._medians = kept[len(kept) // 2]
        spread = SIGMA_OF_MAD * (kept[(3 * len(kept)) // 4] - self._medians)
        self._limits = self._medians + self._deviations * np.maximum(spread, self._floor)
        # A block that has been without a gradient (frozen, or not met by the samples) has no usual value.
        self._limits[self._medians <= np.log(_TINIEST) + 1.0] = _NO_LIMIT

    def worst(self, norms: dict[str, float]) -> tuple[str, float, float] | None:
        """Return the block that exceeds its limit most, its norm and its median norm; None when none does."""
        if tuple(norms) != self._names or not self._count:
            return None
        values = self._logarithms(list(norms.values()))
        above = values - self._limits
        index = int(above.argmax())
        if above[index] <= 0:
            return None
        return self._names[index], float(np.exp(values[index])), float(np.exp(self._medians[index]))

    def state_dict(self) -> dict[str, Any]:
        """Return names, rows (the oldest first) and the present limits, as plain values."""
        kept = np.roll(self._rows, -(self._count % self._size), axis=0) if self._count > self._size else self._rows
        return {
            "names": list(self._names),
            "rows": kept[: len(self)].tolist(),
            "medians": self._medians.tolist(),
            "limits": self._limits.tolist(),
            "since_refresh": self._since_refresh,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; one of a longer window is cut to its newest steps."""
        self._names = tuple(state["names"])
        rows = state["rows"][-self._size :]
        self._rows, self._count = np.zeros((self._size, len(self._names))), len(rows)
        if rows:
            self._rows[: len(rows)] = rows
        self._medians, self._limits = np.asarray(state["medians"]), np.asarray(state["limits"])
        self._since_refresh = int(state["since_refresh"])
