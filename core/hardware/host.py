"""Readings of the host as a whole, without its GPUs: processors, memory, disk, network, pressure, temperature.

psutil reads the counters (about 0.5 ms a sample); rates are made here from differences, so that several readers in one
process do not disturb each other. What costs much on big machines (clocks, sensors) is read every ``SLOW_PERIOD_S``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil

from core.contracts.telemetry import Sample
from core.hardware.limits import control_group, read_text

SLOW_PERIOD_S = 10.0
MINIMUM_INTERVAL_S = 0.02

_VIRTUAL_INTERFACES = ("lo", "veth", "docker", "br-", "virbr", "cni", "flannel", "cali")
_CPU_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal", "soc_thermal", "acpitz")
_PRESSURE_FOLDER = Path("/proc/pressure")

T = TypeVar("T")


def attempt(read: Callable[[], T]) -> T | None:
    """Return what a psutil call returns, or None where this system or this user cannot have it."""
    try:
        return read()
    except (OSError, RuntimeError, NotImplementedError, AttributeError, psutil.Error):
        return None


class Rates:
    """Turns growing counters into rates per second; a counter that fell (restart, wrap) gives None once."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[float, float]] = {}

    def rate(self, key: str, total: float | None, now: float) -> float | None:
        """Return the counter's growth per second since its last call with this key.

        Args:
            key: Names the counter.
            total: Its value now, in any unit; None where it cannot be read.
            now: Seconds of a monotonic clock.
        """
        if total is None:
            self._last.pop(key, None)
            return None
        before = self._last.get(key)
        if before is not None and now - before[1] < MINIMUM_INTERVAL_S:
            return None
        self._last[key] = (total, now)
        if before is None or total < before[0]:
            return None
        return (total - before[0]) / (now - before[1])


class HostReader:
    """Reads the host. Thread: any one at a time.

    Args:
        disk: A folder on the disk whose free space matters.
    """

    def __init__(self, disk: Path) -> None:
        self._disk = disk
        self._rates = Rates()
        self._cpu_times: list[tuple[float, float]] = []
        self._slow: Sample = {}
        self._slow_due = 0.0
        group = control_group()
        self._limit_bytes = group.memory_limit_bytes
        self._limit_usage_file = group.memory_usage_file

    def read(self, now: float) -> Sample:
        """Return the readings at ``now`` (seconds of a monotonic clock); rates are None on the first call."""
        sample = self._processors()
        sample |= self._memory()
        sample |= self._disk_and_network(now)
        sample |= self._pressure(now)
        if now >= self._slow_due:
            self._slow = self._slow_readings()
            self._slow_due = now + SLOW_PERIOD_S
        return sample | self._slow

    def _processors(self) -> Sample:
        """Share of non-idle time per core since the last call; iowait counts as idle, as in ``top``."""
        times = attempt(lambda: psutil.cpu_times(percpu=True)) or []
        now: list[tuple[float, float]] = []
        for core in times:
            fields = core._asdict()
            guest = fields.get("guest", 0.0) + fields.get("guest_nice", 0.0)
            total = sum(fields.values()) - guest
            now.append((total - fields["idle"] - fields.get("iowait", 0.0), total))
        before = self._cpu_times if len(self._cpu_times) == len(now) else None
        self._cpu_times = now
        cores = [_busy_percent(old, new) for old, new in zip(before, now, strict=True)] if before else [None] * len(now)
        known = [value for value in cores if value is not None]
        sample: Sample = {"cpu.percent": sum(known) / len(known) if known else None}
        sample |= {f"cpu.{index}.percent": value for index, value in enumerate(cores)}
        load = attempt(psutil.getloadavg)
        sample["cpu.load_1min"] = load[0] if load else None
        return sample

    def _memory(self) -> Sample:
        memory = attempt(psutil.virtual_memory)
        swap = attempt(psutil.swap_memory)
        sample: Sample = {
            "memory.used_bytes": float(memory.total - memory.available) if memory else None,
            "memory.available_bytes": float(memory.available) if memory else None,
            "memory.total_bytes": float(memory.total) if memory else None,
            "swap.used_bytes": float(swap.used) if swap else None,
        }
        if self._limit_bytes is not None and self._limit_usage_file is not None:
            usage = read_text(self._limit_usage_file).strip()
            sample["limit.memory_used_bytes"] = float(usage) if usage.isdigit() else None
            sample["limit.memory_total_bytes"] = float(self._limit_bytes)
        return sample

    def _disk_and_network(self, now: float) -> Sample:
        disk = attempt(lambda: psutil.disk_io_counters(nowrap=False))
        usage = attempt(lambda: psutil.disk_usage(str(self._disk)))
        cards = attempt(lambda: psutil.net_io_counters(pernic=True, nowrap=False))
        real = [count for name, count in (cards or {}).items() if not name.startswith(_VIRTUAL_INTERFACES)]
        received = float(sum(card.bytes_recv for card in real)) if real else None
        sent = float(sum(card.bytes_sent for card in real)) if real else None
        return {
            "disk.read_bytes_per_s": self._rates.rate("disk.read", disk.read_bytes if disk else None, now),
            "disk.write_bytes_per_s": self._rates.rate("disk.write", disk.write_bytes if disk else None, now),
            "disk.free_bytes": float(usage.free) if usage else None,
            "net.rx_bytes_per_s": self._rates.rate("net.rx", received, now),
            "net.tx_bytes_per_s": self._rates.rate("net.tx", sent, now),
        }

    def _pressure(self, now: float) -> Sample:
        """Share of the interval in which tasks waited, from the microsecond totals of Linux's PSI; nothing elsewhere."""
        sample: Sample = {}
        for resource in ("cpu", "memory", "io"):
            for line in read_text(_PRESSURE_FOLDER / resource).splitlines():
                kind, _, rest = line.partition(" ")
                total_us = float(rest.rpartition("total=")[2])
                rate = self._rates.rate(f"pressure.{resource}.{kind}", total_us, now)
                name = f"pressure.{resource}_percent" if kind == "some" else f"pressure.{resource}_full_percent"
                sample[name] = None if rate is None else min(100.0, rate / 1e6 * 100.0)
        return sample

    def _slow_readings(self) -> Sample:
        frequency = attempt(psutil.cpu_freq)
        return {
            "cpu.frequency_hz": frequency.current * 1e6 if frequency and frequency.current else None,
            "cpu.temperature_c": _processor_temperature(),
        }


def _busy_percent(before: tuple[float, float], now: tuple[float, float]) -> float | None:
    total = now[1] - before[1]
    return None if total <= 0 else min(100.0, max(0.0, (now[0] - before[0]) / total * 100.0))


def _processor_temperature() -> float | None:
    """Return the hottest processor sensor in °C; psutil has none on Windows and macOS."""
    # The lambda keeps the look-up of the function inside the attempt: psutil lacks it on other systems.
    sensors = attempt(lambda: psutil.sensors_temperatures()) or {}  # noqa: PLW0108
    for name in _CPU_SENSORS:
        readings = [entry.current for entry in sensors.get(name, []) if entry.current]
        if readings:
            return float(max(readings))
    return None
