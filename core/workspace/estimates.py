"""What a run is expected to need, compared with the devices of this machine; a run elsewhere is compared with nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from core.contracts.estimates import MemoryEstimate
from core.contracts.kinds import RunKind
from core.contracts.specs import RunSpec
from core.contracts.telemetry import HardwareReport
from core.fleet.remote_runs import engine_of


def estimate_of(kind: RunKind, spec: RunSpec, hardware: Callable[[], HardwareReport]) -> MemoryEstimate | None:
    """Return the estimate of a kind for a spec, with the device of this machine that it would run on.

    Args:
        kind: The kind of the spec.
        spec: What is asked.
        hardware: Returns what this machine has; called only where the device is one of it.
    """
    estimate = kind.estimate(spec)
    if estimate is None or engine_of(spec.launch) is not None:
        return estimate
    report = hardware()
    wants_cpu = getattr(spec, "device", "auto") == "cpu" or spec.launch.devices == "cpu"
    gpus = [gpu for gpu in report.gpus if gpu.memory_total_bytes and not gpu.problem]
    if gpus and not wants_cpu:
        smallest = min(gpus, key=lambda gpu: gpu.memory_total_bytes or 0)
        return replace(estimate, device=smallest.name, device_bytes=smallest.memory_total_bytes)
    ranks = kind.ranks(spec)
    words = "this machine's memory" if ranks == 1 else f"this machine's memory shared by {ranks} processes"
    return replace(estimate, device=words, device_bytes=report.memory.usable_bytes // ranks)
