"""``pilothouse hardware``: what this machine has, how busy it is now, and on demand what it can do at most."""

from __future__ import annotations

import argparse
import time

import msgspec

from core.cli.output import ExitCode, print_json, print_text
from core.contracts.telemetry import HardwareReport, Roofline
from core.hardware.probe import probe
from core.hardware.roofline import measure_roofline
from core.hardware.sampler import HostSampler

_RATE_WINDOW_S = 0.3


def show_hardware(options: argparse.Namespace) -> ExitCode:
    """Print the hardware report and one reading of the telemetry."""
    report = probe()
    sampler = HostSampler()
    try:
        sampler.sample()
        time.sleep(_RATE_WINDOW_S)
        reading = sampler.sample()
    finally:
        sampler.close()
    roofline = measure_roofline() if options.measure else None
    if options.json:
        measured = {} if roofline is None else {"roofline": msgspec.to_builtins(roofline)}
        print_json({**msgspec.to_builtins(report), "telemetry": reading, **measured})
    else:
        print_text(describe(report))
        if roofline is not None:
            print_text(describe_roofline(roofline))
    return ExitCode.OK


def describe_roofline(roofline: Roofline) -> str:
    """Return the measured ceilings as lines for people."""
    lines = [
        f"  peak    {roofline.peak_fp32_flop_per_s / 1e9:.1f} GFLOP/s fp32 on {roofline.threads} threads ({roofline.engine})",
        f"  memory  {roofline.bandwidth_bytes_per_s / 1e9:.1f} GB/s (triad, three arrays of {_gib(roofline.array_bytes)})",
        f"  ridge   {roofline.ridge_flop_per_byte:.1f} FLOP/B: below it, memory limits",
    ]
    return "\n".join([*lines, *([f"  note    {roofline.note}"] if roofline.note else [])])


def describe(report: HardwareReport) -> str:
    """Return a hardware report as lines for people."""
    cpu, memory = report.cpu, report.memory
    lines = [
        f"{report.host}: {report.system}",
        f"  CPU     {cpu.model}, {cpu.usable_cores:g} of {cpu.logical_cores} hardware threads usable"
        + (f" ({', '.join(cpu.features)})" if cpu.features else ""),
        f"  memory  {_gib(memory.usable_bytes)} usable, {_gib(memory.available_bytes)} available",
    ]
    lines += [f"  disk    {d.mount}: {_gib(d.free_bytes)} free of {_gib(d.total_bytes)}" for d in report.disks]
    lines += [
        f"  GPU {g.index}   {g.name}{_gpu_memory(g.memory_total_bytes)} {g.problem}".rstrip() for g in report.gpus
    ]
    lines += [f"  {p.severity.value}: {p.message} {p.hint}".rstrip() for p in report.problems]
    return "\n".join(lines)


def _gib(size_bytes: float) -> str:
    return f"{size_bytes / 2**30:.1f} GiB"


def _gpu_memory(size_bytes: int | None) -> str:
    return "" if size_bytes is None else f", {_gib(size_bytes)}"
