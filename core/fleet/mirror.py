"""Brings what remote runs write to the mirrors of their run directories here, as long as they go on.

Per host one thread follows all its runs: it asks the pool for the agent, tells it how much is here already, and appends
what comes, exactly at the end of what is here (``core.fleet.node_mirror``). A lost connection is waited out with growing
pauses; meanwhile ``link.<node>.json`` says since when there was no answer. A node is done with when its host says that it
has ended and everything it wrote is here.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from core.contracts import agent as said
from core.contracts.errors import Cancelled, PilothouseError
from core.contracts.hosts import LOCAL_HOST, HostStatus, LinkState
from core.contracts.ids import RunId
from core.contracts.placement import Placement
from core.fleet.agent_client import AgentClient
from core.fleet.node_mirror import NodeMirrors
from core.fleet.pool import HostPool, pause_s
from core.runlog.placements import read_placement
from core.settings.home import Home
from core.ssh.problems import Refused

_log = logging.getLogger("pilothouse.mirror")
_BEAT_S = 2.0
_SILENT_S = 8.0

OnChange = Callable[[RunId], None]


class Mirror:
    """Follows remote runs of one home until closed. Thread-safe; ``follow`` returns at once."""

    def __init__(self, home: Home, pool: HostPool) -> None:
        self._home = home
        self._pool = pool
        self._lock = threading.Lock()
        self._hosts: dict[str, _HostMirror] = {}
        self._callbacks: list[OnChange] = []
        self._is_closed = False

    def on_change(self, callback: OnChange) -> None:
        """Call back with a run's id when something new of it is here; on background threads, a few times a second at most."""
        self._callbacks.append(callback)

    def follow(self, run_dir: Path) -> None:
        """Bring a run here from now on, until its nodes have ended; nothing happens for one that is on no host."""
        placement = read_placement(run_dir)
        if placement is None:
            return
        for host, nodes in _nodes_of(placement, run_dir).items():
            with self._lock:
                if self._is_closed:
                    return
                mirror = self._hosts.get(host)
                if mirror is None:
                    mirror = self._hosts[host] = _HostMirror(host, self._pool, self._tell)
            mirror.add(run_dir, nodes, placement)

    def unfollow(self, run_id: RunId) -> None:
        """Bring no more of a run here."""
        for mirror in self._all():
            mirror.drop(run_id)

    def catch_up(self, run_id: RunId, timeout_s: float) -> bool:
        """Wait until everything that a run had written at the time of the call is here; return whether it is.

        Args:
            run_id: The run; it is followed from now on.
            timeout_s: Longest wait in seconds; a host that cannot be reached makes it False.
        """
        run_dir = self._home.run_dir(run_id)
        placement = read_placement(run_dir)
        if placement is None:
            return True
        began = time.time()
        self.follow(run_dir)
        deadline = time.monotonic() + timeout_s
        hosts = _nodes_of(placement, run_dir)
        return all(self._hosts[host].wait(run_id, began, deadline) for host in hosts if host in self._hosts)

    def close(self) -> None:
        """Follow nothing any more; returns when all threads have ended."""
        with self._lock:
            self._is_closed = True
        for mirror in self._all():
            mirror.close()

    def _all(self) -> list[_HostMirror]:
        with self._lock:
            return list(self._hosts.values())

    def _tell(self, run_id: RunId) -> None:
        for callback in list(self._callbacks):
            callback(run_id)


def _nodes_of(placement: Placement, run_dir: Path) -> dict[str, tuple[str, ...]]:
    """Return the nodes to mirror by the host whose agent can read them; those that write right here need none."""
    found: dict[str, tuple[str, ...]] = {}
    for placed in placement.nodes:
        is_here = not placed.host or (placed.host == LOCAL_HOST and Path(placed.run_dir) == run_dir)
        if not is_here and placement.engine != "kubernetes":
            found[placed.host] = (*found.get(placed.host, ()), placed.node)
    return found


