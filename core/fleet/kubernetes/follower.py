"""Follows a run on Kubernetes: looks after its pods, reads their logs into the mirror, and tells how each node stands.

One thread looks at the cluster every few seconds, and one thread for each pod reads its log (``pod_reader``). What is
known of a node that its files do not say (waiting for a place, image missing, pod gone, cluster unreachable) stands in
``link.<node>.json``. A cluster that does not answer makes nothing fail: it is asked again, ever more rarely. Of several
processes that would follow the same run one does, held by a lock that the kernel drops with the process.
"""

from __future__ import annotations

import fcntl
import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from core.contracts.agent import NodeStanding
from core.contracts.errors import EnvironmentProblem, UserError
from core.contracts.mirrors import LinkRecord
from core.contracts.placement import Placement
from core.contracts.states import RunState
from core.fleet.kubernetes.cluster import ClusterState, KubernetesCluster
from core.fleet.kubernetes.node_mirror import NodeMirror
from core.fleet.kubernetes.pod_reader import PodReader
from core.fleet.kubernetes.pod_states import PodStatus, latest_by_node
from core.fleet.worker_wheel import worker_version
from core.jobs.records import ExitRecord, read_record, write_record
from core.plugins.decode import read_spec
from core.runlog.layout import RunLayout

LOOK_PERIOD_S = 3.0
_LONGEST_PERIOD_S = 30.0
_TICK_S = 0.2
_SETTLE_LOOKS = 2
"""So often must a run be absent from the cluster before it counts as gone: it may be there only in a moment."""

OnChange = Callable[[str], None]


