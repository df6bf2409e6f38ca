"""Drivers of GPU makers, one file each: ``open_reader()`` in every module of this package, or an entry point's.

A reader turns each fault of its driver into None readings and one ``HardwareProblem``; it never raises. Adding a
vendor is adding a file here, or a package with an entry point in the group ``pilothouse.vendors``.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Protocol, cast

from core.contracts.notices import Severity
from core.contracts.telemetry import GpuInfo, GpuProcess, HardwareProblem, Sample

ENTRY_POINT_GROUP = "pilothouse.vendors"


class GpuReader(Protocol):
    """One vendor's GPUs on this host. Thread: any one at a time. No method raises."""

    @property
    def problems(self) -> tuple[HardwareProblem, ...]:
        """What is wrong at present."""
        ...

    def read(self, run_pids: frozenset[int], now: float) -> tuple[Sample, ...]:
        """Return one sample per GPU, always in the same order; keys are those of ``gpu.#.`` without that beginning.

        Args:
            run_pids: Processes of a run, whose share of each GPU's memory is wanted; empty for none.
            now: Seconds of a monotonic clock; rates are since the last call.
        """
        ...

    def describe(self, first_index: int) -> tuple[GpuInfo, ...]:
        """Return the GPUs in the order of ``read``, numbered from ``first_index``."""
        ...

    def processes(self, first_index: int) -> tuple[GpuProcess, ...]:
        """Return who holds the GPUs; names of programs and users are left to the caller."""
        ...

    def close(self) -> None:
        """Let go of the driver."""
        ...


class _BrokenReader:
    """Stands for a vendor's file that could not be imported: no GPUs and one problem."""

    def __init__(self, module: str, reason: str) -> None:
        self.problems: tuple[HardwareProblem, ...] = (
            HardwareProblem(
                part=module,
                severity=Severity.WARNING,
                message=f"The GPU reader {module} cannot be loaded: {reason}.",
                hint="Repair or remove the package it belongs to.",
            ),
        )

    def read(self, run_pids: frozenset[int], now: float) -> tuple[Sample, ...]:
        """Return nothing."""
        del run_pids, now
        return ()

    def describe(self, first_index: int) -> tuple[GpuInfo, ...]:
        """Return nothing."""
        del first_index
        return ()

    def processes(self, first_index: int) -> tuple[GpuProcess, ...]:
        """Return nothing."""
        del first_index
        return ()

    def close(self) -> None:
        """Hold nothing."""


def _load(module: str) -> GpuReader:
    try:
        opener = cast("Callable[[], GpuReader]", importlib.import_module(module).open_reader)
        return opener()
    except Exception as error:  # noqa: BLE001 - a third party's module may raise anything
        return _BrokenReader(module, f"{type(error).__name__}: {error}")


def open_readers() -> tuple[GpuReader, ...]:
    """Open every vendor's driver; one that is absent gives a reader without GPUs. Never raises."""
    names = sorted(info.name for info in pkgutil.iter_modules(__path__) if not info.name.startswith("_"))
    modules = [f"{__name__}.{name}" for name in names]
    modules += [point.value.partition(":")[0] for point in entry_points(group=ENTRY_POINT_GROUP)]
    return tuple(_load(module) for module in modules)
