"""Starts the supervisor of a node on the machine where this is called: by the launcher for runs here, by the agent there."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

from core.contracts.errors import EnvironmentProblem
from core.contracts.placement import LOCAL_NODE
from core.contracts.states import RunState
from core.jobs.profiling import withdraw_profile
from core.jobs.records import ExitRecord, SupervisorRecord, read_record, write_record
from core.runlog.layout import MARK_VARIABLE, NODE_VARIABLE, RunLayout

SUPERVISOR_MODULE = "core.cli.supervise"
_START_LIMIT_S = 120.0


def last_attempt(run_dir: Path, node: str = LOCAL_NODE) -> int:
    """Return the number of the latest attempt that a node knows of; 0 before the first."""
    layout = RunLayout(run_dir)
    exit_record = read_record(layout.exit_record(node), ExitRecord)
    supervisor = read_record(layout.supervisor(node), SupervisorRecord)
    known = [record.attempt for record in (exit_record, supervisor) if record is not None]
    return max([*known, len(list(run_dir.glob(f"exit.{node}.attempt*.json"))), 0])


def prepare_attempt(run_dir: Path, node: str = LOCAL_NODE) -> None:
    """Put the records of an attempt that ended aside and withdraw its requests, so that a new one may start.

    Args:
        run_dir: The run directory on this machine.
        node: The node.

    Raises:
        OSError: The run directory cannot be changed.
    """
    layout = RunLayout(run_dir)
    number = last_attempt(run_dir, node)
    layout.stop_request.unlink(missing_ok=True)
    layout.pause_request.unlink(missing_ok=True)
    withdraw_profile(run_dir)
    if layout.exit_record(node).exists():
        layout.exit_record(node).rename(run_dir / f"exit.{node}.attempt{number}.json")
    layout.supervisor(node).unlink(missing_ok=True)
    os.utime(layout.spec)


def start_supervisor(run_dir: Path, attempt: int, *, node: str = LOCAL_NODE, guardian: Path | None = None) -> None:
    """Start the supervisor and wait until it has detached itself; a start that fails ends the node's part as failed.

    Args:
        run_dir: The run directory on this machine.
        attempt: Number of the attempt.
        node: The node.
        guardian: Directory of the run that owns this one.

    Raises:
        EnvironmentProblem: It did not start.
    """
    began = time.time()
    try:
        _start(run_dir, attempt, node, guardian)
    except EnvironmentProblem as error:
        record = ExitRecord(
            state=RunState.FAILED,
            message=error.message,
            hint=error.hint,
            attempt=attempt,
            started=began,
            ended=time.time(),
        )
        with contextlib.suppress(OSError):
            write_record(RunLayout(run_dir).exit_record(node), record)
        raise


def _start(run_dir: Path, attempt: int, node: str, guardian: Path | None) -> None:
    command = [sys.executable, "-P", "-m", SUPERVISOR_MODULE, str(run_dir), str(attempt), "--node", node]
    command += ["--guardian", str(guardian)] if guardian is not None else []
    environment = {**os.environ, MARK_VARIABLE: run_dir.name, NODE_VARIABLE: node}
    log_path = run_dir / f"supervisor.{node}.log"
    hint = f"See {str(log_path)!r}."
    try:
        with log_path.open("ab") as log:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=run_dir,
                env=environment,
                timeout=_START_LIMIT_S,
                check=False,
            )
    except subprocess.TimeoutExpired as error:
        message = f"The supervisor did not start within {_START_LIMIT_S:g} s and was ended."
        raise EnvironmentProblem(message, hint) from error
    except OSError as error:
        raise EnvironmentProblem(f"The supervisor could not be started: {error.strerror or error}.", hint) from error
    if done.returncode != 0:
        raise EnvironmentProblem(f"The supervisor could not be started (exit status {done.returncode}).", hint)
