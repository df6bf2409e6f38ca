"""The host's sampler: one flat reading of processors, memory, disk, network, GPUs and a run's processes.

Meant for one call a second or so; titles and units of its keys stand in ``core.contracts.units``. It starts no thread
and keeps nothing but the counters of the last reading.
"""

from __future__ import annotations

import time
from pathlib import Path

from core.contracts.telemetry import GpuProcess, HardwareProblem, Sample
from core.hardware.host import HostReader
from core.hardware.processes import process_tree
from core.hardware.vendors import GpuReader, open_readers


class HostSampler:
    """Implements ``core.contracts.telemetry.Sampler``. Thread: any one at a time; makes no problems of faults, only None.

    Args:
        disk: A folder on the disk whose free space is reported (``disk.free_bytes``); the working directory's by default.
        readers: The GPU vendors' readers, taken over and closed; all there are by default.
    """

    def __init__(self, disk: Path | None = None, readers: tuple[GpuReader, ...] | None = None) -> None:
        self._host = HostReader(disk or Path.cwd())
        self._tree = process_tree()
        self._readers = open_readers() if readers is None else readers
        # Sets the counters' starting point, so that the first sample a second later has rates.
        self.sample()

    @property
    def problems(self) -> tuple[HardwareProblem, ...]:
        """What keeps GPUs from being read at present."""
        return tuple(problem for reader in self._readers for problem in reader.problems)

    def sample(self, root_pids: tuple[int, ...] = ()) -> Sample:
        """Return the reading now.

        Args:
            root_pids: Heads of the run's process trees; without any, there are no ``run.*`` readings.

        Returns:
            Readings by key; None where the machine does not tell. Rates are since the last call.
        """
        now = time.monotonic()
        sample = self._host.read(now)
        if root_pids:
            sample |= self._tree.read(root_pids, now)
        run_pids = self._tree.pids if root_pids else frozenset[int]()
        index = 0
        for reader in self._readers:
            for reading in reader.read(run_pids, now):
                sample |= {f"gpu.{index}.{key}": value for key, value in reading.items()}
                index += 1
        return sample

    def gpu_processes(self) -> tuple[GpuProcess, ...]:
        """Return who holds the GPUs now; ``core.hardware.probe`` adds programs and users."""
        found: list[GpuProcess] = []
        first = 0
        for reader in self._readers:
            found += reader.processes(first)
            first += len(reader.describe(first))
        return tuple(found)

    def close(self) -> None:
        """Let go of the drivers and of the files kept open."""
        self._host.close()
        self._tree.close()
        for reader in self._readers:
            reader.close()
