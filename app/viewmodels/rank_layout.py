"""A parallel layout as data: which rank holds what, ready-made layouts, and the layout in words. Knows no Qt.

Ranks are numbered as the engine's device mesh does: pipeline slowest, then data, context, tensor fastest. Whether a
layout fits the model is checked by the kind of run; here it is only drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from core.contracts.forms import FormValue

PROCESSES = "parallel.processes"
_PREFIX = "parallel."
_DEGREES = ("tensor", "pipeline", "context", "replicas")


@dataclass(frozen=True, slots=True, kw_only=True)
class RankPlace:
    """What a rank works on: its data part, place in the pipeline, part of each sequence, part of each matrix, all from 0."""

    rank: int
    host: int
    data: int
    stage: int
    context: int
    tensor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RankLayout:
    """Degrees of a layout.

    Attributes:
        processes: Ranks on each host.
        hosts: Number of hosts.
        sharding: ``none``, ``zero1``, ``zero2`` or ``zero3``.
        replicas: Copies that sharded weights are kept in.
    """

    processes: int = 1
    hosts: int = 1
    tensor: int = 1
    pipeline: int = 1
    context: int = 1
    sharding: str = "none"
    replicas: int = 1

    @property
    def ranks(self) -> int:
        """All ranks of the run."""
        return self.processes * self.hosts

    @property
    def model_ranks(self) -> int:
        """Ranks that hold one copy of the model together."""
        return self.tensor * self.pipeline * self.context

    @property
    def data(self) -> int:
        """Data ranks; 0 when there are too few ranks for one copy of the model."""
        return self.ranks // self.model_ranks

    @property
    def divides(self) -> bool:
        """True when every rank has a place."""
        return self.data >= 1 and self.data * self.model_ranks == self.ranks

    def place(self, data: int, stage: int, context: int, tensor: int) -> RankPlace:
        """Return the rank at these coordinates."""
        rank = ((stage * self.data + data) * self.context + context) * self.tensor + tensor
        return RankPlace(rank=rank, host=rank // self.processes, data=data, stage=stage, context=context, tensor=tensor)

    def sentence(self) -> str:
        """Return the layout in words."""
        if not self.divides:
            return (
                f"{self.ranks} {_ranks(self.ranks)} cannot be shared out: tensor {self.tensor} × pipeline {self.pipeline} × "
                f"context {self.context} needs a multiple of {self.model_ranks}."
            )
        if self.ranks == 1:
            return "One process holds the whole model and sees all samples."
        named = (("data", self.data), ("tensor", self.tensor), ("pipeline", self.pipeline), ("context", self.context))
        degrees = " × ".join(f"{size} {name}" for name, size in named if size > 1)
        where = f" on {self.hosts} hosts" if self.hosts > 1 else ""
        return f"{self.ranks} ranks{where} = {degrees}. {self._held()}"

    def _held(self) -> str:
        parts: list[str] = []
        if self.pipeline > 1:
            parts.append(f"1/{self.pipeline} of the layers")
        if self.tensor > 1:
            parts.append(f"1/{self.tensor} of each matrix")
        if self.context > 1:
            parts.append(f"1/{self.context} of each sequence")
        held = " and ".join(parts) or "the whole model"
        shards = self.data // self.replicas if self.replicas else self.data
        shared = {
            "zero1": "optimizer state",
            "zero2": "optimizer state and gradients",
            "zero3": "weights and all state",
        }
        note = ""
        if self.sharding in shared and shards > 1:
            note = f"; {shards} data ranks share out its {shared[self.sharding]}"
        return f"Each rank works on {held}{note}."

    def tooltip(self, place: RankPlace) -> str:
        """Return what a rank holds, in words."""
        lines = [f"Rank {place.rank}" + (f" on host {place.host + 1}" if self.hosts > 1 else "")]
        if self.data > 1:
            lines.append(f"samples: part {place.data + 1} of {self.data}")
        if self.pipeline > 1:
            lines.append(f"layers: part {place.stage + 1} of {self.pipeline}")
        if self.tensor > 1:
            lines.append(f"matrices: part {place.tensor + 1} of {self.tensor}")
        if self.context > 1:
            lines.append(f"sequence: part {place.context + 1} of {self.context}")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutPreset:
    """A ready-made layout; ``least_ranks`` is the fewest that it makes sense for."""

    name: str
    title: str
    about: str
    least_ranks: int


PRESETS = (
    LayoutPreset(name="single", title="One process", about="No parallelism: one process, one device.", least_ranks=1),
    LayoutPreset(
        name="ddp",
        title="Data parallel (DDP)",
        about="Each rank holds the whole model and works on its own samples. The first choice while the model fits.",
        least_ranks=2,
    ),
    LayoutPreset(
        name="zero3",
        title="Sharded (ZeRO-3)",
        about="Data parallel, with weights, gradients and optimizer state shared out. For models that do not fit.",
        least_ranks=2,
    ),
    LayoutPreset(
        name="tensor",
        title="Tensor",
        about="The ranks of a host share every matrix. Needs fast links between its devices.",
        least_ranks=2,
    ),
    LayoutPreset(
        name="pipeline",
        title="Pipeline",
        about="Ranks hold consecutive layers; micro-batches flow through them. Bears slow links.",
        least_ranks=2,
    ),
    LayoutPreset(
        name="tensor-data",
        title="Tensor × data",
        about="Groups of ranks share the matrices; the groups work on different samples.",
        least_ranks=4,
    ),
    LayoutPreset(
        name="3d",
        title="3D",
        about="Data × tensor × pipeline, for the largest models on many devices.",
        least_ranks=8,
    ),
)


def layout_of(values: Mapping[str, FormValue], hosts: int) -> RankLayout:
    """Return the layout of form values; what is not a whole number from 1 on counts as 1."""
    degrees = {name: _degree(values.get(_PREFIX + name)) for name in ("processes", *_DEGREES)}
    return RankLayout(hosts=max(hosts, 1), sharding=str(values.get("parallel.sharding", "none")), **degrees)


def hosts_of(values: Mapping[str, FormValue]) -> int:
    """Return on how many hosts form values send a run."""
    named = values.get("launch.hosts")
    if values.get("launch.slurm.cluster"):
        return _degree(values.get("launch.slurm.nodes"))
    if values.get("launch.kubernetes.context"):
        return _degree(values.get("launch.kubernetes.nodes"))
    return max(len(named), 1) if isinstance(named, list) else 1


def preset_values(preset: LayoutPreset, values: Mapping[str, FormValue]) -> dict[str, FormValue]:
    """Return the values of a ready-made layout for the processes and hosts chosen; more processes where they are too few."""
    now = layout_of(values, hosts_of(values))
    if preset.name == "single":
        return _values(RankLayout())
    processes = max(now.processes, math.ceil(preset.least_ranks / now.hosts))
    layout = _arranged(preset.name, processes, now.hosts)
    filled = _values(layout)
    accumulation = values.get("optimizer.grad_accum_steps")
    if layout.pipeline > 1 and isinstance(accumulation, int) and accumulation < layout.pipeline:
        filled["optimizer.grad_accum_steps"] = layout.pipeline
    return filled


def preset_of(layout: RankLayout) -> str:
    """Return the name of the ready-made layout that this one is of; empty for one of the user's own."""
    if layout.ranks == 1:
        return "single"
    split = (layout.data > 1, layout.tensor > 1, layout.pipeline > 1)
    if layout.context > 1 or not layout.divides:
        return ""
    if split == (True, False, False):
        return {"none": "ddp", "zero3": "zero3"}.get(layout.sharding, "")
    plain = {
        (False, True, False): "tensor",
        (False, False, True): "pipeline",
        (True, True, False): "tensor-data",
        (True, True, True): "3d",
    }
    return plain.get(split, "") if layout.sharding == "none" else ""


