"""What is known of a job and of a cluster, as records; see ``core.fleet.slurm.cluster`` for how it is asked."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from core.contracts.states import RunState


class JobPhase(StrEnum):
    """Where a job stands. ``unknown``: no command of Slurm's knows it (any more)."""

    PENDING = "pending"
    RUNNING = "running"
    ENDED = "ended"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """A job as it stands.

    Attributes:
        job_id: As given by ``submit``; a task of an array is ``<id>_<number>``.
        slurm_state: Slurm's own word, such as ``PENDING`` or ``NODE_FAIL``; empty when unknown.
        run_state: The state of a run that has said nothing itself: queued, preparing, running, or how the job ended;
            None when unknown.
        message: Why it waits or how it ended, as a sentence; may be empty.
        hint: What to do about it; may be empty.
        reason: Slurm's own reason; may be empty.
        nodes: Slurm's list of nodes, such as ``n[1-2]``; empty before it has any.
        code: Exit status of its script, once it ended.
        signal: Signal that ended its script, if one did.
        restarts: How often it was put back into the queue.
        source: Which command told: ``squeue``, ``scontrol``, ``sacct``, ``sacct -c``; empty when none did.
    """

    job_id: str
    phase: JobPhase
    slurm_state: str = ""
    run_state: RunState | None = None
    message: str = ""
    hint: str = ""
    reason: str = ""
    nodes: str = ""
    code: int | None = None
    signal: int | None = None
    restarts: int = 0
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmPartition:
    """A queue of the cluster.

    Attributes:
        is_up: It takes jobs.
        time_limit: Longest job, as Slurm writes it (``1-00:00:00``, ``infinite``).
        nodes: How many nodes it has; ``idle`` of them are free, ``usable`` are not down.
        cpus_per_node: Processors of a node; the fewest where they differ, as for memory.
        gres: Generic resources of its nodes, such as ``gpu:a100:4``.
        features: What a constraint may name.
    """

    name: str
    is_default: bool
    is_up: bool
    time_limit: str
    nodes: int
    idle: int
    usable: int
    cpus_per_node: int
    memory_bytes: int
    gres: tuple[str, ...] = ()
    features: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmInfo:
    """What a cluster offers.

    Attributes:
        version: Such as ``22.05.8``.
        accounts: Accounts of the user; empty where the cluster keeps none.
        qos: Qualities of service of the user, likewise.
        has_accounting: ``sacct`` remembers ended jobs.
    """

    version: str
    partitions: tuple[SlurmPartition, ...]
    accounts: tuple[str, ...] = ()
    qos: tuple[str, ...] = ()
    has_accounting: bool = False
