"""A Slurm cluster behind any link: writes scripts, submits, asks, cancels. Drives sbatch, squeue, scontrol and sacct.

Everything blocks and is thread-safe as the link is. It follows nothing by itself and keeps no state: the run directory
on the cluster's shared file system is the truth about a run, Slurm about its job.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

import msgspec

from core.contracts.errors import EnvironmentProblem, UserError
from core.contracts.hosts import HostRecord
from core.contracts.links import Link
from core.contracts.placement import NodePlacement, Placement
from core.contracts.specs import RunSpec
from core.fleet.slurm.commands import SlurmCommands
from core.fleet.slurm.offers import info_of
from core.fleet.slurm.records import JobState, SlurmInfo
from core.fleet.slurm.script import JobPart, array_script, job_script, overriding_variables
from core.fleet.slurm.states import states_of
from core.plugins.registry import registry

JOB_SCRIPT = "job.sh"
_SUBMITTED = re.compile(r"^(\d+)(;\S+)?$", re.MULTILINE)


class SlurmCluster:
    """The Slurm that a login host's commands reach."""

    def __init__(self, link: Link, record: HostRecord, work_dir: str) -> None:
        """Keep what is needed; asks nothing.

        Args:
            link: The login host, or this machine.
            record: That host: its Python environment is the one of the compute nodes too.
            work_dir: The host's Pilothouse home, absolute, on a file system that the compute nodes share.
        """
        self._link = link
        self._record = record
        self._work_dir = work_dir
        self._commands = SlurmCommands(link)

    def run_dir(self, run_id: str) -> str:
        """Return a run's directory on the cluster, absolute."""
        return f"{self._work_dir.rstrip('/')}/runs/{run_id}"

    def placement(self, spec: RunSpec, run_id: str, job_id: str = "", attempt: int = 1) -> Placement:
        """Return where a run will be, as far as that is known before its job starts.

        The nodes are ``node0`` to ``nodeN-1``; the job fills in addresses, devices and ports when it starts.
        """
        node = NodePlacement(
            node="",
            host=self._record.name,
            address="",
            processes=ranks_of(spec),
            work_dir=self._work_dir,
            run_dir=self.run_dir(run_id),
            python=self._record.runtime.python,
        )
        count = spec.launch.slurm.nodes
        return Placement(
            nodes=tuple(_named(node, number) for number in range(count)),
            engine="slurm",
            attempt=attempt,
            min_nodes=spec.launch.min_nodes or count,
            max_restarts=spec.launch.max_restarts,
            job_id=job_id,
        )

    def script(self, spec: RunSpec, run_id: str, run_dir: str = "", attempt: int = 1) -> str:
        """Return the ``sbatch`` script of a run.

        Raises:
            UserError: Something in the spec cannot be given to Slurm, or the host has no Python environment yet.
        """
        part = JobPart(run_id=run_id, run_dir=run_dir or self.run_dir(run_id), attempt=attempt)
        return job_script(spec, part, self._record.runtime)

    def submit(self, run_dir: str, script: str, spec: RunSpec | None = None) -> str:
        """Put a script into the queue and return the job's id. The script is kept in the run directory.

        Args:
            run_dir: The run's directory on the cluster; it must be there.
            script: From ``script``.
            spec: The spec, so that a login's own defaults (``SBATCH_ACCOUNT``, ...) do not override what it says.

        Raises:
            UserError: Slurm refused it; the sentence says why.
            EnvironmentProblem: The link is lost, or there is no Slurm that answers.
        """
        place = f"{run_dir}/{JOB_SCRIPT}"
        self._link.write(place, script.encode(), mode=0o755)
        unset = overriding_variables(spec.launch.slurm) if spec is not None else ()
        said = self._commands.text(["sbatch", "--parsable", place], unset=unset, cwd=run_dir)
        match = _SUBMITTED.search(said)
        if match is None:
            raise EnvironmentProblem(
                f"sbatch took the job but gave no id: {said.strip()[:200]!r}.", "Look with squeue whether it is there."
            )
        return match[1]

    def submit_array(self, spec: RunSpec, run_ids: Sequence[str], at_once: int = 0) -> dict[str, str]:
        """Put several runs into the queue as one array; return each run's job id (``<id>_<number>``).

        Args:
            spec: The spec of one of them: all ask the same of Slurm.
            run_ids: The runs, whose directories are on the cluster.
            at_once: How many may run at a time; 0 leaves it to Slurm.

        Raises:
            UserError: Slurm refused it, or there are too many runs for one array.
            EnvironmentProblem: The link is lost, or there is no Slurm that answers.
        """
        parts = [JobPart(run_id=run_id, run_dir=self.run_dir(run_id)) for run_id in run_ids]
        script = array_script(spec, parts, self._record.runtime, at_once)
        job_id = self.submit(parts[0].run_dir, script, spec)
        return {run_id: f"{job_id}_{number}" for number, run_id in enumerate(run_ids)}

    def state(self, job_ids: Sequence[str]) -> dict[str, JobState]:
        """Return where each of the jobs stands; one that nothing knows of any more is ``unknown``.

        Raises:
            EnvironmentProblem: The link is lost, or the controller does not answer: then nothing is known.
        """
        return states_of(self._commands, job_ids) if job_ids else {}

    def cancel(self, job_id: str) -> None:
        """End a job: what waits leaves the queue, what runs is given TERM, then KILL. One that ended is no error.

        Raises:
            UserError: Slurm refused.
            EnvironmentProblem: The link is lost, or there is no Slurm that answers.
        """
        done = self._commands.ask(["scancel", job_id])
        if done.code != 0 and b"Invalid job id" not in done.stderr:
            self._commands.text(["scancel", job_id])

    def requeue(self, job_id: str) -> None:
        """Put a job back into the queue; it goes on from the run's last checkpoint. Raises as ``cancel``."""
        self._commands.text(["scontrol", "requeue", job_id])

    def hold(self, job_id: str) -> None:
        """Keep a waiting job from being started. Raises as ``cancel``."""
        self._commands.text(["scontrol", "hold", job_id])

    def release(self, job_id: str) -> None:
        """Let a held job be started again. Raises as ``cancel``."""
        self._commands.text(["scontrol", "release", job_id])

    def info(self) -> SlurmInfo:
        """Return what the cluster offers: partitions with their limits, accounts, generic resources.

        Raises:
            EnvironmentProblem: The link is lost, or there is no Slurm that answers.
            UserError: Slurm refused to tell.
        """
        return info_of(self._commands)


def _named(node: NodePlacement, number: int) -> NodePlacement:
    return msgspec.structs.replace(node, node=f"node{number}")


def ranks_of(spec: RunSpec) -> int:
    """Return how many ranks a spec starts on each node."""
    return registry().get(str(spec.__struct_config__.tag)).ranks(spec)


class Links(Protocol):
    """Where links come from: ``core.fleet.pool``."""

    def link(self, name: str) -> Link:
        """Return an open link to a host; connects when needed."""
        ...


def cluster_of(links: Links, record: HostRecord) -> SlurmCluster:
    """Return the cluster that a host's commands reach; a work folder below ``~`` is made absolute by asking the host.

    Raises:
        UserError: The record's work folder is neither absolute nor below ``~``.
        EnvironmentProblem: The host cannot be reached.
    """
    link = links.link(record.name)
    work_dir = record.work_dir
    if work_dir == "~" or work_dir.startswith("~/"):
        work_dir = link.home().rstrip("/") + work_dir[1:]
    if not work_dir.startswith("/"):
        raise UserError(f"The work folder {work_dir!r} is not absolute.", "Write it from / or from ~/ on.")
    return SlurmCluster(link, record, work_dir)
