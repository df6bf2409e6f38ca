"""Writes a run's telemetry log: one sample a second in the first hour, then one in ten, so that a long run stays small.

Telemetry must never cost a run its life: whatever a reading raises ends the telemetry with one sentence, not the run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from core.contracts.telemetry import Sampler
from core.runlog.emit import EventWriter

DENSE_PERIOD_S = 1.0
SPARSE_PERIOD_S = 10.0
DENSE_FOR_S = 3600.0


class TelemetryLog:
    """Samples one host into one log. One thread.

    Args:
        make_sampler: Makes the sampler of this host.
        path: The log.
        on_fault: Told once, in a sentence, when telemetry had to be given up.
    """

    def __init__(self, make_sampler: Callable[[], Sampler], path: Path, on_fault: Callable[[str], None]) -> None:
        self._make_sampler = make_sampler
        self._path = path
        self._on_fault = on_fault
        self._sampler: Sampler | None = None
        self._writer: EventWriter | None = None
        self._is_off = False
        self._began: float | None = None
        self._next = 0.0

    def tick(self, now: float, root_pid: int) -> None:
        """Take a sample if one is due; ``now`` is monotonic seconds. Raises nothing."""
        if self._is_off or now < self._next:
            return
        self._began = now if self._began is None else self._began
        period = DENSE_PERIOD_S if now - self._began < DENSE_FOR_S else SPARSE_PERIOD_S
        self._next = self._next + period if now - self._next < period else now + period
        try:
            self._sampler = self._sampler or self._make_sampler()
            self._writer = self._writer or EventWriter(self._path)
            values = self._sampler.sample((root_pid,))
            # A full disk costs samples; they go on once there is space.
            with contextlib.suppress(OSError):
                self._writer.write("sample", values=values)
        except Exception as error:  # noqa: BLE001 - a driver's library may raise anything; the run must go on
            self._is_off = True
            self._on_fault(f"Telemetry was given up: {type(error).__name__}: {error}")

    def close(self) -> None:
        """Let go of the driver and the log. Raises nothing."""
        with contextlib.suppress(Exception):
            if self._sampler is not None:
                self._sampler.close()
        with contextlib.suppress(OSError):
            if self._writer is not None:
                self._writer.close()
