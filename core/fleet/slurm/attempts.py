"""The files of a run directory between two attempts of a job: the head's node clears the way and writes the placement.

All nodes share the file system. What earlier attempts left is kept under names of its own. The others wait until the
placement of exactly their attempt is there, and so start after the way is clear.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from core.contracts.errors import EnvironmentProblem
from core.contracts.placement import NodePlacement, Placement
from core.contracts.specs import RunSpec
from core.fleet.slurm.allocation import Allocation, node_name, placement_of
from core.fleet.slurm.cluster import JOB_SCRIPT, ranks_of
from core.fleet.slurm.script import ENDED_REASON, WARNED_REASON
from core.jobs.records import ExitRecord, SupervisorRecord, read_record, requested_reason, write_record
from core.runlog.layout import RunLayout

_POLL_S = 0.1
PLACEMENT_LIMIT_S = 120.0


def begin(run_dir: Path, spec: RunSpec, allocation: Allocation, attempt: int) -> Placement:
    """Clear the way for an attempt and write its placement; on the head's node, before any supervisor starts.

    A run that was paused had more attempts than starts: the number is the given one or the next that is free.

    Raises:
        EnvironmentProblem: A node's address is not known, or no port is free.
        OSError: The run directory cannot be written.
    """
    layout = RunLayout(run_dir)
    layout.control.mkdir(exist_ok=True)
    _forget_stop(layout)
    attempt = max([attempt, *(number + 1 for number in _known_attempts(run_dir))])
    set_aside(run_dir, attempt - 1)
    for record in run_dir.glob("supervisor.*.json"):
        record.unlink(missing_ok=True)
    template = read_record(layout.placement, Placement)
    if template is not None and template.attempt < attempt:
        write_record(run_dir / f"placement.attempt{template.attempt}.json", template)
    placement = placement_of(allocation, template or _plain(run_dir, spec), attempt)
    write_record(layout.placement, placement)
    return placement


def _known_attempts(run_dir: Path) -> list[int]:
    exits = (read_record(path, ExitRecord) for path in run_dir.glob("exit.*.json"))
    supervisors = (read_record(path, SupervisorRecord) for path in run_dir.glob("supervisor.*.json"))
    return [record.attempt for record in (*exits, *supervisors) if record is not None]


def _forget_stop(layout: RunLayout) -> None:
    """Remove a stop request that was meant for an earlier attempt: Slurm's own, or one from before the job."""
    if requested_reason(layout.stop_request) in (WARNED_REASON, ENDED_REASON) or _is_older(
        layout.stop_request, layout.run_dir / JOB_SCRIPT
    ):
        layout.stop_request.unlink(missing_ok=True)


def _is_older(path: Path, other: Path) -> bool:
    try:
        return path.stat().st_mtime < other.stat().st_mtime
    except OSError:
        return False


def _plain(run_dir: Path, spec: RunSpec) -> Placement:
    """Return the template of a job that was submitted by hand."""
    node = NodePlacement(
        node=node_name(0),
        processes=ranks_of(spec),
        work_dir=str(run_dir.parent.parent),
        run_dir=str(run_dir),
        python=sys.executable,
    )
    return Placement(nodes=(node,), min_nodes=spec.launch.min_nodes or spec.launch.slurm.nodes)


def await_placement(run_dir: Path, allocation: Allocation, limit_s: float = PLACEMENT_LIMIT_S) -> Placement:
    """Wait for the head's placement of this start of the job; on every other node.

    Args:
        run_dir: The run directory.
        allocation: The start of the job: an earlier one of the same job left its own placement.
        limit_s: How long to wait.

    Raises:
        EnvironmentProblem: It does not come: the nodes share no file system, or the head's program failed.
    """
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        tuple(run_dir.glob("placement*.json"))  # a network file system then looks again
        placement = read_record(RunLayout(run_dir).placement, Placement)
        if placement is not None and (placement.job_id, placement.restarts) == (allocation.job_id, allocation.restarts):
            return placement
        time.sleep(_POLL_S)
    raise EnvironmentProblem(
        f"The job's first node did not begin within {limit_s:g} s.",
        f"See its log in {str(run_dir)!r}; the folder must be on a file system that all nodes share.",
    )


def set_aside(run_dir: Path, attempt: int) -> None:
    """Rename the exit records of an attempt that is to be followed by another one: the run has not ended."""
    for record in run_dir.glob("exit.*.json"):
        if len(words := record.name.split(".")) == 3:
            record.replace(run_dir / f"exit.{words[1]}.attempt{attempt}.json")
