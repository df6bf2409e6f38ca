"""The order of the samples of an epoch: a permutation that is computed, not stored.

A balanced Feistel network over the smallest even number of bits that holds all numbers, with cycle walking: a value that
falls outside is sent through again until it falls inside (Black and Rogaway, "Ciphers with Arbitrary Finite Domains",
2002). Any place of any epoch is found in constant time and memory, however large the data set is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from core.train.engine.contracts import SampleKey

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ROUNDS = 8


class EpochOrder:
    """The endless order of ``count`` samples: one permutation after the other, drawn from (seed, epoch).

    Args:
        count: Samples, at least one.
        seed: Of the run.
    """

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self._seed = seed
        self._half_bits = max(1, ((count - 1).bit_length() + 1) // 2)
        self._epoch = -1
        self._round_keys: NDArray[np.uint64] = np.empty(0, np.uint64)

    def keys(self, first: int, number: int) -> list[SampleKey]:
        """Return the samples at ``number`` places of the endless order from place ``first`` on."""
        found: list[SampleKey] = []
        while number > 0:
            epoch, place = divmod(first, self.count)
            taken = min(number, self.count - place)
            numbers = self._permute(epoch, np.arange(place, place + taken, dtype=np.uint64))
            found += [SampleKey(int(value), epoch) for value in numbers]
            first, number = first + taken, number - taken
        return found

    def _permute(self, epoch: int, places: NDArray[np.uint64]) -> NDArray[np.uint64]:
        if epoch != self._epoch:
            drawn = np.random.SeedSequence((self._seed, epoch)).generate_state(_ROUNDS, np.uint64)
            self._round_keys = drawn.astype(np.uint64)
            self._epoch = epoch
        values = self._encrypt(places)
        outside = values >= self.count
        while outside.any():
            values[outside] = self._encrypt(values[outside])
            outside = values >= self.count
        return values

    def _encrypt(self, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
        bits, mask = np.uint64(self._half_bits), np.uint64((1 << self._half_bits) - 1)
        left, right = values >> bits, values & mask
        for key in self._round_keys:
            left, right = right, left ^ (_mix(right ^ key) & mask)
        return (left << bits) | right


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return SplitMix64's finaliser of each value (Steele, Lea and Flood, 2014); products wrap around as meant."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
