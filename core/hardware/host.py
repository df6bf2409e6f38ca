"""Readings of the host as a whole, without its GPUs: processors, memory, disk, network, pressure, temperature.

Rates and percentages are made here of the counters in ``counters.py``, so that several readers in one process do not
disturb each other. What costs much on big machines (clocks, sensors) is read every ``SLOW_PERIOD_S``.
"""

from __future__ import annotations

from pathlib import Path

import psutil

from core.contracts.telemetry import Sample
from core.hardware.counters import Counters, CounterSource, counter_source
from core.hardware.limits import control_group, read_text
from core.hardware.reading import Rates, attempt

SLOW_PERIOD_S = 10.0

_CPU_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal", "soc_thermal", "acpitz")


class HostReader:
    """Reads the host. Thread: any one at a time.

    Args:
        disk: A folder on the disk whose free space matters.
        source: Where the counters come from; the cheapest of this system by default.
    """

    def __init__(self, disk: Path, source: CounterSource | None = None) -> None:
        self._disk = disk
        self._source = source or counter_source()
        self._rates = Rates()
        self._cores: list[tuple[float, float]] = []
        self._slow: Sample = {}
        self._slow_due = 0.0
        group = control_group()
        self._limit_bytes = group.memory_limit_bytes
        self._limit_usage_file = group.memory_usage_file

    def read(self, now: float) -> Sample:
        """Return the readings at ``now`` (seconds of a monotonic clock); rates are None on the first call."""
        counters = self._source.read()
        sample = self._processors(counters)
        sample |= self._memory(counters)
        sample |= self._disk_and_network(counters, now)
        sample |= self._pressure(counters, now)
        if now >= self._slow_due:
            self._slow = _slow_readings()
            self._slow_due = now + SLOW_PERIOD_S
        return sample | self._slow

    def _processors(self, counters: Counters) -> Sample:
        """Share of busy time per core since the last call, and the mean over the cores."""
        before = self._cores if len(self._cores) == len(counters.cores) else None
        self._cores = counters.cores
        cores: list[float | None] = [None] * len(counters.cores)
        if before is not None:
            cores = [_busy_percent(old, new) for old, new in zip(before, counters.cores, strict=True)]
        known = [value for value in cores if value is not None]
        sample: Sample = {"cpu.percent": sum(known) / len(known) if known else None}
        sample |= {f"cpu.{index}.percent": value for index, value in enumerate(cores)}
        load = attempt(psutil.getloadavg)
        sample["cpu.load_1min"] = load[0] if load else None
        return sample

    def _memory(self, counters: Counters) -> Sample:
        total, available = counters.memory or (None, None)
        sample: Sample = {
            "memory.used_bytes": None if total is None or available is None else total - available,
            "memory.available_bytes": available,
            "memory.total_bytes": total,
            "swap.used_bytes": counters.swap_used_bytes,
        }
        if self._limit_bytes is not None and self._limit_usage_file is not None:
            usage = read_text(self._limit_usage_file).strip()
            sample["limit.memory_used_bytes"] = float(usage) if usage.isdigit() else None
            sample["limit.memory_total_bytes"] = float(self._limit_bytes)
        return sample

    def _disk_and_network(self, counters: Counters, now: float) -> Sample:
        usage = attempt(lambda: psutil.disk_usage(str(self._disk)))
        read, written = counters.disk or (None, None)
        received, sent = counters.network or (None, None)
        return {
            "disk.read_bytes_per_s": self._rates.rate("disk.read", read, now),
            "disk.write_bytes_per_s": self._rates.rate("disk.write", written, now),
            "disk.free_bytes": float(usage.free) if usage else None,
            "net.rx_bytes_per_s": self._rates.rate("net.rx", received, now),
            "net.tx_bytes_per_s": self._rates.rate("net.tx", sent, now),
        }

    def _pressure(self, counters: Counters, now: float) -> Sample:
        """Share of the interval in which tasks waited, from Linux's microsecond totals; nothing elsewhere."""
        sample: Sample = {}
        for name, total_us in counters.pressure_us.items():
            resource, _, kind = name.partition(".")
            rate = self._rates.rate(f"pressure.{name}", total_us, now)
            key = f"pressure.{resource}_percent" if kind == "some" else f"pressure.{resource}_full_percent"
            sample[key] = None if rate is None else min(100.0, rate / 1e6 * 100.0)
        return sample

    def close(self) -> None:
        """Let go of the files kept open."""
        self._source.close()


def _slow_readings() -> Sample:
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
