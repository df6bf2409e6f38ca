"""How batches are loaded beside the training."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from core.train.fields import extra

_SECTION = "Loading"


class LoadingSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Loading processes and their lead."""

    loading_processes: Annotated[
        int,
        Meta(
            title="Loading processes",
            ge=0,
            le=64,
            description="Processes per rank that prepare batches beside the training; 0 prepares them in it.",
            extra_json_schema=extra(_SECTION, advanced=True),
        ),
    ] = 0
    prefetch_batches: Annotated[
        int,
        Meta(
            title="Batches ahead",
            ge=1,
            le=256,
            description="Batches that each loading process keeps ready.",
            extra_json_schema=extra(
                _SECTION, advanced=True, shown_if={"field": "loading.loading_processes", "above": 0}
            ),
        ),
    ] = 2
    stream: Annotated[
        bool,
        Meta(
            title="Stream",
            description="Reads shards as they are needed instead of indexing all data first; the order is shuffled in a buffer.",
            extra_json_schema=extra(_SECTION, advanced=True),
        ),
    ] = False
    shuffle_buffer: Annotated[
        int,
        Meta(
            title="Shuffle buffer",
            ge=1,
            le=10**7,
            description="Samples that a stream is shuffled within.",
            extra_json_schema=extra(
                _SECTION, "samples", advanced=True, shown_if={"field": "loading.stream", "in": [True]}
            ),
        ),
    ] = 10_000
