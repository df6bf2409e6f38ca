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
from core.contracts.states import RESUMABLE_STATES, RunState
from core.fleet.slurm.allocation import own_allocation, with_host_names
from core.fleet.slurm.attempts import await_placement, begin, set_aside
from core.fleet.slurm.script import ENDED_REASON, EXIT_REQUEUE, WARNED_REASON
from core.jobs.records import EXIT_STOPPED, Attempt, ExitRecord, requested_reason
from core.jobs.supervisor import AlreadySupervised, Supervisor
from core.plugins.decode import read_spec
from core.runlog.emit import EventWriter
from core.runlog.layout import SUPERVISOR_RANK, RunLayout

_STATUS = {RunState.SUCCEEDED: 0, RunState.STOPPED: EXIT_STOPPED}


class _JobSupervisor(Supervisor):
    """A supervisor to which TERM means that Slurm ends its job."""

    def _on_term(self, *_: object) -> None:
        self._stop_reason = self._stop_reason or ENDED_REASON

    @property
    def has_lost_node(self) -> bool:
        """A node of the job did not answer any more; known to the head, once it has ended."""
        return any(part.state is RunState.LOST for part in self._peers.parts)


def main(arguments: list[str]) -> int:
    """Supervise this node's part of one attempt; returns the exit status."""
    run_dir, attempt = Path(arguments[0]), int(arguments[1])
    try:
        spec = read_spec(RunLayout(run_dir).spec)
        allocation = own_allocation(os.environ)
        if allocation.index:
            placement = await_placement(run_dir, allocation)
        else:
            placement = begin(run_dir, spec, allocation, attempt)
        named = with_host_names(placement, allocation.hosts)
        supervisor = _supervisor(run_dir, spec, named, allocation.node)
        record = supervisor.run()
    except PilothouseError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except AlreadySupervised:
        sys.stderr.write("Another supervisor holds this run; this one ended.\n")
        return 1
    if allocation.index:
        return 0
    is_out_of_time = requested_reason(RunLayout(run_dir).stop_request) == WARNED_REASON
    is_cut_short = is_out_of_time if record.state is RunState.STOPPED else supervisor.has_lost_node
    if is_cut_short and record.state in RESUMABLE_STATES and allocation.restarts < spec.launch.slurm.requeues:
        _show_queued(run_dir, record, allocation.node)
        return EXIT_REQUEUE
    return _STATUS.get(record.state, 1)


def _supervisor(run_dir: Path, spec: RunSpec, placement: Placement, node: str) -> _JobSupervisor:
    attempt = Attempt(run_dir=run_dir, number=placement.attempt, started=time.time(), node=node)
    return _JobSupervisor(attempt, spec, machine=ThisMachine(attempt, spec), placement=placement)


def _show_queued(run_dir: Path, record: ExitRecord, node: str) -> None:
    """Take the end back: the run is shown as queued."""
    set_aside(run_dir, record.attempt)
    writer = EventWriter(RunLayout(run_dir).events(SUPERVISOR_RANK, node))
    message = f"{record.message} The job goes back into the queue of Slurm, then on from the last checkpoint."
    writer.write("state", state=RunState.QUEUED, message=message, hint="")
    writer.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
