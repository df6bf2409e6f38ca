"""The supervisor's program: ``python -P -m core.cli.supervise RUN_DIR ATTEMPT [GUARDIAN_DIR]``.

Reads what it needs, then detaches itself into a session of its own, so that its starter returns at once and an
unreadable run is reported to it. This is where hardware readings are wired to the supervisor.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import msgspec

from core.contracts.specs import RunSpec
from core.contracts.telemetry import Sampler
from core.hardware.probe import probe
from core.hardware.sampler import HostSampler
from core.jobs.environment import write_environment
from core.jobs.records import Attempt
from core.jobs.supervisor import AlreadySupervised, Supervisor, guardian_identity
from core.plugins.decode import read_spec
from core.runlog.layout import RunLayout


def _detach() -> None:
    """Leave the starter: the child goes on in a new session, the starter's child ends at once."""
    if os.fork():
        os._exit(0)
    os.setsid()


class ThisMachine:
    """This host, read by ``core.hardware``; see ``core.jobs.supervisor.Machine``."""

    def __init__(self, attempt: Attempt, spec: RunSpec) -> None:
        self._attempt = attempt
        self._spec = spec

    def usable_cores(self) -> int:
        """Return the cores that affinity and the control group leave, rounded down."""
        return max(int(probe().cpu.usable_cores), 1)

    def describe(self) -> None:
        """Write ``environment.json``."""
        report = msgspec.to_builtins(probe())
        write_environment(self._attempt.run_dir, self._spec, self._attempt.number, report)

    def sampler(self) -> Sampler:
        """Return a sampler that also watches the run's disk."""
        return HostSampler(self._attempt.run_dir)


def main(arguments: list[str]) -> int:
    """Supervise one attempt of one run; returns 0 in the starter, and the same in the detached process at its end."""
    run_dir = Path(arguments[0])
    attempt = Attempt(run_dir=run_dir, number=int(arguments[1]), started=time.time())
    guardian = guardian_identity(Path(arguments[2])) if len(arguments) > 2 else None
    spec = read_spec(RunLayout(run_dir).spec)
    _detach()
    supervisor = Supervisor(attempt, spec, machine=ThisMachine(attempt, spec), guardian=guardian)
    try:
        supervisor.run()
    except AlreadySupervised:
        sys.stderr.write("Another supervisor holds this run; this one ended.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
