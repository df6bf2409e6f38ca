"""What a profile of some training steps found, as the records that window, command line and files share.

A report is stored as ``profile.json`` beside its trace, an artifact of kind ``profile.summary``; ``Workspace.profile``
reads the newest of a run. Times are seconds over all profiled steps; of one process, the one that was profiled.
"""

from __future__ import annotations

import msgspec

SUMMARY_KIND = "profile.summary"
TRACE_KIND = "profile.trace"
SUMMARY_FILE = "profile.json"

COMPUTE = "compute"
COMMUNICATION = "communication"
DATA_LOADING = "data loading"
OPTIMIZER = "optimizer"
MEMORY_COPY = "memory copy"
IDLE = "idle"
CATEGORIES = (COMPUTE, COMMUNICATION, DATA_LOADING, OPTIMIZER, MEMORY_COPY, IDLE)

MOST_STEPS = 1000
"""Steps that one profile covers at most."""


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    """A record that is stored as JSON; unknown fields of newer versions are ignored."""


class OperatorTime(_Record, frozen=True, kw_only=True):
    """What an operator, kernel or marked phase cost.

    Attributes:
        name: Such as ``aten::addmm``, a kernel's name, or ``forward`` for a phase.
        calls: How often it ran.
        self_cpu_s: On the CPU in itself; parallel threads add up.
        total_cpu_s: With all that it called.
        self_device_s: On the GPU in itself; 0 without one.
        total_device_s: With all that it called.
    """

    name: str
    calls: int
    self_cpu_s: float = 0.0
    total_cpu_s: float = 0.0
    self_device_s: float = 0.0
    total_device_s: float = 0.0


class CategoryTime(_Record, frozen=True, kw_only=True):
    """How much of the wall time went where; of what went on at once, one thing is counted.

    Attributes:
        name: One of ``CATEGORIES``.
        seconds: Wall seconds.
        fraction: Share of the wall time, 0 to 1; the fractions of a report add up to 1.
    """

    name: str
    seconds: float
    fraction: float


class MemoryCurve(_Record, frozen=True, kw_only=True):
    """Bytes that tensors held, over time; the highest value of each small span of time is kept.

    Attributes:
        device: ``cpu``, or ``gpu 0``. The CPU's curve counts from the beginning of the profile, a GPU's is absolute.
        times_s: Seconds since the beginning of the profile.
        allocated_bytes: One for each time.
    """

    device: str
    times_s: tuple[float, ...]
    allocated_bytes: tuple[int, ...]


class ProfileReport(_Record, frozen=True, kw_only=True):
    """A profile of some steps of a training.

    Attributes:
        source: What recorded it: ``torch.profiler`` or ``Nsight Systems``.
        rank: Which rank of the run; -1 when all processes of a node were recorded together.
        device: What the rank computed on, such as ``cpu`` or ``cuda:0``.
        first_step: The first profiled step; 0 when that is not known.
        steps: How many were profiled; 0: the whole run.
        recorded_at: Unix seconds.
        wall_s: From the beginning to the end of the profile.
        operators: The costliest, those with the most time in themselves first.
        phases: Marked parts of a step (data, forward, backward, ...), the longest first.
        categories: In the order of ``CATEGORIES``.
        memory: One curve for each device that was seen.
        trace_path: The trace, absolute once ``Workspace.profile`` has read it; Perfetto (ui.perfetto.dev) or
            chrome://tracing opens it, Nsight Systems one of its own.
    """

    source: str
    rank: int
    device: str
    first_step: int
    steps: int
    recorded_at: float
    wall_s: float
    operators: tuple[OperatorTime, ...] = ()
    phases: tuple[OperatorTime, ...] = ()
    categories: tuple[CategoryTime, ...] = ()
    memory: tuple[MemoryCurve, ...] = ()
    trace_path: str = ""

    def fraction(self, category: str) -> float:
        """Return the share of the wall time that a category took; 0 for one that was not seen."""
        return next((one.fraction for one in self.categories if one.name == category), 0.0)