class _HostMirror:
    """Follows the runs of one host, on a thread of its own."""

    def __init__(self, host: str, pool: HostPool, tell: OnChange) -> None:
        self._host = host
        self._pool = pool
        self._tell = tell
        self._state = threading.Condition()
        self._runs: dict[RunId, NodeMirrors] = {}
        self._is_new: set[RunId] = set()
        self._leaving: set[RunId] = set()
        self._is_poked = False
        self._is_closed = False
        self._is_refused = False
        self._failures = 0
        self._last_sign = time.monotonic()
        self._thread = threading.Thread(target=self._loop, name=f"mirror of {host}", daemon=True)
        self._thread.start()
        pool.on_status(self._heed)

    def add(self, run_dir: Path, nodes: tuple[str, ...], placement: Placement) -> None:
        """Follow a run here; one that is followed already by this placement goes on undisturbed."""
        run_id = RunId(run_dir.name)
        with self._state:
            known = self._runs.get(run_id)
            if known is not None and known.placement == placement:
                return
            if known is not None:
                known.close()
            self._runs[run_id] = NodeMirrors(run_dir, nodes, placement)
            self._is_new.add(run_id)
            self._poke()

    def _poke(self, *_: object) -> None:
        """Have the thread look at once."""
        with self._state:
            self._is_poked = True
            self._state.notify_all()

    def _heed(self, status: HostStatus) -> None:
        """Go on with a host that refused us, once somebody did something about it."""
        if self._is_refused and status.name == self._host and status.state in (LinkState.ONLINE, LinkState.IDLE):
            self._poke()

    def drop(self, run_id: RunId) -> None:
        """Follow a run no more."""
        with self._state:
            known = self._runs.pop(run_id, None)
            self._leaving.add(run_id)
            self._poke()
        if known is not None:
            known.close()

    def wait(self, run_id: RunId, since: float, deadline: float) -> bool:
        """Wait until all that was written before ``since`` (Unix seconds) is here."""
        with self._state:
            if run_id in self._runs:
                self._is_new.add(run_id)  # asked for again, it is read and judged at once
                self._poke()
            return self._state.wait_for(
                lambda: (known := self._runs.get(run_id)) is None or known.is_here(since) or self._is_closed,
                max(deadline - time.monotonic(), 0.0),
            )

    def close(self) -> None:
        """End the thread."""
        with self._state:
            self._is_closed = True
            self._state.notify_all()
        self._thread.join()
        for known in self._runs.values():
            known.close()

    # -- the thread ------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        agent: AgentClient | None = None
        while not self._is_closed:
            self._is_poked = self._is_refused = False
            held = agent
            try:
                agent = self._attend(agent)
            except Cancelled:
                agent = None
            except Exception as error:  # noqa: BLE001 - the top frame of this thread: whatever it is, it is tried again
                agent = None
                if held is not None:
                    held.close()
                self._note_fault(error)
                self._is_refused = isinstance(error, Refused)  # the user is not asked again and again
            with self._state:
                wait_s = _BEAT_S if agent is not None or not self._runs else pause_s(max(self._failures, 1))
                wait_s = None if self._is_refused else wait_s
                self._state.wait_for(lambda: self._is_closed or self._is_poked, wait_s)

    def _attend(self, before: AgentClient | None) -> AgentClient | None:
        """Follow what is new with the agent there is, or all with a new one; forget what is done with."""
        self._forget_finished()
        self._leave(before)
        with self._state:
            runs, fresh = dict(self._runs), set(self._is_new)
        if not runs:
            return None
        agent = self._pool.agent(self._host)
        if agent is before:
            if time.monotonic() - self._last_sign > _SILENT_S:
                agent.ping()
                self._last_sign = time.monotonic()
        else:
            fresh = set(runs)
            agent.ping()  # how the clocks differ, before times of the host are judged
            self._last_sign = time.monotonic()
            agent.on_close(self._poke)
        for run_id in fresh & runs.keys():
            self._follow(agent, run_id, runs[run_id])
        for run_id, mirrors in runs.items():
            if agent is before and run_id not in fresh and mirrors.wants_restart():
                self._follow(agent, run_id, mirrors)
        self._failures = 0
        return agent

    def _follow(self, agent: AgentClient, run_id: RunId, mirrors: NodeMirrors) -> None:
        """Ask for a run from where its mirror ends; another process that mirrors it already is left to it."""
        with self._state:
            self._is_new.discard(run_id)
        try:
            if not mirrors.take_over():
                return
            offsets = mirrors.offsets()
        except OSError as error:  # of this run's folder here; the host's other runs must go on
            self._note_unwritable(mirrors, error)
            return
        agent.follow(run_id, mirrors.nodes, offsets, lambda message: self._take(agent, mirrors, message))

    def _take(self, agent: AgentClient, mirrors: NodeMirrors, message: said.OfRun) -> None:
        self._last_sign = time.monotonic()
        try:
            is_news = mirrors.take(message, agent.clock_skew_s)
        except OSError as error:
            self._note_unwritable(mirrors, error)
            return
        with self._state:
            self._state.notify_all()
        if is_news:
            self._tell(mirrors.run_id)

    @staticmethod
    def _note_unwritable(mirrors: NodeMirrors, error: OSError) -> None:
        if not mirrors.has_vanished():
            _log.warning("The run %s cannot be brought here: %s", mirrors.run_id, error.strerror or error)
        mirrors.restart()

    def _forget_finished(self) -> None:
        with self._state:
            finished = [
                run_id for run_id, mirrors in self._runs.items() if mirrors.has_vanished() or mirrors.is_finished()
            ]
            for run_id in finished:
                self._runs.pop(run_id).close()
            self._leaving.update(finished)
        for run_id in finished:
            self._tell(run_id)

    def _leave(self, agent: AgentClient | None) -> None:
        """Have the agent push no more of runs that are followed no longer; one that has ended forgot them with all else."""
        with self._state:
            leaving, self._leaving = self._leaving - self._runs.keys(), set()
        for run_id in leaving:
            if agent is not None and agent.is_alive():
                agent.unfollow(run_id)

    def _note_fault(self, error: Exception) -> None:
        self._failures += 1
        known = isinstance(error, (PilothouseError, OSError))
        if not known:
            _log.warning("Following runs on %s failed: %s", self._host, error, exc_info=error)
        message = error.message if isinstance(error, PilothouseError) else str(error)
        with self._state:
            runs = list(self._runs.values())
        for mirrors in runs:
            with contextlib.suppress(OSError):
                if mirrors.note_silence(message):
                    self._tell(mirrors.run_id)
