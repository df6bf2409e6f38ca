"""Runs as jobs of Slurm: the run directory on the login host's shared file system, the job by ``core.fleet.slurm``.

The job itself writes where its nodes are; until it runs, and where it says nothing, Slurm is asked (``slurm_watch``).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from core.contracts.errors import EnvironmentProblem, InvalidSpec, PilothouseError, UserError
from core.contracts.hosts import HostRecord, Progress, Watcher
from core.contracts.ids import RunId, new_run_id
from core.contracts.placement import Placement
from core.contracts.specs import RunSpec
from core.contracts.states import RunState
from core.fleet.agent_host import AgentHost
from core.fleet.cluster_record import ClusterRecord, read_cluster_record, write_cluster_record
from core.fleet.copying import RECEIVER_MODULE, Copy, Sender, copies_of
from core.fleet.pool import HostPool
from core.fleet.run_folder import RunFolder, from_snapshot
from core.fleet.slurm import JobPhase, SlurmCluster, cluster_of, slurm_problems
from core.fleet.worker_command import command_of
from core.jobs.records import write_record
from core.plugins.decode import read_spec
from core.plugins.registry import registry
from core.settings.home import Home


class SlurmRuns:
    """Submits and acts on jobs. Thread-safe; blocks."""

    def __init__(self, home: Home, pool: HostPool) -> None:
        self._home = home
        self._pool = pool

    def _checked(self, spec: RunSpec) -> tuple[HostRecord, SlurmCluster]:
        """Return the cluster of a spec; raises for what cannot be asked of it."""
        problems = slurm_problems(spec.launch.slurm)
        if problems:
            raise InvalidSpec(problems)
        kind = registry().get(str(spec.__struct_config__.tag))
        if spec.launch.slurm.nodes > 1 and not kind.spans_nodes:
            raise UserError(f"{kind.title} runs on one node, not on {spec.launch.slurm.nodes}.", "Ask for one node.")
        record = self._pool.record(spec.launch.slurm.cluster)
        return record, cluster_of(self._pool, record)

    def preview(self, spec: RunSpec) -> str:
        """Return the ``sbatch`` script that a launch would submit."""
        _, cluster = self._checked(spec)
        return cluster.script(spec, "RUN")

    def launch(self, spec: RunSpec, watcher: Watcher) -> RunId:
        """Submit a run.

        Raises:
            InvalidSpec: What Slurm, or the kind on the login host, has against it.
            UserError: Slurm refuses it.
            EnvironmentProblem: The login host does not answer, or has no Slurm that does.
            Cancelled: The user cancelled; nothing was submitted.
        """
        watcher.report(Progress(stage=f"Connecting to {spec.launch.slurm.cluster}"))
        record, cluster = self._checked(spec)
        run_id = new_run_id(spec.name)
        cluster.script(spec, run_id)  # what cannot be submitted is found before anything is made
        copies = copies_of(self._home, spec, run_id, watcher.is_cancelled)
        placement = msgspec.structs.replace(
            cluster.placement(spec, run_id), copies=tuple(copy.record for copy in copies)
        )
        folder = RunFolder(self._home, run_id)
        code = next((copy for copy in copies if not copy.is_shared), None)
        folder.make(spec, placement, code)
        agent = None
        try:
            agent = AgentHost(self._pool, record)
            agent.prepare(run_id, spec, placement)
            kept = [from_snapshot(copy, folder.path) if copy is code else copy for copy in copies]
            self._send(agent, folder, kept, watcher)
            problems = agent.check_spec(run_id, placement.head.node)
            if problems:
                raise InvalidSpec(problems)
            watcher.report(Progress(stage="Submitting"))
            self._submit(cluster, folder, spec, placement.attempt)
        except (PilothouseError, OSError):
            if agent is not None and not _is_here(folder, placement):
                agent.remove(run_id)
            folder.remove()
            raise
        return run_id

    def _send(self, agent: AgentHost, folder: RunFolder, copies: Sequence[Copy], watcher: Watcher) -> None:
        placement = folder.placement()
        wanted = [copy for copy in copies if copy.is_shared or not _is_here(folder, placement)]
        if not wanted:
            return
        sender = Sender(agent.link, command_of(agent.record.runtime, RECEIVER_MODULE, [agent.work_dir]))
        try:
            sender.send(wanted, watcher)
        finally:
            sender.close()

    def _submit(self, cluster: SlurmCluster, folder: RunFolder, spec: RunSpec, attempt: int) -> None:
        """Submit the job and note its number beside the mirror.

        Not in a placement that the job's nodes read: they take one with their job's number for that of its head.
        """
        script = cluster.script(spec, folder.run_id, attempt=attempt)
        job_id = cluster.submit(cluster.run_dir(folder.run_id), script, spec)
        placement = folder.placement()
        if not _is_here(folder, placement):
            write_record(folder.layout.placement, msgspec.structs.replace(placement, job_id=job_id))
        record = ClusterRecord(attempt=attempt, ts=time.time(), job_id=job_id, state=RunState.QUEUED)
        write_cluster_record(folder.path, record)

    def resume(self, run_id: str, hosts: tuple[str, ...] | None, watcher: Watcher) -> int:
        """Submit a further attempt of an ended run; the cluster chooses its nodes."""
        if hosts is not None:
            raise UserError("A job of Slurm runs where the cluster puts it.", "Resume it without naming hosts.")
        folder = RunFolder(self._home, run_id)
        before = folder.placement()
        spec = read_spec(folder.layout.spec)
        record, cluster = self._checked(spec)
        agent = AgentHost(self._pool, record)
        attempt = folder.last_attempt() + 1
        placement = msgspec.structs.replace(cluster.placement(spec, run_id, attempt=attempt), copies=before.copies)
        watcher.report(Progress(stage="Submitting"))
        folder.begin_attempt(placement)
        try:
            agent.prepare(run_id, spec, placement)
            self._submit(cluster, folder, spec, attempt)
        except PilothouseError:
            folder.take_back_attempt(before)
            raise
        return attempt

    # -- acts on a job that is there ---------------------------------------------------------------------------------

    def _job(self, folder: RunFolder) -> tuple[AgentHost, SlurmCluster, str, JobPhase]:
        placement = folder.placement()
        record = self._pool.record(placement.head.host or "local")
        cluster = cluster_of(self._pool, record)
        told = read_cluster_record(folder.path)
        job_id = told.job_id if told is not None else placement.job_id
        state = cluster.state([job_id])[job_id]
        return AgentHost(self._pool, record), cluster, job_id, state.phase

    def stop(self, folder: RunFolder) -> None:
        """Take a waiting job out of the queue, or ask a running one to save and end."""
        agent, cluster, job_id, phase = self._job(folder)
        if phase is JobPhase.PENDING:
            cluster.cancel(job_id)
        else:
            agent.stop(folder.run_id)

    def pause(self, folder: RunFolder) -> None:
        """Hold a waiting job, or ask a running one to pause; it keeps its nodes."""
        agent, cluster, job_id, phase = self._job(folder)
        if phase is JobPhase.PENDING:
            cluster.hold(job_id)
        else:
            agent.pause(folder.run_id)

    def proceed(self, folder: RunFolder) -> None:
        """Undo ``pause``."""
        agent, cluster, job_id, phase = self._job(folder)
        if phase is JobPhase.PENDING:
            cluster.release(job_id)
        else:
            agent.proceed(folder.run_id)

    def profile(self, folder: RunFolder, steps: int, ranks: tuple[int, ...]) -> None:
        """Ask the head's ranks for a profile; the request is in the folder that all nodes of the cluster share."""
        AgentHost(self._pool, self._pool.record(folder.placement().head.host or "local")).profile(
            folder.run_id, steps, ranks
        )

    def end_leftovers(self, folder: RunFolder) -> dict[str, tuple[int, ...]]:
        """Cancel a job that is still there: Slurm ends its processes."""
        _, cluster, job_id, phase = self._job(folder)
        if phase in (JobPhase.PENDING, JobPhase.RUNNING):
            cluster.cancel(job_id)
        return {}

    def remove(self, folder: RunFolder) -> tuple[str, ...]:
        """Cancel the job if it is there, and remove the run directory on the cluster."""
        placement = folder.placement()
        if _is_here(folder, placement):
            return ()
        try:
            self.end_leftovers(folder)
            AgentHost(self._pool, self._pool.record(placement.head.host)).remove(folder.run_id)
        except (EnvironmentProblem, UserError) as error:
            return (f"{placement.head.host} still has the run's folder: {error.message}",)
        return ()


def _is_here(folder: RunFolder, placement: Placement) -> bool:
    """Tell whether the cluster's run directory is this one: the cluster is this machine's."""
    return Path(placement.head.run_dir) == folder.path
