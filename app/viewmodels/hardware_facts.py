"""A hardware report as lines of name and value, in the order in which people ask for them."""

from __future__ import annotations

from dataclasses import dataclass

from app.viewmodels.wording import size_text
from core.contracts.telemetry import CpuInfo, HardwareReport

_MAX_DISKS = 4


@dataclass(frozen=True, slots=True)
class Fact:
    """One line."""

    name: str
    value: str


def hardware_facts(report: HardwareReport) -> tuple[Fact, ...]:
    """Return what a computer is made of; what it does not tell is left out."""
    facts = [
        Fact("Processor", report.cpu.model),
        Fact("Cores", cores_text(report.cpu)),
        Fact("Instructions", ", ".join(report.cpu.features)),
        Fact("Memory", memory_text(report)),
        *(Fact("GPU", gpu.name) for gpu in report.gpus[:1] if len(report.gpus) == 1),
        Fact("GPUs", f"{len(report.gpus)} x {report.gpus[0].name}" if len(report.gpus) > 1 else ""),
        *(
            Fact(
                "Disk" if index == 0 else "",
                f"{disk.mount}: {size_text(disk.free_bytes)} free of {size_text(disk.total_bytes)}",
            )
            for index, disk in enumerate(report.disks[:_MAX_DISKS])
        ),
        Fact("System", report.system),
        Fact("Kernel", report.kernel),
        Fact("Container", report.container),
    ]
    return tuple(fact for fact in facts if fact.value)


def cores_text(cpu: CpuInfo) -> str:
    """Return how many cores there are, and how much of them may be used where that is less."""
    physical = f"{cpu.physical_cores} cores, " if cpu.physical_cores else ""
    text = f"{physical}{cpu.logical_cores} hardware threads"
    if cpu.usable_cores < cpu.logical_cores:
        text += f"; {cpu.usable_cores:g} usable here"
    return text if cpu.max_frequency_hz is None else f"{text}, up to {cpu.max_frequency_hz / 1e9:.1f} GHz"


def memory_text(report: HardwareReport) -> str:
    """Return how much memory there is, and how much of it may be used where that is less."""
    memory = report.memory
    text = f"{size_text(memory.total_bytes)}, {size_text(memory.available_bytes)} available"
    if memory.limit_bytes is not None and memory.limit_bytes < memory.total_bytes:
        text += f"; {size_text(memory.limit_bytes)} is this container's limit"
    return text if not memory.swap_total_bytes else f"{text}; {size_text(memory.swap_total_bytes)} swap"
