"""When checkpoints are written, how many stay, and where a run begins."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from core.train.fields import extra

_CHECKPOINTS = "Checkpoints"


class CheckpointSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When checkpoints are written and how many are kept."""

    every_steps: Annotated[
        int,
        Meta(
            title="Checkpoint every",
            ge=0,
            le=10**9,
            description="Optimizer steps between two checkpoints; 0 writes one at each validation.",
            extra_json_schema=extra(_CHECKPOINTS, "steps", advanced=True),
        ),
    ] = 0
    keep_last: Annotated[
        int,
        Meta(
            title="Checkpoints kept",
            ge=1,
            le=1000,
            description="Older checkpoints are removed once a newer one is verified.",
            extra_json_schema=extra(_CHECKPOINTS, advanced=True),
        ),
    ] = 2
    keep_best: Annotated[
        bool,
        Meta(
            title="Keep the best",
            description="The checkpoint that validated best is kept besides, and the model is made from it.",
            extra_json_schema=extra(_CHECKPOINTS, advanced=True),
        ),
    ] = True
    asynchronous: Annotated[
        bool,
        Meta(
            title="Write beside the training",
            description="Training goes on while a checkpoint is written; off waits for it.",
            extra_json_schema=extra(_CHECKPOINTS, advanced=True),
        ),
    ] = True
    start_from: Annotated[
        str,
        Meta(
            title="Start from",
            description=(
                "Folder of a checkpoint to go on from, possibly of another parallel layout, or the id of a run, whose "
                "newest one is taken; empty: from nothing."
            ),
            extra_json_schema={**extra(_CHECKPOINTS, advanced=True), "path": "folder", "or_name": True},
        ),
    ] = ""
