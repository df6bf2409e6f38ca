"""The catalogue of telemetry names: title, unit and group of each key of a sample, for plots, tables and help.

A key is dotted; a number in it counts things of a kind (``cpu.3.percent``, ``gpu.0.power_w``). A run on other hosts has
the node before it (``h1:cpu.percent``). ``reading_of`` finds the entry of a key. It formats no numbers and knows no colours.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one key of a sample means.

    Attributes:
        key: The key, or its pattern with ``#`` for a number.
        title: Name for people, with the thing's number in it once resolved: ``GPU 0 power``.
        unit: ``%``, ``B``, ``B/s``, ``W``, ``J``, ``°C``, ``Hz``, ``s`` or empty for a plain count.
        group: Which readings share a plot: ``Processor``, ``Memory``, ``Run``, ``GPU utilization``, ...
        is_plotted: False for codes (bit masks) that make no sense as a curve.
        maximum: Natural upper end of the axis, such as 100 for a percentage; None where there is none.
    """

    key: str
    title: str
    unit: str = ""
    group: str = "Other"
    is_plotted: bool = True
    maximum: float | None = None


def _percent(key: str, title: str, group: str, maximum: float | None = 100.0) -> Reading:
    return Reading(key=key, title=title, unit="%", group=group, maximum=maximum)


def _bytes(key: str, title: str, group: str) -> Reading:
    return Reading(key=key, title=title, unit="B", group=group)


def _rate(key: str, title: str, group: str) -> Reading:
    return Reading(key=key, title=title, unit="B/s", group=group)


def _of(key: str, title: str, unit: str, group: str) -> Reading:
    return Reading(key=key, title=title, unit=unit, group=group)


def _some_waited(resource: str, title: str) -> Reading:
    return _percent(f"pressure.{resource}_percent", f"Some task waited for {title}", "Pressure")


def _all_waited(resource: str, title: str) -> Reading:
    return _percent(f"pressure.{resource}_full_percent", f"All tasks waited for {title}", "Pressure")


