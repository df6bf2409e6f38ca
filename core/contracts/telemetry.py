"""Readings of a host's hardware as frozen records.

A reading is ``float | None``: None where the machine does not tell, never an exception. Units are in the names.
"""

from __future__ import annotations

from typing import Protocol


class Sampler(Protocol):
    """Takes one flat reading of a host: ``{"cpu.percent": 12.5, "gpu.0.memory_used_bytes": None, ...}``."""

    def sample(self, root_pids: tuple[int, ...] = ()) -> dict[str, float | None]:
        """Return the reading now; rates are since the last call. ``root_pids`` are the heads of the run's process trees."""
        ...

    def close(self) -> None:
        """Let go of the driver."""
        ...
