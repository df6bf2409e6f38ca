"""Asks Slurm how the jobs of followed runs stand, and notes it beside their mirrors: one thread, one question a cluster.

It also brings the placement that a job writes when it starts. A cluster that does not answer ends nothing: it is asked
again, and since when it is silent is noted. That a job has ended is noted only once all it wrote is here.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from core.contracts.errors import EnvironmentProblem, PilothouseError
from core.contracts.ids import RunId
from core.contracts.placement import Placement
from core.contracts.states import RunState
from core.fleet.cluster_record import ClusterRecord, read_cluster_record, write_cluster_record
from core.fleet.mirror import Mirror
from core.fleet.pool import HostPool
from core.fleet.slurm import JobPhase, JobState, SlurmCluster, cluster_of
from core.jobs.records import write_record
from core.runlog.layout import PLACEMENT, RunLayout
from core.runlog.placements import read_placement

PERIOD_S = 4.0
_LONGEST_PERIOD_S = 60.0
_SETTLE_S = 20.0
_log = logging.getLogger("pilothouse.slurm")
_decode = msgspec.json.Decoder(Placement).decode

OnChange = Callable[[RunId], None]


@dataclass(frozen=True, slots=True)
class _Job:
    """A run and its job."""

    run_dir: Path
    placement: Placement
    job_id: str


class SlurmWatch:
    """Watches jobs until closed. Thread-safe."""

    def __init__(self, pool: HostPool, mirror: Mirror, tell: OnChange) -> None:
        self._pool = pool
        self._mirror = mirror
        self._tell = tell
        self._lock = threading.Lock()
        self._runs: dict[RunId, Path] = {}
        self._wake = threading.Event()
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def add(self, run_dir: Path) -> None:
        """Watch the job of a run from now on, until it has ended; returns at once."""
        with self._lock:
            if self._is_closed or RunId(run_dir.name) in self._runs:
                return
            self._runs[RunId(run_dir.name)] = run_dir
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="slurm watch", daemon=True)
                self._thread.start()
        self._wake.set()

    def drop(self, run_id: RunId) -> None:
        """Watch a run's job no more."""
        with self._lock:
            self._runs.pop(run_id, None)

    def close(self) -> None:
        """Watch nothing any more; returns when the thread has ended."""
        with self._lock:
            self._is_closed = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def _loop(self) -> None:
        period_s = PERIOD_S
        while not self._is_closed:
            self._wake.clear()
            with self._lock:
                runs = dict(self._runs)
            is_well = True
            for host, of_host in _by_host(runs).items():
                is_well = self._look(host, of_host) and is_well
            period_s = PERIOD_S if is_well else min(period_s * 2, _LONGEST_PERIOD_S)
            self._wake.wait(period_s if runs else None)

    def _look(self, host: str, runs: Mapping[RunId, _Job]) -> bool:
        """Ask one cluster about all its jobs; return whether it answered."""
        try:
            cluster = cluster_of(self._pool, self._pool.record(host))
            states = cluster.state([job.job_id for job in runs.values()])
        except PilothouseError:
            for run_id, job in runs.items():
                before = read_cluster_record(job.run_dir) or ClusterRecord(
                    attempt=job.placement.attempt, ts=time.time(), job_id=job.job_id
                )
                self._note(run_id, job.run_dir, msgspec.structs.replace(before, is_reachable=False))
            return False
        except Exception as error:  # noqa: BLE001 - the top frame of this thread: one cluster must not end all watching
            _log.warning("Slurm on %s could not be asked: %s", host, error, exc_info=error)
            return False
        for run_id, job in runs.items():
            self._take(cluster, run_id, job, states[job.job_id])
        return True

    def _take(self, cluster: SlurmCluster, run_id: RunId, job: _Job, state: JobState) -> None:
        run_dir, placement = job.run_dir, job.placement
        is_over = state.phase in (JobPhase.ENDED, JobPhase.UNKNOWN)
        if state.phase is JobPhase.RUNNING or is_over:
            placement = self._bring_placement(cluster, run_id, run_dir, placement)
        if is_over:
            self._mirror.catch_up(run_id, _SETTLE_S)
            self.drop(run_id)
        message = state.message
        if state.phase is JobPhase.UNKNOWN:
            message = f"Slurm does not know the job {job.job_id} any more, and it left no word of its end."
        record = ClusterRecord(
            attempt=placement.attempt,
            ts=time.time(),
            job_id=job.job_id,
            state=state.run_state or (RunState.LOST if is_over else None),
            message=message,
            hint=state.hint or ("Resume it to go on from its last checkpoint." if is_over else ""),
            is_over=is_over,
        )
        self._note(run_id, run_dir, record)

    def _bring_placement(self, cluster: SlurmCluster, run_id: RunId, run_dir: Path, placement: Placement) -> Placement:
        """Return where the job says it is; its record is kept here, and that of an earlier attempt beside it."""
        there = cluster.run_dir(run_id)
        if Path(there) == run_dir:
            return read_placement(run_dir) or placement
        try:
            found = _decode(self._pool.link(placement.head.host).read(f"{there}/{PLACEMENT}"))
        except (EnvironmentProblem, FileNotFoundError, msgspec.MsgspecError):
            return placement
        found = msgspec.structs.replace(found, job_id=placement.job_id)
        if found == placement or found.attempt < placement.attempt:
            return placement
        if found.attempt > placement.attempt:
            write_record(run_dir / f"placement.attempt{placement.attempt}.json", placement)
        write_record(RunLayout(run_dir).placement, found)
        self._mirror.follow(run_dir)
        return found

    def _note(self, run_id: RunId, run_dir: Path, record: ClusterRecord) -> None:
        before = read_cluster_record(run_dir)
        try:
            write_cluster_record(run_dir, record)
        except OSError as error:
            _log.warning("What Slurm says of %s cannot be kept: %s", run_id, error.strerror or error)
            return
        if before is None or msgspec.structs.replace(before, ts=record.ts) != record:
            self._tell(run_id)


def _by_host(runs: Mapping[RunId, Path]) -> dict[str, dict[RunId, _Job]]:
    found: dict[str, dict[RunId, _Job]] = {}
    for run_id, run_dir in runs.items():
        placement, told = read_placement(run_dir), read_cluster_record(run_dir)
        if placement is None:
            continue
        job_id = told.job_id if told is not None and told.job_id else placement.job_id
        if job_id:
            found.setdefault(placement.head.host or "local", {})[run_id] = _Job(run_dir, placement, job_id)
    return found
