"""The base of every spec: what a run is asked to do, complete and re-runnable.

A kind of run adds one ``RunSpec`` subclass with its own ``tag``; names, help, bounds and units of its fields stand in
``Annotated[..., Meta(title=, description=, ge=, le=, extra_json_schema=...)]`` and feed the form, the tooltips and the
command line's help alike. See ``core.plugins`` for how a kind registers itself.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Seed = Annotated[
    int, Meta(title="Seed", ge=0, le=2**32 - 1, description="Fixes data order, initial weights and augmentation.")
]


def unit(text: str) -> dict[str, object]:
    """Return the ``extra_json_schema`` that gives a field its unit, such as ``unit("s")``."""
    return {"unit": text}


class LaunchSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the worker processes of a run are started and ended on the host."""

    threads: Annotated[
        int,
        Meta(
            title="CPU threads",
            ge=0,
            le=1024,
            description="Threads per process (OMP_NUM_THREADS); 0 shares the cores out.",
        ),
    ] = 0
    stop_grace_s: Annotated[
        float,
        Meta(
            title="Stop grace",
            ge=0,
            le=3600,
            description="How long a stopped run may take to save a checkpoint before it is killed.",
            extra_json_schema=unit("s"),
        ),
    ] = 30.0
    env: Annotated[
        dict[str, str],
        Meta(title="Environment", description="Extra environment variables for the workers; never put secrets here."),
    ] = {}


class RunSpec(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", forbid_unknown_fields=True):
    """What every run is asked.

    Attributes:
        name: Shown in the history; the run's id is made from it.
        tags: Free labels.
        parent: Id of the run this one builds on (lineage); empty for none.
        launch: How its processes are started and ended.
    """

    name: Annotated[str, Meta(title="Name", max_length=200, description="Shown in the history.")] = ""
    tags: Annotated[tuple[str, ...], Meta(title="Tags", description="Free labels, to find the run again.")] = ()
    parent: Annotated[str, Meta(title="Built on run", description="Id of the run whose artifacts this one uses.")] = ""
    launch: LaunchSpec = LaunchSpec()


Device = Literal["auto", "cpu", "cuda", "mps", "xpu"]
