"""A one-dimensional numpy array that grows by amortised doubling, for curves that are appended to all the time.

``view`` is a slice of the buffer, not a copy: it is valid until the next ``append`` or ``truncate``.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

Scalar = TypeVar("Scalar", bound=np.generic)

_FIRST_CAPACITY = 256
_LONG = 65_536


class GrowingArray(Generic[Scalar]):
    """An append-only array of one dtype that can also be cut at its end. Thread: one at a time."""

    def __init__(self, dtype: DTypeLike) -> None:
        self._buffer: NDArray[Scalar] = np.empty(_FIRST_CAPACITY, dtype=dtype)
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def view(self) -> NDArray[Scalar]:
        """Return the filled part, shape (len(self),), without copying."""
        return self._buffer[: self._size]

    @property
    def is_nearly_full(self) -> bool:
        """True when a long array will soon have to move: time to call ``make_room`` while nothing hurries."""
        return self._size > _LONG and self._size > 0.9 * len(self._buffer)

    def append(self, values: ArrayLike) -> None:
        """Append one-dimensional ``values``."""
        new = np.asarray(values, dtype=self._buffer.dtype)
        needed = self._size + len(new)
        if needed > len(self._buffer):
            self._move(needed + needed // 4 + _FIRST_CAPACITY)
        self._buffer[self._size : needed] = new
        self._size = needed

    def make_room(self) -> None:
        """Double the room; copies all values."""
        self._move(2 * len(self._buffer))

    def _move(self, capacity: int) -> None:
        grown = np.empty(capacity, dtype=self._buffer.dtype)
        grown[: self._size] = self.view
        self._buffer = grown

    def truncate(self, size: int) -> None:
        """Keep the first ``size`` values."""
        self._size = min(self._size, max(size, 0))
