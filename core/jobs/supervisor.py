"""The supervisor: one process per node of a run that owns the workers, beats, samples, obeys requests and records the end.

It lives in a session of its own, so that closing or killing the window changes nothing. It is a child subreaper: what
a worker leaves behind becomes its child and is ended with the run. Everything it knows is in the run directory; it talks
to nobody but the supervisors of the run's other nodes. One thread; sleeps until the worker ends or the next tick is due.

A run goes through rounds: wait for devices and for the other nodes, work, end what is left. A paused run stays between two
rounds without devices and without any process but this one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from core.contracts.errors import PilothouseError
from core.contracts.placement import Placement
from core.contracts.specs import RunSpec
from core.contracts.states import RunState
from core.contracts.telemetry import Sampler
from core.jobs import ending
from core.jobs.devices import DeviceRequest, request_for, visible_environment
from core.jobs.ending import Verdict
from core.jobs.identity import ProcessIdentity, identity_of, is_alive, own_identity
from core.jobs.membership import Membership, Peers
from core.jobs.outcome import verdict_of
from core.jobs.output_index import OutputIndex
from core.jobs.peer_wire import Part, Phase
from core.jobs.peers import peers_of
from core.jobs.placed import local_placement
from core.jobs.processes import end_processes, processes_of_run, send
from core.jobs.queue import Lease, waiting_sentence
from core.jobs.records import Attempt, ExitRecord, SupervisorRecord, read_record, requested_reason, write_record
from core.jobs.telemetry import TelemetryLog
from core.jobs.worker_start import prctl, start_worker, worker_environment
from core.runlog.emit import EventWriter
from core.runlog.layout import SUPERVISOR_RANK, RunLayout

TICK_S = 0.25
BEAT_S = 2.0
RESERVE_BYTES = 64 << 10
_WAIT_S = 0.05
_QUEUE_S = 0.5
_QUEUE_SLOWEST_S = 5.0
_LEFTOVER_GRACE_S = 5.0
_PR_SET_CHILD_SUBREAPER = 36
_PAUSED = "Paused on request."


class Machine(Protocol):
    """The host a supervisor runs on, as far as it needs to know."""

    def usable_cores(self) -> int:
        """Return how many cores' worth of time the workers can have, at least 1; never raises."""
        ...

    def gpus(self) -> Mapping[int, str]:
        """Return the GPUs by index, each with the name that makes it visible to CUDA; never raises."""
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
    """Supervises one attempt of one run on one node."""

    def __init__(
        self,
        attempt: Attempt,
        spec: RunSpec,
        *,
        machine: Machine,
        placement: Placement | None = None,
        guardian: ProcessIdentity | None = None,
        uses_devices: bool = True,
    ) -> None:
        """Prepare to supervise.

        Args:
            attempt: What to supervise.
            spec: What the run is asked.
            machine: The host it runs on.
            placement: The nodes of the run; this machine alone when not given.
            guardian: Process whose end ends this run too.
            uses_devices: It computes itself; false for a run that only starts others.
        """
        self._attempt = attempt
        self._run_dir = attempt.run_dir
        self._spec = spec
        self._node = attempt.node
        self._placement = placement or local_placement(attempt.run_dir)
        self._placed = self._placement.of(attempt.node)
        self._is_head = self._placement.head.node == attempt.node
        self._layout = RunLayout(attempt.run_dir)
        self._machine = machine
        self._uses_devices = uses_devices
        self._telemetry = TelemetryLog(
            machine.sampler, self._layout.telemetry(attempt.node), lambda sentence: self._log(sentence, "warning")
        )
        self._guardian = guardian
        self._identity = own_identity()
        self._peers = Peers()
        self._lease = Lease(Path(self._placed.work_dir), attempt.run_dir.name, attempt.node, spec.name)
        self._stop_reason = ""
        self._is_stop_wanted = True
        self._is_pausing = False
        self._deadline = 0.0
        self._killed = False
        self._returncode: int | None = None
        self._left: set[int] = set()
        self._shared: DeviceRequest | None = None
        self._next_beat = 0.0
        self._worker: subprocess.Popen[bytes] | None = None
        self._lock_fd = -1

    def run(self) -> ExitRecord:
        """Go through the rounds of the run, stay until all it left is gone, and record how it ended.

        Raises:
            AlreadySupervised: Another supervisor holds this run; nothing was changed.
            OSError: The run directory cannot be written at all.
        """
        self._take_lock()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._on_term)
        prctl(_PR_SET_CHILD_SUBREAPER, 1)
        self._events = EventWriter(self._layout.events(SUPERVISOR_RANK, self._node))
        self._reserve_space()
        self._write_supervisor(None)
        self._set_state(RunState.PREPARING)
        self._describe_machine()
        try:
            self._peers = peers_of(self._membership(), self._log)
            self._gpus = self._machine.gpus()
            request = request_for(self._spec.launch, self._placement, self._placed, self._gpus)
        except PilothouseError as error:
            verdict = Verdict(RunState.FAILED, error.message, error.hint, failed_at=time.time())
        else:
            verdict = self._go_through_rounds(request)
        self._lease.release()
        self._telemetry.close()
        return self._record_end(self._agree(verdict))

    def _membership(self) -> Membership:
        return Membership(
            run_id=self._run_dir.name,
            attempt=self._attempt.number,
            node=self._node,
            placement=self._placement,
            peer_limit_s=self._spec.launch.peer_limit_s,
            ending_s=self._spec.launch.stop_grace_s,
            machine=f"{platform.node()} {self._identity.boot_id}",
        )

    def _go_through_rounds(self, request: DeviceRequest) -> Verdict:
        """Work until the run has ended, paused or not; return how this part of it did."""
        round_number = 0
        while True:
            round_number += 1
            if not self._await_start(request, round_number):
                return Verdict(RunState.STOPPED, self._stop_reason, ending.RESUME_HINT)
            verdict = self._work(request)
            if verdict.state is not RunState.STOPPED or not self._is_pausing:
                return verdict
            if not self._stay_paused(round_number, verdict):
                return Verdict(RunState.STOPPED, self._stop_reason, ending.RESUME_HINT)
            self._attempt = replace(self._attempt, number=self._attempt.number + 1, started=time.time())
            self._write_supervisor(None)

    def _take_lock(self) -> None:
        self._lock_fd = os.open(
            self._layout.control / f"{SUPERVISOR_RANK}.{self._node}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644
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
        """Write the run's state; a node that is not the head writes its own."""
        with contextlib.suppress(OSError):
            if self._is_head:
                self._events.write("state", state=state, message=message, hint=hint)
            else:
                self._events.write("node", node=self._node, state=state, message=message, hint=hint)

    def _log(self, sentence: str, level: str) -> None:
        with contextlib.suppress(OSError):
            self._events.write("log", message=sentence, level=level)

    def _describe_machine(self) -> None:
        """Record the environment; a machine that cannot be described still runs."""
        if not self._is_head:
            return
        try:
            self._machine.describe()
        except Exception as error:  # noqa: BLE001 - a driver's library may raise anything; the run must go on
            self._log(f"The environment could not be recorded: {type(error).__name__}: {error}", "warning")

    def _await_start(self, request: DeviceRequest, round_number: int) -> bool:
        """Wait for devices, then for the other nodes; return False when the run is to stop instead."""
        self._peers.enter(Phase.JOINED, round_number)
        if self._spec.launch.queue and request.count:
            if not self._await_devices(request):
                return False
        elif self._uses_devices and request.count:
            self._shared = request
            self._share()
        self._peers.enter(Phase.READY, round_number)
        while not self._stop_reason:
            if self._peers.may_start():
                self._peers.enter(Phase.RUNNING, round_number)
                return True
            self._idle(_WAIT_S)
        return False

    def _share(self) -> None:
        """Hold what is used beside others, as soon as no queued run has it for itself."""
        if self._shared is not None and not self._lease.held:
            with contextlib.suppress(OSError):
                self._lease.share(self._shared)

    def _await_devices(self, request: DeviceRequest) -> bool:
        """Wait in the host's queue; return False when the run is to stop instead."""
        names = tuple(str(index) for index in sorted(self._gpus))
        told, next_look = "", 0.0
        while not self._stop_reason:
            now = time.monotonic()
            if now >= next_look:
                sentence, ahead = self._look_at_queue(request, names)
                if self._lease.held:
                    return True
                if sentence != told:
                    told = sentence
                    self._set_state(RunState.QUEUED, sentence)
                next_look = now + min(_QUEUE_S * (1 + ahead), _QUEUE_SLOWEST_S)
            self._idle(TICK_S)
        self._lease.release()
        return False

    def _look_at_queue(self, request: DeviceRequest, names: tuple[str, ...]) -> tuple[str, int]:
        """Try to take the devices; return what is waited for and how many come first."""
        has_turn = self._peers.may_take_devices()
        try:
            ahead = self._lease.take(request, names, has_turn=has_turn)
        except OSError as error:
            return f"The queue of this host cannot be used: {error.strerror or error}.", 0
        return (waiting_sentence(request, ahead) if has_turn else "Waits for the other hosts of the run."), ahead

    def _work(self, request: DeviceRequest) -> Verdict:
        """Carry out one round: start the worker, watch it, end what it left; return how it ended."""
        self._killed, self._deadline, self._returncode = False, 0.0, None
        log = self._layout.stdout(self._node)
        index = OutputIndex(log, self._layout.stdout_index(self._node))
        memory_kills = ending.out_of_memory_kills()
        with contextlib.suppress(OSError):
            self._attempt = replace(self._attempt, stdout_offset=log.stat().st_size)
        devices = visible_environment(request, self._lease.held if self._spec.launch.queue else (), self._gpus)
        threads = self._spec.launch.threads or self._machine.usable_cores()
        try:
            environment = worker_environment(self._attempt, self._spec.launch, self._placed, threads, devices)
            worker = start_worker(self._attempt, environment, self._lease.descriptors)
        except OSError as error:
            return ending.not_started(error)
        self._worker = worker
        self._write_supervisor(identity_of(worker.pid))
        self._set_state(RunState.RUNNING)
        self._watch(worker, index)
        self._tick(time.monotonic())  # a worker may see a request first: its reason is still to be known
        self._left = self._end_leftovers()
        index.tick(float("inf"))
        self._returncode = worker.returncode
        self._worker = None
        return ending.judge(
            self._attempt,
            worker.returncode,
            stop_reason=self._stop_reason or (_PAUSED if self._is_pausing else ""),
            was_killed=self._killed,
            memory_kills=ending.out_of_memory_kills() - memory_kills,
        )

    def _watch(self, worker: subprocess.Popen[bytes], index: OutputIndex) -> None:
        """Tick until the worker has ended."""
        poller = select.poll()
        exit_fd = os.pidfd_open(worker.pid) if hasattr(os, "pidfd_open") else -1
        if exit_fd >= 0:
            poller.register(exit_fd, select.POLLIN)
        while worker.poll() is None:
            now = time.monotonic()
            self._tick(now)
            self._telemetry.tick(now, worker.pid)
            index.tick(now)
            self._obey(worker, now)
            poller.poll(TICK_S * 1000)
        if exit_fd >= 0:
            os.close(exit_fd)

    def _idle(self, period_s: float) -> None:
        """Wait a little while nothing of the run works."""
        self._tick(time.monotonic())
        time.sleep(period_s)

    def _tick(self, now: float) -> None:
        """Beat, talk to the other nodes, and look for a reason to stop."""
        if now >= self._next_beat:
            self._next_beat = now + BEAT_S
            self._beat()
        if not self._stop_reason and self._layout.stop_request.exists():
            self._stop_reason = requested_reason(self._layout.stop_request) or "Stopped on request."
        self._peers.tick(now)
        if self._stop_reason:
            self._peers.wish_stop(self._stop_reason)
        elif self._peers.stop_reason:
            self._stop_reason = self._peers.stop_reason
            self._is_stop_wanted = self._peers.is_stop_wanted

    def _beat(self) -> None:
        """Show a sign of life, reap what was adopted, and look after the owner."""
        with contextlib.suppress(OSError):
            os.utime(self._layout.supervisor(self._node))
        self._reap()
        if self._worker is not None:
            self._share()
        if self._guardian is not None and not is_alive(self._guardian):
            self._stop_reason = self._stop_reason or "The run that started this one has ended."

    def _reap(self) -> None:
        """Collect adopted children that ended; the worker itself is left to ``Popen``."""
        own = -1 if self._worker is None else self._worker.pid
        with contextlib.suppress(ChildProcessError):
            while True:
                result = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if result is None or result.si_pid == own:
                    return
                os.waitpid(result.si_pid, 0)

    def _obey(self, worker: subprocess.Popen[bytes], now: float) -> None:
        """Carry out a stop or a pause: TERM once, KILL after the grace."""
        if self._is_head and self._layout.pause_request.exists():
            self._peers.wants_pause = True
        reason, state = self._stop_reason, RunState.STOPPING
        if not reason and self._peers.wants_pause:
            self._is_pausing = True
            reason, state = "Pauses on request.", RunState.PAUSING
        if not reason:
            return
        if not self._deadline:
            grace = self._spec.launch.stop_grace_s
            self._deadline = now + grace
            self._set_state(state, f"{reason} It has {grace:g} s to save and end.")
            send((worker.pid,), signal.SIGTERM)
        elif now >= self._deadline and not self._killed:
            self._killed = True
            send(self._all_processes(), signal.SIGKILL)

    def _all_processes(self) -> set[int]:
        return processes_of_run(self._run_dir.name, self._node, os.getpid())

    def _end_leftovers(self) -> set[int]:
        """End what the worker left behind; return what could not be ended."""

        def find() -> set[int]:
            self._reap()
            self._peers.tick(time.monotonic())
            return self._all_processes()

        return end_processes(find, grace_s=0.0 if self._killed else _LEFTOVER_GRACE_S) if find() else set()

    def _stay_paused(self, round_number: int, verdict: Verdict) -> bool:
        """Stay without devices until the run is to go on; return False when it is to stop instead."""
        self._lease.release()
        self._write_supervisor(None)
        self._peers.enter(Phase.PAUSED, round_number)
        self._set_state(RunState.PAUSED, verdict.message, "Continue it to go on from its last checkpoint.")
        while not self._stop_reason:
            if self._may_go_on():
                self._peers.wants_pause = self._is_pausing = False
                self._set_state(RunState.PREPARING)
                return True
            self._idle(TICK_S)
        return False

    def _may_go_on(self) -> bool:
        if self._is_head:
            return not self._layout.pause_request.exists() and self._peers.are_paused()
        return not self._peers.wants_pause

    def _agree(self, verdict: Verdict) -> Verdict:
        """Tell the other nodes how this part ended and hear how theirs did; return what is to be recorded."""
        own = Part(
            node=self._node,
            state=verdict.state,
            message=verdict.message,
            hint=verdict.hint,
            kind=verdict.kind,
            is_secondary=verdict.is_secondary,
            failed_at=verdict.failed_at or time.time(),
        )
        self._peers.end(own)
        while not self._peers.is_done(time.monotonic()):
            self._idle(_WAIT_S)
        self._peers.tick(time.monotonic())
        others = tuple(self._peers.parts)
        self._peers.close()
        if not self._is_head or len(self._placement.nodes) == 1:
            return verdict
        wanted = self._stop_reason if self._is_stop_wanted else ""
        return verdict_of(own, others, self._placement, wanted)

    def _record_end(self, verdict: Verdict) -> ExitRecord:
        code = self._returncode
        record = ExitRecord(
            state=verdict.state,
            message=verdict.message,
            hint=verdict.hint,
            code=code if code is None or code >= 0 else None,
            signal=-code if code is not None and code < 0 else None,
            attempt=self._attempt.number,
            started=self._attempt.started,
            ended=time.time(),
            left_pids=tuple(sorted(self._left)),
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
