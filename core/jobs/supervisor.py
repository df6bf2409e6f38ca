"""The supervisor: one process per run and host that owns the workers, beats, samples, obeys requests and records the end.

It lives in a session of its own, so that closing or killing the window changes nothing. It is a child subreaper: what
a worker leaves behind becomes its child and is ended with the run. Everything it knows is in the run directory; it
talks to nobody. One thread; sleeps until the worker ends or the next tick is due.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Protocol

from core.contracts.specs import RunSpec
from core.contracts.states import RunState
from core.contracts.telemetry import Sampler
from core.jobs import ending
from core.jobs.identity import ProcessIdentity, identity_of, is_alive, own_identity
from core.jobs.processes import end_processes, processes_of_run, send
from core.jobs.records import Attempt, ExitRecord, SupervisorRecord, read_record, write_record
from core.jobs.telemetry import TelemetryLog
from core.runlog.emit import EventWriter
from core.runlog.layout import EVENTS_VARIABLE, MARK_VARIABLE, SUPERVISOR_RANK, RunLayout

TICK_S = 0.25
BEAT_S = 2.0
RESERVE_BYTES = 64 << 10
_LEFTOVER_GRACE_S = 5.0
_PATIENT_THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}
"""Idle OpenMP threads sleep: where they spin beside other busy processes, a step was seen to take 70 times as long."""
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def _prctl(option: int, value: int) -> None:
    """Set a Linux process attribute; elsewhere there is none to set."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _die_with_supervisor() -> None:
    """Ask the kernel to send the worker TERM when the supervisor dies, however it dies."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Machine(Protocol):
    """The host a supervisor runs on, as far as it needs to know."""

    def usable_cores(self) -> int:
        """Return how many cores' worth of time the workers can have, at least 1; never raises."""
        ...

    def describe(self) -> None:
        """Record the environment of the attempt; called once, before its worker starts."""
        ...

    def sampler(self) -> Sampler:
        """Return a fresh telemetry sampler."""
        ...


class AlreadySupervised(Exception):
    """Another live supervisor holds this run."""


