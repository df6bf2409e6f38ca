"""Things found by trying before the training begins, and the profile taken during it."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from core.train.fields import extra

_SECTION = "Found by trying"


class TuningSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Finders that run before the first step, and the profiler."""

    find_lr: Annotated[
        bool,
        Meta(
            title="Find the learning rate",
            description="Raises the learning rate over some steps, takes one below where the loss turns, then starts anew.",
            extra_json_schema=extra(_SECTION, advanced=True),
        ),
    ] = False
    find_micro_batch: Annotated[
        bool,
        Meta(
            title="Find the largest micro-batch",
            description="Tries larger micro-batches until memory runs out; the batch per optimizer step stays as asked.",
            extra_json_schema=extra(_SECTION, advanced=True),
        ),
    ] = False
    profile_at_step: Annotated[
        int,
        Meta(
            title="Profile at step",
            ge=0,
            le=10**9,
            description="Records a profile when this step begins; 0: only when asked for while it runs.",
            extra_json_schema=extra(_SECTION, advanced=True),
        ),
    ] = 0
    profile_steps: Annotated[
        int,
        Meta(
            title="Profiled steps",
            ge=1,
            le=1000,
            description="Steps that a profile covers.",
            extra_json_schema=extra(_SECTION, "steps", advanced=True),
        ),
    ] = 3
    nsys: Annotated[
        bool,
        Meta(
            title="Record with Nsight Systems",
            description="Starts the ranks under nsys profile, for the whole run; nsys must be on the PATH of every host.",
            extra_json_schema=extra(_SECTION, advanced=True),
        ),
    ] = False
