"""A telemetry sample in words and shares: what meters, the status bar and the Hosts page show of it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from app.viewmodels.reading_history import TelemetrySample
from app.viewmodels.wording import size_text

_CORE = re.compile(r"cpu\.(\d+)\.percent")
_GPU = re.compile(r"gpu\.(\d+)\.")


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterReading:
    """One meter: its name, its value in words, and how full it is from 0 to 1 (None: not told)."""

    title: str
    text: str
    share: float | None


def core_percents(sample: TelemetrySample) -> list[float | None]:
    """Return how busy each core is in percent, by its number."""
    found = {int(match[1]): value for key, value in sample.values.items() if (match := _CORE.fullmatch(key))}
    return [found.get(number) for number in range(max(found) + 1)] if found else []


def gpu_numbers(sample: TelemetrySample) -> tuple[int, ...]:
    """Return the numbers of the GPUs that the sample tells of."""
    return tuple(sorted({int(match[1]) for key in sample.values if (match := _GPU.match(key))}))


def host_readings(sample: TelemetrySample) -> tuple[MeterReading, ...]:
    """Return memory, and what space is left for runs."""
    used, total = memory_use(sample)
    readings = [MeterReading(title="Memory", text=_of(used, total), share=_share(used, total))]
    free = sample.get("disk.free_bytes")
    if free is not None:
        readings.append(MeterReading(title="Free space for runs", text=size_text(free), share=None))
    return tuple(readings)


def memory_use(sample: TelemetrySample) -> tuple[float | None, float | None]:
    """Return used and total bytes of memory; of the container where it has a tighter limit than the machine."""
    used, total = sample.get("memory.used_bytes"), sample.get("memory.total_bytes")
    limit = sample.get("limit.memory_total_bytes")
    if limit is not None and (total is None or limit < total):
        return sample.get("limit.memory_used_bytes"), limit
    return used, total


def gpu_readings(sample: TelemetrySample) -> tuple[MeterReading, ...]:
    """Return load and memory of each GPU."""
    readings: list[MeterReading] = []
    for number in gpu_numbers(sample):
        busy = sample.get(f"gpu.{number}.utilization_percent")
        used, total = sample.get(f"gpu.{number}.memory_used_bytes"), sample.get(f"gpu.{number}.memory_total_bytes")
        load = "" if busy is None else f"{busy:.0f} % · "
        readings.append(
            MeterReading(title=f"GPU {number}", text=f"{load}{_of(used, total)}", share=_share(used, total))
        )
    return tuple(readings)


def rate_text(bytes_per_s: float | None) -> str:
    """Return a rate such as ``1.2 MiB/s``, a dash where it is not told."""
    return "—" if bytes_per_s is None else f"{size_text(bytes_per_s)}/s"


def _of(used: float | None, total: float | None) -> str:
    if used is None:
        return "—"
    return size_text(used) if total is None else f"{size_text(used)} of {size_text(total)}"


def _share(used: float | None, total: float | None) -> float | None:
    return None if used is None or not total else used / total
