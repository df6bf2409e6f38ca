"""Starts the worker of a node: its command, its environment, its output file, and its tie to the supervisor's life."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

from core.contracts.placement import NodePlacement
from core.contracts.specs import LaunchSpec
from core.jobs.records import Attempt
from core.runlog.layout import EVENTS_VARIABLE, MARK_VARIABLE, NODE_VARIABLE, RunLayout

ATTEMPT_VARIABLE = "PILOTHOUSE_ATTEMPT"
_PATIENT_THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}
"""Idle OpenMP threads sleep: where they spin beside other busy processes, a step was seen to take 70 times as long."""
_PR_SET_PDEATHSIG = 1


def prctl(option: int, value: int) -> None:
    """Set a Linux process attribute; elsewhere there is none to set."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _die_with_supervisor() -> None:
    """Ask the kernel to send the worker TERM when the supervisor dies, however it dies."""
    prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def worker_environment(
    attempt: Attempt, launch: LaunchSpec, placed: NodePlacement, threads: int, devices: Mapping[str, str]
) -> dict[str, str]:
    """Return the environment of a worker.

    Args:
        attempt: Whose worker.
        launch: What the user set.
        placed: The node; its network interface is given to NCCL and gloo.
        threads: OpenMP threads.
        devices: The variables that show it its devices.
    """
    interface = {name: placed.interface for name in ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME") if placed.interface}
    return {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        **_PATIENT_THREADS,
        **interface,
        "PYTHONUNBUFFERED": "1",
        **launch.env,
        **devices,
        MARK_VARIABLE: attempt.run_dir.name,
        NODE_VARIABLE: attempt.node,
        ATTEMPT_VARIABLE: str(attempt.number),
        EVENTS_VARIABLE: str(attempt.run_dir),
    }


def start_worker(attempt: Attempt, environment: Mapping[str, str], held: Sequence[int] = ()) -> subprocess.Popen[bytes]:
    """Start the worker in a session of its own, its output appended to the node's log.

    Args:
        attempt: Whose worker.
        environment: See ``worker_environment``.
        held: Descriptors of its devices' leases: while it saves and ends after its supervisor was killed, they are its.

    Raises:
        OSError: It cannot be started.
    """
    command = [sys.executable, "-P", "-m", "core.jobs.worker", str(attempt.run_dir), str(attempt.number), attempt.node]
    with RunLayout(attempt.run_dir).stdout(attempt.node).open("ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=attempt.run_dir,
            env=environment,
            start_new_session=True,
            pass_fds=held,
            preexec_fn=_die_with_supervisor,  # noqa: PLW1509 - this process has one thread
        )