READINGS: tuple[Reading, ...] = (
    _percent("cpu.percent", "Processor", "Processor"),
    _percent("cpu.#.percent", "Core # busy", "Processor cores"),
    _of("cpu.load_1min", "Load, mean of 1 min", "", "Processor load"),
    _of("cpu.frequency_hz", "Processor clock", "Hz", "Clocks"),
    _of("cpu.temperature_c", "Processor temperature", "°C", "Temperature"),
    _bytes("memory.used_bytes", "Memory used", "Memory"),
    _bytes("memory.available_bytes", "Memory available", "Memory"),
    _bytes("memory.total_bytes", "Memory in all", "Memory"),
    _bytes("swap.used_bytes", "Swap used", "Memory"),
    _bytes("limit.memory_used_bytes", "Memory used in the container", "Memory"),
    _bytes("limit.memory_total_bytes", "Memory limit of the container", "Memory"),
    _rate("disk.read_bytes_per_s", "Disk read", "Disk"),
    _rate("disk.write_bytes_per_s", "Disk written", "Disk"),
    _bytes("disk.free_bytes", "Free space for runs", "Disk space"),
    _rate("net.rx_bytes_per_s", "Network received", "Network"),
    _rate("net.tx_bytes_per_s", "Network sent", "Network"),
    _some_waited("cpu", "a core"),
    _some_waited("memory", "memory"),
    _all_waited("memory", "memory"),
    _some_waited("io", "the disk"),
    _all_waited("io", "the disk"),
    _percent("run.cpu_percent", "Run: processor (100 % is one core)", "Run processor", None),
    _bytes("run.rss_bytes", "Run: memory", "Run memory"),
    _of("run.processes", "Run: processes", "", "Run processes"),
    _of("run.threads", "Run: threads", "", "Run processes"),
    _rate("run.read_bytes_per_s", "Run: disk read", "Run disk"),
    _rate("run.write_bytes_per_s", "Run: disk written", "Run disk"),
    _percent("gpu.#.utilization_percent", "GPU # busy", "GPU utilization"),
    _percent("gpu.#.memory_utilization_percent", "GPU # memory bus busy", "GPU utilization"),
    _percent("gpu.#.encoder_percent", "GPU # video encoder", "GPU video"),
    _percent("gpu.#.decoder_percent", "GPU # video decoder", "GPU video"),
    _percent("gpu.#.sm_percent", "GPU # multiprocessors busy", "GPU units"),
    _percent("gpu.#.sm_occupancy_percent", "GPU # multiprocessor occupancy", "GPU units"),
    _percent("gpu.#.tensor_percent", "GPU # tensor cores busy", "GPU units"),
    _percent("gpu.#.fp16_percent", "GPU # fp16 units busy", "GPU units"),
    _percent("gpu.#.fp32_percent", "GPU # fp32 units busy", "GPU units"),
    _percent("gpu.#.fp64_percent", "GPU # fp64 units busy", "GPU units"),
    _percent("gpu.#.dram_percent", "GPU # memory bandwidth used", "GPU units"),
    _bytes("gpu.#.memory_used_bytes", "GPU # memory used", "GPU memory"),
    _bytes("gpu.#.memory_total_bytes", "GPU # memory in all", "GPU memory"),
    _bytes("gpu.#.run_memory_used_bytes", "GPU # memory held by the run", "GPU memory"),
    _of("gpu.#.processes", "GPU # processes that hold it", "", "GPU processes"),
    _of("gpu.#.power_w", "GPU # power", "W", "GPU power"),
    _of("gpu.#.power_limit_w", "GPU # power limit", "W", "GPU power"),
    _of("gpu.#.energy_j", "GPU # energy since the driver started", "J", "GPU energy"),
    _of("gpu.#.temperature_c", "GPU # temperature", "°C", "GPU temperature"),
    _of("gpu.#.memory_temperature_c", "GPU # memory temperature", "°C", "GPU temperature"),
    _percent("gpu.#.fan_percent", "GPU # fan", "GPU fan"),
    _of("gpu.#.sm_clock_hz", "GPU # core clock", "Hz", "GPU clocks"),
    _of("gpu.#.memory_clock_hz", "GPU # memory clock", "Hz", "GPU clocks"),
    Reading(key="gpu.#.throttled", title="GPU # held back", group="GPU throttling", maximum=1.0),
    Reading(
        key="gpu.#.throttle_reasons", title="GPU # reasons it is held back", group="GPU throttling", is_plotted=False
    ),
    _rate("gpu.#.pcie_tx_bytes_per_s", "GPU # PCIe sent", "GPU PCIe"),
    _rate("gpu.#.pcie_rx_bytes_per_s", "GPU # PCIe received", "GPU PCIe"),
    _rate("gpu.#.nvlink_tx_bytes_per_s", "GPU # NVLink sent", "GPU NVLink"),
    _rate("gpu.#.nvlink_rx_bytes_per_s", "GPU # NVLink received", "GPU NVLink"),
    _of(
        "gpu.#.ecc_corrected_volatile",
        "GPU # corrected memory errors since the driver started",
        "",
        "GPU memory errors",
    ),
    _of(
        "gpu.#.ecc_uncorrected_volatile",
        "GPU # uncorrected memory errors since the driver started",
        "",
        "GPU memory errors",
    ),
    _of("gpu.#.ecc_corrected_aggregate", "GPU # corrected memory errors of its life", "", "GPU memory errors"),
    _of("gpu.#.ecc_uncorrected_aggregate", "GPU # uncorrected memory errors of its life", "", "GPU memory errors"),
)

_BY_PATTERN = {reading.key: reading for reading in READINGS}

THROTTLE_REASONS: tuple[tuple[int, str, bool], ...] = (
    (0x001, "idle", False),
    (0x002, "application clocks", False),
    (0x004, "power cap", True),
    (0x008, "hardware slowdown", True),
    (0x010, "sync boost", True),
    (0x020, "software thermal slowdown", True),
    (0x040, "hardware thermal slowdown", True),
    (0x080, "power brake", True),
    (0x100, "display clocks", False),
)
"""Bit of ``gpu.#.throttle_reasons``, its name, and whether it holds work back (the others are settings or rest)."""


def throttle_names(mask: float | None) -> tuple[str, ...]:
    """Return the names of the reasons in a ``gpu.#.throttle_reasons`` reading, in bit order; empty for None."""
    bits = 0 if mask is None else int(mask)
    return tuple(name for bit, name, _ in THROTTLE_REASONS if bits & bit)


def is_held_back(mask: int) -> bool:
    """Tell whether a mask holds a reason that slows work down, not merely rest or a chosen clock."""
    return any(mask & bit for bit, _, holds_back in THROTTLE_REASONS if holds_back)


@lru_cache(maxsize=4096)
def reading_of(key: str) -> Reading:
    """Return what a sample's key means, its number put into the title; an unknown key is its own title, group ``Other``.

    A key of another host, ``<node>:<key>``, means the same, with the node before the title.
    """
    node, separator, rest = key.partition(":")
    if separator:
        meant = reading_of(rest)
        return replace(meant, key=key, title=key if meant.title == rest else f"{node}: {meant.title}")
    numbers = _NUMBER.findall(key)
    pattern = _BY_PATTERN.get(_NUMBER.sub("#", key))
    if pattern is None:
        return Reading(key=key, title=key)
    title = pattern.title.replace("#", numbers[0]) if numbers else pattern.title
    return replace(pattern, key=key, title=title)
