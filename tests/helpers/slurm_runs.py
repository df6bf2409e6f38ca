"""Runs as jobs of a private Slurm, for tests: submits them, and says what became of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from core.contracts.events import AnyEvent, MetricEvent, StateEvent
from core.contracts.hosts import HostRecord, RuntimeRecord
from core.contracts.specs import RunSpec
from core.contracts.states import RunState
from core.fleet.slurm import JobPhase, JobState, SlurmCluster
from core.jobs.processes import marked_processes
from core.jobs.records import ExitRecord, read_record, write_record
from core.plugins.decode import decode_spec, encode_spec
from core.runlog.layout import RunLayout
from core.runlog.tail import read_batch
from core.ssh.local import LocalLink
from tests.helpers.slurm_lab import SlurmLab
from tests.helpers.waiting import wait_for


class SlurmRuns:
    """A home on a file system that all nodes of a lab share, and the runs submitted from it."""

    def __init__(self, lab: SlurmLab, home: Path, python: str) -> None:
        self.lab = lab
        self.home = home
        record = HostRecord(name="local", runtime=RuntimeRecord(kind="interpreter", python=python))
        self.cluster = SlurmCluster(LocalLink("local"), record, str(home))

    def submit(self, run_id: str, **fields: object) -> str:
        """Make a run directory as the launcher does, submit the run and return its job's id."""
        spec = self.make(run_id, **fields)
        return self.cluster.submit(str(self.layout(run_id).run_dir), self.cluster.script(spec, run_id), spec)

    def make(self, run_id: str, **fields: object) -> RunSpec:
        """Make a run directory and return its spec."""
        spec = decode_spec({"kind": "test.toy", **fields})
        layout = self.layout(run_id)
        layout.control.mkdir(parents=True)
        layout.spec.write_text(encode_spec(spec), encoding="utf-8")
        write_record(layout.placement, self.cluster.placement(spec, run_id))
        return spec

    def layout(self, run_id: str) -> RunLayout:
        """Return the names in a run's directory."""
        return RunLayout(Path(self.cluster.run_dir(run_id)))

    def state(self, job_id: str) -> JobState:
        """Return where a job stands."""
        return self.cluster.state([job_id])[job_id]

    def ended(self, job_id: str, limit_s: float = 90.0) -> JobState:
        """Wait until a job has ended for good."""
        return self._until(job_id, lambda state: state.phase is JobPhase.ENDED, "end", limit_s)

    def waiting(self, job_id: str, limit_s: float = 90.0) -> JobState:
        """Wait until a job waits (again)."""
        return self._until(job_id, lambda state: state.phase is JobPhase.PENDING, "wait", limit_s)

    def _until(self, job_id: str, holds: Callable[[JobState], bool], what: str, limit_s: float) -> JobState:
        return wait_for(
            lambda: state if holds(state := self.state(job_id)) else None, f"job {job_id} to {what}", limit_s
        )

    def exit_record(self, run_id: str, node: str = "node0", attempt: int = 0) -> ExitRecord | None:
        """Return how a run ended on a node: now, or in an earlier attempt."""
        layout = self.layout(run_id)
        path = layout.run_dir / f"exit.{node}.attempt{attempt}.json" if attempt else layout.exit_record(node)
        return read_record(path, ExitRecord)

    def verdict(self, run_id: str) -> ExitRecord:
        """Return how a run ended."""
        record = self.exit_record(run_id)
        assert record is not None, self.told(run_id)
        return record

    def events(self, run_id: str) -> list[AnyEvent]:
        """Return all events of a run, in the order of their time."""
        batch = read_batch(self.layout(run_id).run_dir, {}, 64 << 20)
        return sorted((event for file in batch.files for event in file.events), key=lambda event: event.ts)

    def states(self, run_id: str) -> list[RunState]:
        """Return the states that a run went through."""
        return [event.state for event in self.events(run_id) if isinstance(event, StateEvent)]

    def head_events(self, run_id: str) -> list[AnyEvent]:
        """Return what the head's worker wrote."""
        batch = read_batch(self.layout(run_id).run_dir, {}, 64 << 20)
        return [event for file in batch.files if file.name == "events.node0.worker.jsonl" for event in file.events]

    def steps(self, run_id: str) -> dict[int, float]:
        """Return the toy's value by step, as the head's worker saw it."""
        events = self.head_events(run_id)
        return {e.step: float(e.values["toy/value"]) for e in events if isinstance(e, MetricEvent)}

    def at_step(self, run_id: str, step: int) -> None:
        """Wait until a run has come to a step."""
        wait_for(lambda: step in self.steps(run_id), f"step {step}: {self.told(run_id)}")

    def told(self, run_id: str) -> str:
        """Return what a run's job printed: why a test fails."""
        return "\n".join(path.read_text(errors="replace") for path in self.layout(run_id).run_dir.glob("slurm-*.out"))

    def left(self, run_id: str) -> set[int]:
        """Return the live processes of a run on the lab's nodes."""
        return marked_processes(run_id) & set().union(*(self.lab.processes(node) for node in self.lab.nodes))
