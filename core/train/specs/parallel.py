"""How a model and its data are laid out over the ranks of a run."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from core.train.fields import extra

_SECTION = "Parallel layout"

Sharding = Literal["none", "zero1", "zero2", "zero3"]
PipelineSchedule = Literal["gpipe", "1f1b", "interleaved", "looped-bfs", "interleaved-zero-bubble", "zbv", "dualpipev"]


class ParallelSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Degrees of parallelism. Ranks of the run = data x tensor x pipeline x context; the data degree follows from it."""

    processes: Annotated[
        int,
        Meta(
            title="Processes",
            ge=1,
            le=4096,
            description="Ranks on each host, as a rule one for each GPU; 1 trains in a single process.",
            extra_json_schema=extra(_SECTION, advanced=True),
        ),
    ] = 1
    sharding: Annotated[
        Sharding,
        Meta(
            title="Sharding",
            description=(
                "What the data ranks share out: none (DDP: everything on each), zero1 (optimizer state), zero2 (and "
                "gradients), zero3 (and weights, gathered layer by layer; least memory, most communication)."
            ),
            extra_json_schema=extra(_SECTION, advanced=True),
        ),
    ] = "none"
    replicas: Annotated[
        int,
        Meta(
            title="Sharded replicas",
            ge=1,
            le=4096,
            description="Copies of the sharded model (HSDP): weights are sharded within a copy only; 1 shards over all data ranks.",
            extra_json_schema=extra(
                _SECTION, advanced=True, shown_if={"field": "parallel.sharding", "in": ["zero1", "zero2", "zero3"]}
            ),
        ),
    ] = 1
    tensor: Annotated[
        int,
        Meta(
            title="Tensor parallel",
            ge=1,
            le=64,
            description="Ranks that share each layer's matrices; must divide attention heads, key-value heads and the MLP width.",
            extra_json_schema=extra(_SECTION, advanced=True),
        ),
    ] = 1
    sequence: Annotated[
        bool,
        Meta(
            title="Sequence parallel",
            description="With tensor parallel: norms and residuals are split along the sequence too, which saves activation memory.",
            extra_json_schema=extra(_SECTION, advanced=True, shown_if={"field": "parallel.tensor", "above": 1}),
        ),
    ] = True
    pipeline: Annotated[
        int,
        Meta(
            title="Pipeline parallel",
            ge=1,
            le=256,
            description="Ranks that hold consecutive layers; micro-batches flow through them.",
            extra_json_schema=extra(_SECTION, advanced=True),
        ),
    ] = 1
    schedule: Annotated[
        PipelineSchedule,
        Meta(
            title="Pipeline schedule",
            description=(
                "Order of forward and backward passes. 1f1b keeps at most as many micro-batches alive as stages; "
                "interleaved gives each rank several stages; zero-bubble kinds split the backward pass to fill gaps."
            ),
            extra_json_schema=extra(_SECTION, advanced=True, shown_if={"field": "parallel.pipeline", "above": 1}),
        ),
    ] = "1f1b"
    stages_per_rank: Annotated[
        int,
        Meta(
            title="Stages per rank",
            ge=2,
            le=16,
            description="Model pieces on each pipeline rank under the interleaved and looped schedules.",
            extra_json_schema=extra(
                _SECTION,
                advanced=True,
                shown_if={"field": "parallel.schedule", "in": ["interleaved", "looped-bfs", "interleaved-zero-bubble"]},
            ),
        ),
    ] = 2
    context: Annotated[
        int,
        Meta(
            title="Context parallel",
            ge=1,
            le=256,
            description="Ranks that share each sequence; keys and values are gathered. For long sequences.",
            extra_json_schema=extra(_SECTION, advanced=True),
        ),
    ] = 1
    timeout_s: Annotated[
        float,
        Meta(
            title="Communication timeout",
            ge=10,
            le=86_400,
            description="A rank that waits for the others longer than this ends the run.",
            extra_json_schema=extra(_SECTION, "s", advanced=True),
        ),
    ] = 600.0

    @property
    def model_ranks(self) -> int:
        """Ranks that together hold one copy of the model and work on the same samples."""
        return self.tensor * self.pipeline * self.context
