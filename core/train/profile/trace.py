"""Reads the trace that torch.profiler writes (the Chrome trace format): wall time by category, and the curve of memory.

Categories are told by what torch and its back-ends call things: NCCL's kernels and gloo's operations communicate, copies are
named so by CUPTI, ``Optimizer.step`` is torch's own mark. Imports no torch, so that a trace can be read anywhere.
"""

from __future__ import annotations

import gzip
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from core.contracts.profiles import (
    COMMUNICATION,
    COMPUTE,
    DATA_LOADING,
    MEMORY_COPY,
    OPTIMIZER,
    CategoryTime,
    MemoryCurve,
)
from core.train.profile.timeline import ON_CPU, ON_DEVICE, Interval, categories, decimated, split

STEP = "step"
"""Name of the mark around each profiled step."""
_MICROSECOND_S = 1e-6
_DEVICE_EVENTS = frozenset({"kernel", "gpu_memcpy", "gpu_memset"})
_COMMUNICATION = ("nccl", "rccl", "oneccl", "gloo:", "c10d::", "_c10d_functional::", "c10d_functional::", "xccl")
_COPIES = ("aten::copy_", "Memcpy", "Memset")
OPTIMIZER_MARK = "Optimizer.step"
LOADER_MARKS = ("enumerate(DataLoader)", "data")
_WRAPPERS = ("autograd::", "torch::", "profiler::")
"""Frames around other operations, which say nothing themselves."""


class _Event(msgspec.Struct):
    ph: str = ""
    name: str = ""
    cat: str = ""
    ts: float = 0.0
    dur: float = 0.0
    tid: int | str = 0
    args: msgspec.Raw = msgspec.Raw(b"{}")


class _Trace(msgspec.Struct):
    events: list[_Event] = msgspec.field(name="traceEvents", default_factory=list[_Event])


class _Memory(msgspec.Struct):
    allocated: int = msgspec.field(name="Total Allocated", default=0)
    device_type: int = msgspec.field(name="Device Type", default=0)
    device: int = msgspec.field(name="Device Id", default=-1)


class TraceSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What a trace says.

    Attributes:
        wall_s: From the first marked step to the end of the last.
        categories: Where that time went.
        memory: Of each device.
    """

    wall_s: float
    categories: tuple[CategoryTime, ...]
    memory: tuple[MemoryCurve, ...]


def read_trace(path: Path) -> TraceSummary:
    """Summarize a trace.

    Args:
        path: A ``.json.gz`` of torch.profiler, with a mark named ``STEP`` around each step.

    Raises:
        OSError: It cannot be read.
        msgspec.DecodeError: It is no trace.
    """
    with gzip.open(path) as file:
        events = msgspec.json.decode(file.read(), type=_Trace).events
    marks = [one for one in events if one.cat == "user_annotation" and one.name == STEP]
    start = min((one.ts for one in marks), default=min((e.ts for e in events if e.ph == "X"), default=0.0))
    end = max((one.ts + one.dur for one in marks or events), default=start)
    main_thread = marks[0].tid if marks else 0
    if any(one.cat in _DEVICE_EVENTS for one in events):
        found = split([*_device_intervals(events), *_loading(events, main_thread)], start, end, ON_DEVICE)
    else:
        found = split([*_cpu_intervals(events), *_loading(events, main_thread)], start, end, ON_CPU)
    return TraceSummary(
        wall_s=(end - start) * _MICROSECOND_S,
        categories=categories(found, _MICROSECOND_S),
        memory=_memory(events, start),
    )


def _interval(event: _Event, category: str) -> Interval:
    return Interval(event.ts, event.ts + event.dur, category)


def _loading(events: Sequence[_Event], main_thread: int | str) -> Iterator[Interval]:
    """Find where the training waited for data: loading in other threads or processes costs nothing."""
    for one in events:
        if one.cat == "user_annotation" and one.tid == main_thread and one.name.startswith(LOADER_MARKS):
            yield _interval(one, DATA_LOADING)


def _cpu_intervals(events: Sequence[_Event]) -> Iterator[Interval]:
    for one in events:
        if one.cat == "user_annotation" and one.name.startswith(OPTIMIZER_MARK):
            yield _interval(one, OPTIMIZER)
        elif one.ph == "X" and one.cat in ("cpu_op", "user_annotation"):
            category = category_of(one.name)
            # Marks of people and hooks surround other work; only those of the back-ends are work themselves.
            if category and (one.cat == "cpu_op" or category == COMMUNICATION):
                yield _interval(one, category)


def _device_intervals(events: Sequence[_Event]) -> Iterator[Interval]:
    updates = sorted(
        (one.ts, one.ts + one.dur)
        for one in events
        if one.cat == "gpu_user_annotation" and one.name.startswith(OPTIMIZER_MARK)
    )
    begins = [begin for begin, _ in updates]
    for one in events:
        if one.cat not in _DEVICE_EVENTS:
            continue
        index = bisect_right(begins, one.ts) - 1
        if index >= 0 and one.ts < updates[index][1]:
            yield _interval(one, OPTIMIZER)
        else:
            yield _interval(one, kernel_category(one.name))


def kernel_category(name: str) -> Literal["communication", "memory copy", "compute"]:
    """Return the category of something that ran on a GPU, by its name."""
    if "nccl" in name.lower():
        return COMMUNICATION
    return MEMORY_COPY if name.startswith(_COPIES) else COMPUTE


def category_of(name: str) -> str:
    """Return the category of an operation on the CPU, by its name; empty for one that only surrounds others."""
    if name.startswith(_COMMUNICATION):
        return COMMUNICATION
    if name.startswith(_COPIES):
        return MEMORY_COPY
    return COMPUTE if "::" in name and not name.startswith(_WRAPPERS) else ""


def _memory(events: Sequence[_Event], start: float) -> tuple[MemoryCurve, ...]:
    points: dict[str, list[tuple[float, int]]] = {}
    for one in events:
        if one.name == "[memory]":
            held = msgspec.json.decode(one.args, type=_Memory)
            name = "cpu" if held.device_type == 0 else f"gpu {held.device}"
            points.setdefault(name, []).append(((one.ts - start) * _MICROSECOND_S, held.allocated))
    return tuple(decimated(name, sorted(found)) for name, found in sorted(points.items()))