class KubernetesFollower:
    """Brings one run's files here until it is over. Thread-safe; ``start`` and ``close`` from any thread."""

    def __init__(self, cluster: KubernetesCluster, run_dir: Path, on_change: OnChange = lambda run_id: None) -> None:
        """Prepare; nothing is asked yet.

        Args:
            cluster: Where the run is.
            run_dir: The mirror: the run directory here, with ``spec.toml`` and ``placement.json``.
            on_change: Called with the run's id, on a background thread, when something new is here; a few times a
                second at most.

        Raises:
            UserError: The folder has no placement, or one that is not of Kubernetes.
        """
        self.run_id = run_dir.name
        self._cluster = cluster
        self._run_dir = run_dir
        self._on_change = on_change
        self._placement = _placement(run_dir)
        may_restart = read_spec(RunLayout(run_dir).spec).launch.kubernetes.retries > 0
        self._mirrors = {
            one.node: NodeMirror(run_dir, one.node, holds_exit=may_restart) for one in self._placement.nodes
        }
        self._links = {node: self._last_link(node) for node in self._mirrors}
        self._readers: dict[str, PodReader] = {}
        self._read: set[str] = set()
        self._state: ClusterState | None = None
        self._absent = 0
        self._changed = threading.Event()
        self._closing = threading.Event()
        self._lock_fd = -1
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"follow {self.run_id}", daemon=True)

    def start(self) -> None:
        """Begin to follow; does nothing when it already does."""
        if not self._thread.is_alive() and not self._over.is_set():
            self._thread.start()

    @property
    def is_over(self) -> bool:
        """True once the run has ended and everything of it that can be had is here."""
        return self._over.is_set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the run is over and all is here; return whether it is."""
        return self._over.wait(timeout_s)

    def catch_up(self, timeout_s: float) -> bool:
        """Wait until what the pods had printed at the time of this call is here; return whether it is."""
        deadline = time.monotonic() + timeout_s
        # The first sign of life may have been on its way already.
        wanted = {node: mirror.beats + 2 for node, mirror in self._mirrors.items()}
        while not self._over.is_set():
            if all(self._mirrors[node].ended or self._mirrors[node].beats >= beats for node, beats in wanted.items()):
                return True
            if time.monotonic() > deadline or self._closing.is_set():
                return False
            self._over.wait(_TICK_S)
        return True

    def close(self) -> None:
        """Stop following; the run goes on. Returns once all threads have ended."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def _last_link(self, node: str) -> LinkRecord:
        """Return what was known of a node when it was last followed."""
        return read_record(RunLayout(self._run_dir).link(node), LinkRecord) or LinkRecord()

    # -- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        next_look, period_s = 0.0, LOOK_PERIOD_S
        try:
            while not self._closing.is_set() and not self._over.is_set():
                if time.monotonic() >= next_look:
                    answered = self._look() if self._take_over() else True
                    period_s = LOOK_PERIOD_S if answered else min(period_s * 1.5, _LONGEST_PERIOD_S)
                    next_look = time.monotonic() + period_s
                if self._changed.is_set():
                    self._changed.clear()
                    self._on_change(self.run_id)
                self._closing.wait(_TICK_S)
        finally:
            for reader in self._readers.values():
                reader.close()
            self._let_go()
            self._on_change(self.run_id)

    def _take_over(self) -> bool:
        """Become the process that writes this mirror; False while another is."""
        if self._lock_fd >= 0:
            return True
        control = RunLayout(self._run_dir).control
        try:
            control.mkdir(exist_ok=True)
            descriptor = os.open(control / "mirror.pods.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError:
            return False  # tried again: the disk may be full only now
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            # The other process may be the one that sees the end.
            if all(self._last_link(node).is_complete for node in self._mirrors):
                self._over.set()
            self._changed.set()
            return False
        self._lock_fd = descriptor
        self._links = {node: self._last_link(node) for node in self._mirrors}
        return True

    def _let_go(self) -> None:
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def _look(self) -> bool:
        """Ask the cluster once and act on it; return whether it answered."""
        try:
            state = self._cluster.state(self.run_id)
        except EnvironmentProblem as problem:
            for node in self._links:
                self._link(node, is_reachable=False, message=str(problem))
            return False
        self._state = state
        self._absent = 0 if state.exists else self._absent + 1
        for pod in sorted(state.pods, key=lambda one: one.created):
            self._attend(pod)
        for reader in self._readers.values():
            if reader.pod.uid not in {pod.uid for pod in state.pods}:
                reader.pod_has_ended()
            reader.tick()
        self._note(state)
        if self._all_is_here(state):
            for mirror in self._mirrors.values():
                mirror.release()
            self._note_ends(state)
            self._over.set()
        return True

    def _attend(self, pod: PodStatus) -> None:
        """Read a pod's log unless that is being done, was done, or an earlier pod of the node comes first."""
        if pod.node not in self._mirrors or pod.uid in self._read or not pod.has_started:
            return
        reader = self._readers.get(pod.node)
        if reader is not None and reader.pod.uid != pod.uid:
            if not reader.is_done:
                return
            self._read.add(reader.pod.uid)
            reader = None
        if reader is None:
            reader = PodReader(self._cluster.kubectl, pod, self._mirrors[pod.node], self._changed.set)
            self._readers[pod.node] = reader
        if pod.exit_code is not None:
            reader.pod_has_ended()

    def _all_is_here(self, state: ClusterState) -> bool:
        if not state.is_over or (not state.exists and self._absent < _SETTLE_LOOKS):
            return False
        waiting = {pod.uid for pod in state.pods if pod.has_started and pod.node in self._mirrors} - self._read
        current = {reader.pod.uid for reader in self._readers.values() if reader.is_done}
        return waiting <= current and all(reader.is_done for reader in self._readers.values())

    # -- what is known of each node ----------------------------------------------------------------------------------

    def _link(self, node: str, **changes: object) -> None:
        size = self._mirrors[node].stdout_bytes()
        link = msgspec.structs.replace(self._links[node], stdout_bytes=size, **changes)
        if link != self._links[node]:
            self._links[node] = link
            write_record(RunLayout(self._run_dir).link(node), link)
            self._changed.set()

    def _note(self, state: ClusterState) -> None:
        """Write down of each node what its reader and its pod say."""
        newest = latest_by_node(state.pods)
        for node, mirror in self._mirrors.items():
            reader = self._readers.get(node)
            problem = reader.problem if reader is not None else None
            contact = reader.last_line if reader is not None and problem is not None else time.time()
            self._link(
                node,
                is_reachable=problem is None,
                message="" if problem is None else str(problem),
                last_contact=contact or self._links[node].last_contact,
                standing=self._standing(node, mirror, newest.get(node), state),
            )

    def _standing(self, node: str, mirror: NodeMirror, pod: PodStatus | None, state: ClusterState) -> NodeStanding:
        ended = read_record(RunLayout(self._run_dir).exit_record(node), ExitRecord)
        if ended is not None:
            return NodeStanding(
                node=node,
                state=ended.state,
                message=ended.message,
                hint=ended.hint,
                started=ended.started,
                ended=ended.ended,
                attempt=ended.attempt,
                pids=(),
            )
        reader = self._readers.get(node)
        if reader is not None and reader.refusal is not None:
            refusal = reader.refusal
            return NodeStanding(node=node, state=RunState.LOST, message=refusal.message, hint=refusal.hint)
        seen = pod or state
        stands, message, hint = seen.state, seen.message, seen.hint
        if not message and mirror.lost_bytes:
            message = f"The cluster threw away {mirror.lost_bytes} bytes of the node's log before they were read."
        if not message and mirror.version not in {"", worker_version()}:
            message = f"The image has worker package {mirror.version}, this program is {worker_version()}."
            hint = "Build the image anew: pilothouse image FOLDER"
        # While it runs its files say more; an end counts only once all is here.
        open_state = stands if stands in {RunState.QUEUED, RunState.PREPARING} else None
        return NodeStanding(node=node, is_there=pod is not None, state=open_state, message=message, hint=hint)

    def _note_ends(self, state: ClusterState) -> None:
        """Say of each node whose files do not tell how it ended what the cluster tells, or that it is lost."""
        newest = latest_by_node(state.pods)
        for node, mirror in self._mirrors.items():
            standing = self._standing(node, mirror, newest.get(node), state)
            if standing.state is None or not standing.state.is_terminal:
                was_stopped = RunLayout(self._run_dir).stop_request.exists()
                standing = _end_without_record(node, mirror, newest.get(node), state, was_stopped=was_stopped)
            self._link(node, is_complete=True, last_contact=time.time(), standing=standing)


def _placement(run_dir: Path) -> Placement:
    path = RunLayout(run_dir).placement
    try:
        placement = msgspec.json.decode(path.read_bytes(), type=Placement)
    except (OSError, msgspec.MsgspecError) as error:
        raise UserError(f"The run {run_dir.name} has no usable {path.name}.", "Launch it again.") from error
    if placement.engine != "kubernetes":
        raise UserError(f"The run {run_dir.name} is not on Kubernetes.")
    return placement


def _end_without_record(
    node: str, mirror: NodeMirror, pod: PodStatus | None, state: ClusterState, *, was_stopped: bool
) -> NodeStanding:
    """Conclude how a node ended whose supervisor could not say it, from its pod and from what it printed."""
    seen = pod if pod is not None and pod.message else state
    message, hint = seen.message, seen.hint
    lost = RunState.FAILED if pod is not None and pod.state is RunState.FAILED else RunState.LOST
    if was_stopped:
        lost, message, hint = RunState.STOPPED, "Stopped on request, before its end could be read.", ""
    elif re.search(r"No module named '?core\b", mirror.last_other):
        message = "The image does not have Pilothouse's worker package."
        hint = "Build the image with the wheel pilothouse_worker in it: pilothouse image FOLDER"
    elif mirror.last_other:
        message = f"{message} It printed last: {mirror.last_other}".strip()
    return NodeStanding(
        node=node,
        is_there=pod is not None,
        state=lost,
        message=message or "The pod was deleted or lost before it told how the run ended.",
        hint=hint or "Launch the run again.",
        ended=time.time(),
        pids=(),
    )
