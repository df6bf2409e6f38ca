"""The program of one node of a Slurm job: ``srun python -P -m core.cli.slurm_node RUN_DIR ATTEMPT``.

Finds out from Slurm which node it is; the first one writes the run's placement, the others wait for it; then each is the
supervisor of its node, in the foreground, until its part has ended. The first node's exit status tells the job's script
how the run ended: 0 succeeded, 75 stopped, 85 to be put back into the queue, else failed. Other nodes' is 0.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from core.cli.supervise import ThisMachine
from core.contracts.errors import PilothouseError
from core.contracts.placement import Placement
from core.contracts.specs import RunSpec
from core.contracts.states import RunState
from core.fleet.slurm.allocation import Allocation, own_allocation
from core.fleet.slurm.attempts import await_placement, begin, has_lost_node, set_aside
from core.fleet.slurm.script import ENDED_REASON, EXIT_REQUEUE, WARNED_REASON
from core.jobs.records import EXIT_STOPPED, Attempt, ExitRecord, requested_reason
from core.jobs.supervisor import AlreadySupervised, Supervisor
from core.plugins.decode import read_spec
from core.runlog.emit import EventWriter
from core.runlog.layout import SUPERVISOR_RANK, RunLayout


class _JobSupervisor(Supervisor):
    """A supervisor to which TERM means that Slurm ends its job."""

    def _on_term(self, *_: object) -> None:
        self._stop_reason = self._stop_reason or ENDED_REASON


def main(arguments: list[str]) -> int:
    """Supervise this node's part of one attempt; returns the exit status."""
    run_dir, attempt = Path(arguments[0]), int(arguments[1])
    try:
        spec = read_spec(RunLayout(run_dir).spec)
        allocation = own_allocation(os.environ)
        if allocation.index:
            placement = await_placement(run_dir, allocation.job_id, attempt)
        else:
            placement = begin(run_dir, spec, allocation, attempt)
        record = _supervise(run_dir, spec, placement, allocation.node)
    except PilothouseError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except AlreadySupervised:
        sys.stderr.write("Another supervisor holds this run; this one ended.\n")
        return 1
    return 0 if allocation.index else _status(run_dir, spec, placement, allocation, record)


def _supervise(run_dir: Path, spec: RunSpec, placement: Placement, node: str) -> ExitRecord:
    attempt = Attempt(run_dir=run_dir, number=placement.attempt, started=time.time(), node=node)
    return _JobSupervisor(attempt, spec, machine=ThisMachine(attempt, spec), placement=placement).run()


def _status(run_dir: Path, spec: RunSpec, placement: Placement, allocation: Allocation, record: ExitRecord) -> int:
    """Return the first node's exit status; a run that goes back into the queue is shown as queued."""
    if record.state is RunState.SUCCEEDED:
        return 0
    is_out_of_time = (
        record.state is RunState.STOPPED and requested_reason(RunLayout(run_dir).stop_request) == WARNED_REASON
    )
    is_cut_short = is_out_of_time or (record.state is RunState.FAILED and has_lost_node(run_dir, placement))
    if is_cut_short and allocation.restarts < spec.launch.slurm.requeues:
        set_aside(run_dir, placement.attempt)
        writer = EventWriter(RunLayout(run_dir).events(SUPERVISOR_RANK, allocation.node))
        message = f"{record.message} The job goes back into the queue of Slurm and then on from the last checkpoint."
        writer.write("state", state=RunState.QUEUED, message=message, hint="")
        writer.close()
        return EXIT_REQUEUE
    return EXIT_STOPPED if record.state is RunState.STOPPED else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
