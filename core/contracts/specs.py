"""The base of every spec: what a run is asked to do, complete and re-runnable.

A kind of run adds one ``RunSpec`` subclass with its own ``tag``; names, help, bounds and units of its fields stand in
``Annotated[..., Meta(title=, description=, ge=, le=, extra_json_schema=...)]`` and feed the form, the tooltips and the
command line's help alike. See ``core.plugins`` for how a kind registers itself.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from core.contracts.clusters import KubernetesSpec, SlurmSpec

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
    hosts: Annotated[
        tuple[str, ...],
        Meta(title="Hosts", description="Names of the hosts to run on, the head first; none: this machine."),
    ] = ()
    devices: Annotated[
        str,
        Meta(
            title="Devices",
            description="GPUs to use: auto (as many as processes), cpu, indices such as 0,1, or per host: a=0,1 b=2.",
        ),
    ] = "auto"
    queue: Annotated[
        bool,
        Meta(
            title="Wait for free devices",
            description="The run waits on its host until its devices are free (a host without GPUs counts as one device).",
        ),
    ] = False
    copy_code: Annotated[
        Literal["copy", "shared"],
        Meta(
            title="Code", description="copy: the code's folder is copied as it is now; shared: hosts see the same path."
        ),
    ] = "copy"
    copy_data: Annotated[
        tuple[str, ...],
        Meta(
            title="Copied data",
            description="Files and folders of this machine to copy to the hosts; kept there by content.",
        ),
    ] = ()
    exclude: Annotated[
        tuple[str, ...],
        Meta(title="Not copied", description="Patterns of names that are not copied, such as *.ckpt or .git."),
    ] = (".git", "__pycache__", ".venv", "node_modules", ".mypy_cache", ".ruff_cache", "wandb", "*.pyc")
    min_nodes: Annotated[
        int,
        Meta(title="Fewest hosts", ge=0, le=10_000, description="Goes on with this many when others are lost; 0: all."),
    ] = 0
    max_restarts: Annotated[
        int, Meta(title="Restarts", ge=0, le=1000, description="How often torchrun restarts all ranks when one failed.")
    ] = 0
    retries: Annotated[
        int,
        Meta(
            title="Retries",
            ge=0,
            le=100,
            description="How often a run that failed or lost a host is resumed by itself from its last checkpoint.",
        ),
    ] = 0
    peer_limit_s: Annotated[
        float,
        Meta(
            title="Lost after",
            ge=5,
            le=3600,
            description="A host of the run that the head has not heard from for this long counts as lost.",
            extra_json_schema=unit("s"),
        ),
    ] = 25.0
    slurm: SlurmSpec = SlurmSpec()
    kubernetes: KubernetesSpec = KubernetesSpec()


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
