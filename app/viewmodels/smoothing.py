"""Debiased exponential moving average over all samples of a growing curve, computed only for what is new.

``s[i] = a*s[i-1] + (1-a)*v[i]`` over the finite values, divided by ``1 - a**count`` (the Adam-style correction, so that
the first samples are not pulled to zero). The scan is done in blocks by a triangular matrix, with the carries of the
blocks scanned the same way: no Python loop over samples. Non-finite values stay where they are and do not enter.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from app.viewmodels.growing_array import GrowingArray

Values = NDArray[np.float64]

_BLOCK = 64


def decayed_sums(inputs: Values, decay: float, carry: float) -> Values:
    """Return ``y`` with ``y[i] = decay*y[i-1] + inputs[i]`` and ``y[-1] = carry``, shape (n,)."""
    powers = decay ** np.arange(_BLOCK + 1, dtype=np.float64)
    lags = np.subtract.outer(np.arange(_BLOCK), np.arange(_BLOCK))
    kernel = np.where(lags >= 0, powers[np.abs(lags)], 0.0)
    blocks = np.zeros((-(-len(inputs) // _BLOCK), _BLOCK))
    blocks.reshape(-1)[: len(inputs)] = inputs
    sums = blocks @ kernel.T
    if len(blocks) == 1:
        carries = np.array([carry])
    else:
        ends = decayed_sums(sums[:-1, -1], float(powers[_BLOCK]), carry)
        carries = np.concatenate([[carry], ends])
    sums += carries[:, None] * powers[None, 1:]
    return sums.reshape(-1)[: len(inputs)]


class EmaCurve:
    """The smoothed twin of a curve. Thread: one at a time.

    Attributes:
        weight: From 0 (off) to below 1: the share of the past in each smoothed value.
    """

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self._values: GrowingArray[np.float64] = GrowingArray(np.float64)
        self._sums: GrowingArray[np.float64] = GrowingArray(np.float64)
        self._counts: GrowingArray[np.int64] = GrowingArray(np.int64)

    def __len__(self) -> int:
        return len(self._values)

    @property
    def values(self) -> Values:
        """Smoothed values so far, shape (len(self),)."""
        return self._values.view

    def advance(self, raw: Values, max_samples: int) -> bool:
        """Smooth up to ``max_samples`` more samples of ``raw``, all samples of the curve; True when none is left."""
        first = len(self)
        new = raw[first : first + max_samples]
        if len(new):
            self._append(new)
        return len(self) == len(raw)

    def truncate(self, num_samples: int) -> None:
        """Forget all but the first ``num_samples`` samples."""
        for array in (self._values, self._sums, self._counts):
            array.truncate(num_samples)

    def _append(self, new: Values) -> None:
        finite = np.isfinite(new)
        sum_before = float(self._sums.view[-1]) if len(self) else 0.0
        count_before = int(self._counts.view[-1]) if len(self) else 0
        counts = count_before + np.cumsum(finite, dtype=np.int64)
        kept = new if finite.all() else new[finite]
        kept_sums = decayed_sums((1.0 - self.weight) * kept, self.weight, sum_before) if len(kept) else kept
        sums = np.concatenate([[sum_before], kept_sums])[counts - count_before]
        # Before the first finite value there is nothing to correct; the non-finite value itself is shown there.
        correction = 1.0 - self.weight ** np.maximum(counts, 1).astype(np.float64)
        self._values.append(np.where(finite, sums / correction, new))
        self._sums.append(sums)
        self._counts.append(counts)
