"""Where the host's counters come from: files under /proc kept open on Linux, psutil elsewhere.

Reading a kept file costs a tenth of what psutil takes, which opens and parses anew. Both sources give the same growing
counters; rates and percentages are made of them in ``host.py``.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil

from core.hardware.reading import attempt

_SECTOR_BYTES = 512
_VIRTUAL_INTERFACES = ("lo", "veth", "docker", "br-", "virbr", "cni", "flannel", "cali")
_VIRTUAL_DISKS = ("loop", "ram", "zram", "dm-", "md", "sr", "fd")
_PRESSURE = ("cpu", "memory", "io")


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """What the host has counted until now; None or empty where it does not tell.

    Attributes:
        cores: Per core, busy seconds and all seconds; only differences mean anything. Waiting for the disk is not busy.
        memory: Total and available bytes of main memory.
        swap_used_bytes: Bytes in swap.
        disk: Bytes read from and written to all physical disks.
        network: Bytes received and sent by all real network cards.
        pressure_us: Microseconds in which some or all tasks waited, by ``cpu.some``, ``io.full`` and so on.
    """

    cores: list[tuple[float, float]]
    memory: tuple[float, float] | None
    swap_used_bytes: float | None
    disk: tuple[float, float] | None
    network: tuple[float, float] | None
    pressure_us: dict[str, float]


class CounterSource(Protocol):
    """Reads the counters. Thread: any one at a time. Never raises."""

    def read(self) -> Counters:
        """Return the counters now."""
        ...

    def close(self) -> None:
        """Let go of what is held open."""
        ...


def counter_source() -> CounterSource:
    """Return the cheapest source that works here."""
    return ProcCounters() if sys.platform == "linux" and Path("/proc/stat").exists() else PsutilCounters()


class PsutilCounters:
    """The counters through psutil, on every system."""

    def read(self) -> Counters:
        """Return the counters now."""
        memory = attempt(psutil.virtual_memory)
        swap = attempt(psutil.swap_memory)
        disk = attempt(lambda: psutil.disk_io_counters(nowrap=False))
        cards = attempt(lambda: psutil.net_io_counters(pernic=True, nowrap=False)) or {}
        real = [count for name, count in cards.items() if not name.startswith(_VIRTUAL_INTERFACES)]
        return Counters(
            cores=self._cores(),
            memory=(float(memory.total), float(memory.available)) if memory else None,
            swap_used_bytes=float(swap.used) if swap else None,
            disk=(float(disk.read_bytes), float(disk.write_bytes)) if disk else None,
            network=(float(sum(c.bytes_recv for c in real)), float(sum(c.bytes_sent for c in real))) if real else None,
            pressure_us={},
        )

    def _cores(self) -> list[tuple[float, float]]:
        cores: list[tuple[float, float]] = []
        for core in attempt(lambda: psutil.cpu_times(percpu=True)) or []:
            fields = core._asdict()
            total = sum(fields.values()) - fields.get("guest", 0.0) - fields.get("guest_nice", 0.0)
            cores.append((total - fields["idle"] - fields.get("iowait", 0.0), total))
        return cores

    def close(self) -> None:
        """Hold nothing."""


class ProcCounters:
    """The counters from files under /proc that stay open (Linux).

    Args:
        proc: The folder; another one in tests.
        blocks: Folder that names the disks, as opposed to their partitions.
    """

    def __init__(self, proc: Path = Path("/proc"), blocks: Path = Path("/sys/block")) -> None:
        self._blocks = blocks
        self._is_disk: dict[str, bool] = {}
        names = ("stat", "meminfo", "diskstats", "net/dev", *(f"pressure/{resource}" for resource in _PRESSURE))
        self._files = {name: descriptor for name in names if (descriptor := _open(proc / name)) is not None}
        self._tick_s = 1.0 / os.sysconf("SC_CLK_TCK")

    def read(self) -> Counters:
        """Return the counters now."""
        memory = self._memory()
        swap = (memory.get("SwapTotal"), memory.get("SwapFree"))
        total, available = memory.get("MemTotal"), memory.get("MemAvailable")
        return Counters(
            cores=self._cores(),
            memory=(total, available) if total is not None and available is not None else None,
            swap_used_bytes=swap[0] - swap[1] if swap[0] is not None and swap[1] is not None else None,
            disk=self._disk(),
            network=self._network(),
            pressure_us=self._pressure(),
        )

    def _text(self, name: str) -> str:
        """Read one file whole: the kernel gives lists in pieces of a page."""
        descriptor = self._files.get(name)
        if descriptor is None:
            return ""
        text = b""
        try:
            while block := os.pread(descriptor, 1 << 16, len(text)):
                text += block
        except OSError:
            return ""
        return text.decode(errors="replace")

    def _cores(self) -> list[tuple[float, float]]:
        """Lines ``cpu0 user nice system idle iowait irq softirq steal ...``; guests are within user."""
        cores: list[tuple[float, float]] = []
        for line in self._text("stat").splitlines()[1:]:
            if not line.startswith("cpu"):
                break
            ticks = [float(word) for word in line.split()[1:9]]
            total = sum(ticks)
            cores.append(((total - ticks[3] - ticks[4]) * self._tick_s, total * self._tick_s))
        return cores

    def _memory(self) -> dict[str, float]:
        wanted = ("MemTotal", "MemAvailable", "SwapTotal", "SwapFree")
        fields = (line.split() for line in self._text("meminfo").splitlines() if line.startswith(wanted))
        return {words[0].rstrip(":"): float(words[1]) * 1024.0 for words in fields}

    def _disk(self) -> tuple[float, float] | None:
        """Sum sectors over whole physical disks: partitions and mapped devices would count the same bytes twice."""
        read = written = 0.0
        found = False
        for line in self._text("diskstats").splitlines():
            words = line.split()
            if self._counts(words[2]):
                found = True
                read += float(words[5])
                written += float(words[9])
        return (read * _SECTOR_BYTES, written * _SECTOR_BYTES) if found else None

    def _counts(self, name: str) -> bool:
        known = self._is_disk.get(name)
        if known is None:
            known = not name.startswith(_VIRTUAL_DISKS) and (self._blocks / name).exists()
            self._is_disk[name] = known
        return known

    def _network(self) -> tuple[float, float] | None:
        received = sent = 0.0
        found = False
        for line in self._text("net/dev").splitlines()[2:]:
            name, _, rest = line.partition(":")
            if not name.strip().startswith(_VIRTUAL_INTERFACES):
                words = rest.split()
                found = True
                received += float(words[0])
                sent += float(words[8])
        return (received, sent) if found else None

    def _pressure(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for resource in _PRESSURE:
            for line in self._text(f"pressure/{resource}").splitlines():
                found[f"{resource}.{line.partition(' ')[0]}"] = float(line.rpartition("total=")[2])
        # That all tasks of a machine wait for a core means nothing: the kernel gives 0 for old programs' sake.
        found.pop("cpu.full", None)
        return found

    def close(self) -> None:
        """Close the files."""
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files.clear()


def _open(path: Path) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
