"""The supervisor's program: ``python -P -m core.cli.supervise RUN_DIR ATTEMPT [--node NODE]``.

Reads what it needs, then detaches itself into a session of its own, so that its starter returns at once and an
unreadable run is reported to it. This is where hardware readings are wired to the supervisor.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import msgspec

from core.contracts.placement import LOCAL_NODE
from core.contracts.specs import RunSpec
from core.contracts.telemetry import HardwareReport, Sampler
from core.hardware.probe import probe
from core.hardware.sampler import HostSampler
from core.jobs.environment import write_environment
from core.jobs.placed import placement_of
from core.jobs.records import Attempt
from core.jobs.supervisor import AlreadySupervised, Supervisor, guardian_identity
from core.plugins.decode import read_spec
from core.plugins.registry import registry
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

    @cached_property
    def _report(self) -> HardwareReport:
        return probe()

    def usable_cores(self) -> int:
        """Return the cores that affinity and the control group leave, rounded down."""
        return max(int(self._report.cpu.usable_cores), 1)

    def gpus(self) -> Mapping[int, str]:
        """Return the GPUs that can be used by index, each with the name that shows it to CUDA."""
        usable = [gpu for gpu in self._report.gpus if not gpu.problem]
        return {gpu.index: gpu.uuid if gpu.vendor == "nvidia" and gpu.uuid else str(gpu.vendor_index) for gpu in usable}

    def describe(self) -> None:
        """Write ``environment.json``."""
        report = msgspec.to_builtins(self._report)
        write_environment(self._attempt.run_dir, self._spec, self._attempt.number, report)

    def sampler(self) -> Sampler:
        """Return a sampler that also watches the run's disk."""
        return HostSampler(self._attempt.run_dir)


def _arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="supervise", description="Supervises one node of one attempt of a run.")
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("attempt", type=int)
    parser.add_argument("--node", default=LOCAL_NODE)
    parser.add_argument("--guardian", type=Path, metavar="RUN_DIR")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Supervise one node of one attempt of one run; returns 0 in the starter, and in the detached process at its end."""
    asked = _arguments(arguments)
    run_dir: Path = asked.run_dir
    attempt = Attempt(run_dir=run_dir, number=asked.attempt, started=time.time(), node=asked.node)
    guardian = guardian_identity(asked.guardian) if asked.guardian is not None else None
    spec = read_spec(RunLayout(run_dir).spec)
    kind = registry().get(str(spec.__struct_config__.tag))
    placement = placement_of(run_dir, kind.ranks(spec))
    _detach()
    supervisor = Supervisor(
        attempt,
        spec,
        machine=ThisMachine(attempt, spec),
        placement=placement,
        guardian=guardian,
        uses_devices=kind.group != "pipeline",
    )
    try:
        supervisor.run()
    except AlreadySupervised:
        sys.stderr.write("Another supervisor holds this run; this one ended.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
