"""Small values that all ranks exchange on the host, so that all of them decide alike.

A gloo group of its own carries them beside the passes' own communication: nothing here waits for a GPU. The seconds spent
waiting are counted in ``seconds``; they are what a rank waits for slower ones, plus the exchange itself.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

from core.train.engine.contracts import Mesh

_T = TypeVar("_T")


def gloo_group(timeout_s: float) -> dist.ProcessGroup:
    """Return a new group of all ranks that works on the CPU; called on every rank."""
    group = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout_s))
    assert isinstance(group, dist.ProcessGroup)
    return group


class Agreement:
    """Exchanges of one run; every method is called on every rank, in the same order. Thread: one.

    Args:
        mesh: Where this rank stands.
        timeout_s: How long a rank waits for the others.

    Attributes:
        seconds: Time spent in here since it was last set to 0.
        group: The gloo group; None in a single process.
    """

    def __init__(self, mesh: Mesh, timeout_s: float) -> None:
        self._mesh = mesh
        self.seconds = 0.0
        self.group: dist.ProcessGroup | None = None
        if mesh.is_distributed:
            self.group = gloo_group(timeout_s)
        places = self.gather([mesh.data_rank])
        first: dict[int, int] = {}
        for rank, (data_rank,) in enumerate(places):
            first.setdefault(int(data_rank), rank)
        self._leaders = tuple(first[number] for number in sorted(first))

    @property
    def data_leaders(self) -> tuple[int, ...]:
        """One rank of each data rank, in their order: sums over these count every sample once."""
        return self._leaders

    def gather(self, values: list[float]) -> list[list[float]]:
        """Return the values of every rank, by rank; all give as many, in float64."""
        if self.group is None:
            return [values]
        started = time.perf_counter()
        own = torch.tensor(values, dtype=torch.float64)
        found = torch.empty(self._mesh.world * len(values), dtype=torch.float64)
        dist.all_gather_single(found, own, group=self.group)
        self.seconds += time.perf_counter() - started
        return found.view(self._mesh.world, len(values)).tolist()

    def gather_objects(self, value: _T) -> list[_T]:
        """Return a plain value of every rank, by rank."""
        if self.group is None:
            return [value]
        started = time.perf_counter()
        found: list[_T | None] = [None] * self._mesh.world
        dist.all_gather_object(found, value, group=self.group)
        self.seconds += time.perf_counter() - started
        return [entry for entry in found if entry is not None]

    def broadcast(self, value: _T) -> _T:
        """Return rank 0's value on every rank."""
        if self.group is None:
            return value
        started = time.perf_counter()
        held: list[_T] = [value]
        dist.broadcast_object_list(held, src=0, group=self.group)
        self.seconds += time.perf_counter() - started
        return held[0]

    def any(self, flag: bool) -> bool:
        """Tell whether the flag is set on any rank."""
        return any(row[0] > 0 for row in self.gather([float(flag)]))

    def sum_over_data(self, sums: dict[str, float]) -> dict[str, float]:
        """Return the sums over all data ranks; the model ranks of one hold the same, so one of them counts.

        A rank that holds none (an earlier pipeline stage) gives an empty mapping.
        """
        total: dict[str, float] = {}
        by_place: dict[int, dict[str, float]] = {}
        for place, found in self.gather_objects((self._mesh.data_rank, sums)):
            if found:
                by_place.setdefault(place, found)
        for place in sorted(by_place):
            for name, value in by_place[place].items():
                total[name] = total.get(name, 0.0) + value
        return total