class Supervisor:
    """Supervises one attempt of one run on this host."""

    def __init__(
        self,
        attempt: Attempt,
        spec: RunSpec,
        *,
        machine: Machine,
        guardian: ProcessIdentity | None = None,
    ) -> None:
        """Prepare to supervise.

        Args:
            attempt: What to supervise.
            spec: What the run is asked.
            machine: The host it runs on.
            guardian: Process whose end ends this run too.
        """
        self._attempt = attempt
        self._run_dir = attempt.run_dir
        self._spec = spec
        self._node = attempt.node
        self._layout = RunLayout(attempt.run_dir)
        self._machine = machine
        self._telemetry = TelemetryLog(
            machine.sampler, self._layout.telemetry(attempt.node), lambda sentence: self._log(sentence, "warning")
        )
        self._guardian = guardian
        self._identity = own_identity()
        self._stop_reason = ""
        self._stop_deadline = 0.0
        self._killed = False
        self._state = RunState.PREPARING
        self._lock_fd = -1

    def run(self) -> ExitRecord:
        """Start the worker, stay until it and all it left are gone, and record how it ended.

        Raises:
            AlreadySupervised: Another supervisor holds this run; nothing was changed.
            OSError: The run directory cannot be written at all.
        """
        self._take_lock()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._on_term)
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        self._events = EventWriter(self._layout.events(SUPERVISOR_RANK, self._node))
        self._reserve_space()
        self._write_supervisor(None)
        self._set_state(RunState.PREPARING)
        self._describe_machine()
        self._memory_kills = ending.out_of_memory_kills()
        try:
            self._worker = self._start_worker()
        except OSError as error:
            return self._record_end(None, ending.not_started(error), ())
        self._write_supervisor(identity_of(self._worker.pid))
        self._set_state(RunState.RUNNING)
        self._watch()
        left = self._end_leftovers()
        return self._record_end(self._worker.returncode, None, tuple(sorted(left)))

    def _take_lock(self) -> None:
        self._lock_fd = os.open(
            self._layout.control / f"{SUPERVISOR_RANK}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644
        )
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock_fd)
            raise AlreadySupervised from error

    def _reserve_space(self) -> None:
        """Hold some disk back, so that the exit record can be written on a full disk."""
        with contextlib.suppress(OSError):
            self._layout.reserve(self._node).write_bytes(bytes(RESERVE_BYTES))

    def _on_term(self, *_: object) -> None:
        self._stop_reason = self._stop_reason or "The supervisor was asked to end."

    def _write_supervisor(self, worker: ProcessIdentity | None) -> None:
        record = SupervisorRecord(
            identity=self._identity,
            node=self._node,
            attempt=self._attempt.number,
            started=self._attempt.started,
            worker=worker,
        )
        with contextlib.suppress(OSError):
            write_record(self._layout.supervisor(self._node), record)

    def _set_state(self, state: RunState, message: str = "", hint: str = "") -> None:
        self._state = state
        with contextlib.suppress(OSError):
            self._events.write("state", state=state, message=message, hint=hint)

    def _log(self, sentence: str, level: str) -> None:
        with contextlib.suppress(OSError):
            self._events.write("log", message=sentence, level=level)

    def _describe_machine(self) -> None:
        """Record the environment; a machine that cannot be described still runs."""
        try:
            self._machine.describe()
        except Exception as error:  # noqa: BLE001 - a driver's library may raise anything; the run must go on
            self._log(f"The environment could not be recorded: {type(error).__name__}: {error}", "warning")

    def _start_worker(self) -> subprocess.Popen[bytes]:
        threads = self._spec.launch.threads or self._machine.usable_cores()
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            **_PATIENT_THREADS,
            "PYTHONUNBUFFERED": "1",
            **self._spec.launch.env,
            MARK_VARIABLE: self._run_dir.name,
            EVENTS_VARIABLE: str(self._run_dir),
        }
        command = [sys.executable, "-P", "-m", "core.jobs.worker", str(self._run_dir), str(self._attempt.number)]
        with self._layout.stdout(self._node).open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._run_dir,
                env=environment,
                start_new_session=True,
                preexec_fn=_die_with_supervisor,  # noqa: PLW1509 - this process has one thread
            )

    def _watch(self) -> None:
        """Tick until the worker has ended."""
        poller = select.poll()
        exit_fd = os.pidfd_open(self._worker.pid) if hasattr(os, "pidfd_open") else -1
        if exit_fd >= 0:
            poller.register(exit_fd, select.POLLIN)
        next_beat = 0.0
        while self._worker.poll() is None:
            now = time.monotonic()
            if now >= next_beat:
                next_beat = now + BEAT_S
                self._beat()
            self._telemetry.tick(now, self._worker.pid)
            self._obey(now)
            poller.poll(TICK_S * 1000)
        if exit_fd >= 0:
            os.close(exit_fd)
        self._telemetry.close()

    def _beat(self) -> None:
        """Show a sign of life, reap what was adopted, and look after the owner."""
        with contextlib.suppress(OSError):
            os.utime(self._layout.supervisor(self._node))
        self._reap()
        if self._guardian is not None and not is_alive(self._guardian):
            self._stop_reason = self._stop_reason or "The run that started this one has ended."

    def _reap(self) -> None:
        """Collect adopted children that ended; the worker itself is left to ``Popen``."""
        with contextlib.suppress(ChildProcessError):
            while True:
                result = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if result is None or result.si_pid == self._worker.pid:
                    return
                os.waitpid(result.si_pid, 0)

    def _obey(self, now: float) -> None:
        """Carry out a stop: TERM once, KILL after the grace."""
        if self._layout.stop_request.exists():
            self._stop_reason = self._stop_reason or "Stopped on request."
        if not self._stop_reason:
            return
        if not self._stop_deadline:
            grace = self._spec.launch.stop_grace_s
            self._stop_deadline = now + grace
            self._set_state(RunState.STOPPING, f"{self._stop_reason} It has {grace:g} s to save and end.")
            send((self._worker.pid,), signal.SIGTERM)
        elif now >= self._stop_deadline and not self._killed:
            self._killed = True
            send(self._all_processes(), signal.SIGKILL)

    def _all_processes(self) -> set[int]:
        return processes_of_run(self._run_dir.name, os.getpid())

    def _end_leftovers(self) -> set[int]:
        """End what the worker left behind; return what could not be ended."""

        def find() -> set[int]:
            self._reap()
            return self._all_processes()

        return end_processes(find, grace_s=0.0 if self._killed else _LEFTOVER_GRACE_S) if find() else set()

    def _record_end(self, returncode: int | None, verdict: ending.Verdict | None, left: tuple[int, ...]) -> ExitRecord:
        if verdict is None:
            assert returncode is not None
            verdict = ending.judge(
                self._attempt,
                returncode,
                stop_reason=self._stop_reason,
                was_killed=self._killed,
                memory_kills=ending.out_of_memory_kills() - self._memory_kills,
            )
        record = ExitRecord(
            state=verdict.state,
            message=verdict.message,
            hint=verdict.hint,
            code=returncode if returncode is None or returncode >= 0 else None,
            signal=-returncode if returncode is not None and returncode < 0 else None,
            attempt=self._attempt.number,
            started=self._attempt.started,
            ended=time.time(),
            left_pids=left,
        )
        self._layout.reserve(self._node).unlink(missing_ok=True)
        self._set_state(record.state, record.message, record.hint)
        if record.state is RunState.SUCCEEDED:
            shutil.rmtree(self._layout.scratch, ignore_errors=True)
        write_record(self._layout.exit_record(self._node), record)
        self._events.close()
        os.close(self._lock_fd)
        return record


def guardian_identity(run_dir: Path) -> ProcessIdentity | None:
    """Return the identity of the supervisor of the run that owns another one."""
    record = read_record(RunLayout(run_dir).supervisor(), SupervisorRecord)
    return None if record is None else record.identity
