"""Statistics of latencies and accuracies, with intervals that need no assumption about their distribution.

Percentiles are nearest-rank, as MLPerf's LoadGen takes them. Intervals of percentiles are order statistics (Hahn and
Meeker, Statistical Intervals, 1991, section 5.2). Intervals of accuracies are Wilson's (E. B. Wilson, JASA 22, 1927).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided 95 % confidence interval."""

    low: float
    high: float


def percentile(ordered: NDArray[np.float64], share: float) -> float:
    """Return the smallest value that at least ``share`` of the values do not exceed; ``ordered`` is ascending."""
    return float(ordered[max(math.ceil(share * len(ordered)) - 1, 0)])


def median_interval(ordered: NDArray[np.float64]) -> Interval:
    """Return the 95 % interval of the median: the order statistics whose ranks a binomial variable brackets."""
    from scipy.stats import binom

    count = len(ordered)
    tail = (1 - CONFIDENCE) / 2
    low = max(int(binom.ppf(tail, count, 0.5)) - 1, 0)
    high = min(int(binom.ppf(1 - tail, count, 0.5)), count - 1)
    return Interval(float(ordered[low]), float(ordered[high]))


def upper_bound(ordered: NDArray[np.float64], share: float) -> float | None:
    """Return a value that the true percentile does not exceed with 95 % confidence; None with too few values.

    For p99 it exists from 299 values on (0.99^299 < 0.05): with fewer, no observed value bounds the true p99 and it must
    not be quoted as measured.
    """
    from scipy.stats import binom

    rank = int(binom.ppf(CONFIDENCE, len(ordered), share))
    return float(ordered[rank]) if rank < len(ordered) else None


def wilson_interval(correct: int, total: int) -> Interval:
    """Return Wilson's 95 % interval of a share."""
    from scipy.stats import binomtest

    interval = binomtest(correct, total).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(float(interval.low), float(interval.high))