def _arranged(name: str, processes: int, hosts: int) -> RankLayout:
    match name:
        case "ddp" | "zero3":
            sharding = "zero3" if name == "zero3" else "none"
            return RankLayout(processes=processes, hosts=hosts, sharding=sharding)
        case "tensor":
            return RankLayout(processes=processes, hosts=hosts, tensor=processes)
        case "pipeline":
            return RankLayout(processes=processes, hosts=hosts, pipeline=processes * hosts)
        case "tensor-data":
            even = processes + processes % 2 if hosts == 1 else processes
            return RankLayout(processes=even, hosts=hosts, tensor=_middle_divisor(even))
        case _:
            whole = (
                math.ceil(processes * hosts / 8) * 8 // hosts if hosts in {1, 2, 4, 8} else math.ceil(processes / 8) * 8
            )
            rest = whole * hosts // 2
            tensor = next((size for size in (_middle_divisor(rest), 2) if whole % size == 0), 1)
            return RankLayout(processes=whole, hosts=hosts, tensor=tensor, pipeline=2)


def _middle_divisor(number: int) -> int:
    """Return the divisor nearest below the square root, but at least 2 where there is one."""
    fitting = [size for size in range(2, math.isqrt(number) + 1) if number % size == 0]
    return fitting[-1] if fitting else number


def _values(layout: RankLayout) -> dict[str, FormValue]:
    return {
        PROCESSES: layout.processes,
        "parallel.sharding": layout.sharding,
        "parallel.tensor": layout.tensor,
        "parallel.pipeline": layout.pipeline,
        "parallel.context": 1,
        "parallel.replicas": 1,
    }


def _degree(value: FormValue) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 1 else 1


def _ranks(count: int) -> str:
    return "rank" if count == 1 else "ranks"
