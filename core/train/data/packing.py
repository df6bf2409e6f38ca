"""How documents fill rows of a fixed length: as a stream, by best fit, or one document a row.

A row is a list of *pieces*, consecutive tokens of one document each. ``stream`` cuts the documents, one after the other, at
the row's end: no padding, and about one document a row is cut. ``best-fit`` cuts only documents longer than a row, and puts
each piece into the row with the least room that holds it, longest first, within a window of documents (Ding et al., "Fewer
Truncations Improve Language Modeling", 2024). ``off`` gives each document a row and cuts what is beyond it.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

WINDOW_DOCUMENTS = 1 << 14
Piece = tuple[int, int]
"""First token and the one behind the last, within a token file."""


class Rows(Protocol):
    """Rows of pieces."""

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    def pieces(self, row: int) -> list[Piece]:
        """Return the pieces of a row, in order."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class StreamRows:
    """Documents one after the other, cut at the end of each row; ``starts`` as in ``TokenFile``."""

    starts: NDArray[np.int64]
    length: int

    def __len__(self) -> int:
        return (int(self.starts[-1]) + self.length - 1) // self.length

    def pieces(self, row: int) -> list[Piece]:
        """Return the pieces of a row: the tokens of its stretch, divided where a document begins."""
        first, last = row * self.length, min((row + 1) * self.length, int(self.starts[-1]))
        low, high = np.searchsorted(self.starts, [first, last], side="right")
        inner = [int(start) for start in self.starts[low:high] if start < last]
        edges = [first, *inner, last]
        return [(start, stop) for start, stop in pairwise(edges) if stop > start]


@dataclass(frozen=True, slots=True, eq=False)
class SingleRows:
    """One document a row, cut at the row's length; empty documents have none."""

    starts: NDArray[np.int64]
    length: int
    documents: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.documents)

    def pieces(self, row: int) -> list[Piece]:
        """Return the one piece of a row."""
        document = int(self.documents[row])
        first = int(self.starts[document])
        return [(first, min(int(self.starts[document + 1]), first + self.length))]


@dataclass(frozen=True, slots=True, eq=False)
class FittedRows:
    """Rows found by best fit: pieces ``edges[row]`` to before ``edges[row + 1]`` of ``firsts`` and ``lengths``."""

    edges: NDArray[np.int64]
    firsts: NDArray[np.int64]
    lengths: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.edges) - 1

    def pieces(self, row: int) -> list[Piece]:
        """Return the pieces of a row."""
        chosen = slice(int(self.edges[row]), int(self.edges[row + 1]))
        pairs = zip(self.firsts[chosen].tolist(), self.lengths[chosen].tolist(), strict=True)
        return [(first, first + length) for first, length in pairs]


def make_rows(packing: str, starts: NDArray[np.int64], length: int) -> Rows:
    """Return the rows of a token file.

    Args:
        packing: ``stream``, ``best-fit`` or ``off``.
        starts: Where documents begin, as in ``TokenFile``.
        length: Tokens of a row.
    """
    if packing == "stream":
        return StreamRows(starts, length)
    if packing == "off":
        return SingleRows(starts, length, np.flatnonzero(np.diff(starts)))
    rows: list[list[Piece]] = []
    for first in range(0, len(starts) - 1, WINDOW_DOCUMENTS):
        window = starts[first : first + WINDOW_DOCUMENTS + 1].tolist()
        rows += best_fit(list(_cut(window, length)), length)
    flat = np.array([piece for row in rows for piece in row], dtype=np.int64).reshape(-1, 2)
    edges = np.cumsum([0, *(len(row) for row in rows)], dtype=np.int64)
    return FittedRows(edges, flat[:, 0].copy(), flat[:, 1] - flat[:, 0])


def _cut(starts: list[int], length: int) -> Iterator[Piece]:
    for start, stop in pairwise(starts):
        for first in range(start, stop, length):
            yield first, min(first + length, stop)


def best_fit(pieces: list[Piece], length: int) -> list[list[Piece]]:
    """Return rows of at most ``length`` tokens that hold all pieces (best-fit decreasing, Johnson 1973)."""
    rows: list[list[Piece]] = []
    room: list[tuple[int, int]] = []  # (tokens left, row), sorted: the first that is enough fits best
    for first, last in sorted(pieces, key=lambda piece: piece[0] - piece[1]):
        place = bisect_left(room, (last - first, -1))
        if place == len(room):
            rows.append([])
            left, row = length, len(rows) - 1
        else:
            left, row = room.pop(place)
        rows[row].append((first, last))
        if left > last - first:
            insort(room, (left - (last - first), row))
    return rows
