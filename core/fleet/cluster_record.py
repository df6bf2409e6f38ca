"""What a cluster last said of a run's job: ``cluster.json`` in the mirror, so that every reader here knows it too."""

from __future__ import annotations

from pathlib import Path

import msgspec

from core.contracts.states import RunState
from core.jobs.records import read_record, write_record

CLUSTER = "cluster.json"


class ClusterRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One answer of a cluster.

    Attributes:
        attempt: The run's attempt that it is about.
        job_id: The cluster's own id of the job.
        ts: Unix seconds, by our clock, at which the cluster last answered.
        is_reachable: It answered the last time it was asked.
        state: Of the job: queued, preparing, running or how it ended; None when the cluster does not know it.
        message: Why it waits or how it ended, as a sentence; may be empty.
        hint: The remedy; may be empty.
        is_over: The cluster will start nothing more of it.
    """

    attempt: int
    ts: float
    job_id: str = ""
    is_reachable: bool = True
    state: RunState | None = None
    message: str = ""
    hint: str = ""
    is_over: bool = False


def read_cluster_record(run_dir: Path) -> ClusterRecord | None:
    """Return the last answer; None before the first."""
    return read_record(run_dir / CLUSTER, ClusterRecord)


def write_cluster_record(run_dir: Path, record: ClusterRecord) -> None:
    """Keep an answer; OSError when it cannot be written."""
    write_record(run_dir / CLUSTER, record)
