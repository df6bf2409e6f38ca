"""What a step is measured by: seconds by what they were spent on, rates, FLOP/s, memory.

Seconds are those of the host. On a GPU the passes are queued and end when the loss is read, so that ``forward_backward``
holds them; no synchronization is added. ``communication`` is what a rank spends in the engine's own exchanges, waiting for
slower ranks included; collectives inside the passes (gradient reduction, gathering of shards, pipeline transfers) overlap
with them and count as passes: the profiler tells them apart.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch.autograd import profiler
from torch.profiler import record_function

# Dense peaks in TFLOP/s by (bf16 or fp16, tf32, fp8) from the vendors' data sheets; 0: none.
_PEAK_TFLOPS: tuple[tuple[str, tuple[float, float, float]], ...] = (
    ("B200", (2250.0, 1100.0, 4500.0)),
    ("B100", (1750.0, 875.0, 3500.0)),
    ("H200", (989.4, 494.7, 1978.9)),
    ("H100 PCIe", (756.0, 378.0, 1513.0)),
    ("H100 NVL", (835.0, 417.5, 1670.0)),
    ("H100", (989.4, 494.7, 1978.9)),
    ("A100", (312.0, 156.0, 0.0)),
    ("A800", (312.0, 156.0, 0.0)),
    ("L40S", (362.0, 183.0, 733.0)),
    ("L40", (181.0, 90.5, 362.0)),
    ("L4", (121.0, 60.0, 242.0)),
    ("A10G", (70.0, 35.0, 0.0)),
    ("A10", (125.0, 62.5, 0.0)),
    ("A30", (165.0, 82.0, 0.0)),
    ("V100", (125.0, 0.0, 0.0)),
    ("T4", (65.0, 0.0, 0.0)),
    ("RTX 4090", (165.2, 82.6, 330.3)),
    ("RTX 3090", (71.0, 35.6, 0.0)),
    ("MI300X", (1307.4, 653.7, 2614.9)),
    ("MI250X", (383.0, 0.0, 0.0)),
)
_COLUMN = {"bf16": 0, "fp16": 0, "tf32": 1, "fp8": 2}


def peak_flops(device: torch.device, precision: str) -> float:
    """Return a device's dense peak in FLOP/s in a precision; 0 where it is not known (CPUs, fp32, other devices)."""
    if device.type != "cuda" or precision not in _COLUMN:
        return 0.0
    name = torch.cuda.get_device_name(device)
    for part, peaks in _PEAK_TFLOPS:
        if part in name:
            return peaks[_COLUMN[precision]] * 1e12
    return 0.0


def peak_memory_bytes(device: torch.device) -> float:
    """Return the most memory that this process had in use on its device so far (on a CPU: resident memory)."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    if device.type == "xpu":
        return float(torch.xpu.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak if sys.platform == "darwin" else peak * 1024)


def marked(name: str) -> AbstractContextManager[object]:
    """Return a context that marks a part of a step in a profile; where nothing records, one that does nothing."""
    # Asked first, for a mark costs ten microseconds also when nothing records; there is nothing public to ask.
    is_recording = profiler._is_profiler_enabled  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    return record_function(name) if is_recording else nullcontext()


class Stopwatch:
    """Seconds of one step by what they were spent on.

    Attributes:
        seconds: By name.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._started = time.perf_counter()

    def restart(self) -> None:
        """Begin a step."""
        self.seconds = {}
        self._started = time.perf_counter()

    @contextmanager
    def measure(self, name: str) -> Generator[None]:
        """Add the time of what is inside to ``name``, which is also how a profile marks it."""
        started = time.perf_counter()
        try:
            with marked(name):
                yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started

    def total(self) -> float:
        """Return the seconds since the step began."""
        return time.perf_counter() - self._started
