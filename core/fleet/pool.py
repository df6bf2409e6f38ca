"""One connection and one agent per host, made when needed, kept while wanted, and how each of them stands.

Whoever needs a host calls ``link`` or ``agent`` and waits, or learns in a sentence why not. A *watched* host has a keeper
thread: it connects, with growing pauses after failures, looks for signs of life, and takes its readings in. Being
unreachable is a state of the connection only; it says nothing of the runs on the host.
"""

from __future__ import annotations

import contextlib
import logging
import random
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from core.contracts import agent as said
from core.contracts.errors import Cancelled, PilothouseError
from core.contracts.hosts import LOCAL_HOST, Asker, HostRecord, HostStatus, LinkState, RuntimeRecord
from core.contracts.links import Link
from core.fleet.agent_client import AgentClient
from core.ssh.problems import Refused

if TYPE_CHECKING:
    from core.security.secrets import Secrets

_log = logging.getLogger("pilothouse.hosts")

OnStatus = Callable[[HostStatus], None]

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
PROBE_EVERY_S = 10.0
PROBE_LIMIT_S = 8.0


def pause_s(failures: int) -> float:
    """Return how long to wait after so many failures in a row: doubling, bounded, with a quarter of jitter."""
    whole = min(FIRST_PAUSE_S * 2 ** max(failures - 1, 0), LONGEST_PAUSE_S)
    return whole * random.uniform(0.75, 1.0)


class _Place:
    """One host: its connection, its agent, its status, and its keeper while somebody wants it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.connecting = threading.Lock()
        self.noting = threading.Lock()
        self.link: Link | None = None
        self.agent: AgentClient | None = None
        self.status = HostStatus(name=name)
        self.wanted = 0
        self.streaming: AgentClient | None = None
        self.keeper: threading.Thread | None = None
        self.wake = threading.Event()
        self.is_dropped = False


class HostPool:
    """The connections of one home. Thread-safe; everything but ``status`` may block: never on the UI thread.

    Args:
        hosts: Returns the record of a name; UserError when there is none.
        asker: Who is asked for unknown host keys and secrets.
        secrets: Where secrets are kept.
        known_hosts: Our own file of trusted host keys, in the home folder.
        config_file: The user's ssh config; None for OpenSSH's own places.
    """

    def __init__(
        self,
        hosts: Callable[[str], HostRecord],
        asker: Asker,
        secrets: Secrets,
        known_hosts: Path,
        config_file: Path | None = None,
    ) -> None:
        self._hosts = hosts
        self._asker = asker
        self._secrets = secrets
        self._known_hosts = known_hosts
        self._config_file = config_file
        self._lock = threading.Lock()
        self._places: dict[str, _Place] = {}
        self._callbacks: list[OnStatus] = []
        self._closing = threading.Event()

    def set_asker(self, asker: Asker) -> None:
        """Ask somebody else from now on; hosts that were refused are tried anew."""
        self._asker = asker
        for place in self._all():
            if place.status.state is LinkState.REFUSED:
                self._set(place, state=LinkState.IDLE, message="", hint="")
            place.wake.set()

    def record(self, name: str) -> HostRecord:
        """Return what is known of a host; this machine uses the Python and the home that run here."""
        if name != LOCAL_HOST:
            return self._hosts(name)
        runtime = RuntimeRecord(kind="interpreter", python=sys.executable)
        return HostRecord(name=LOCAL_HOST, work_dir=str(self._known_hosts.parent), runtime=runtime)

    def link(self, name: str) -> Link:
        """Return the open connection to a host, making it when there is none.

        Raises:
            EnvironmentProblem: It cannot be reached, or does not let us in.
            UserError: There is no such host.
            Cancelled: The pool was closed, or the host disconnected, meanwhile.
        """
        place = self._place(name)
        with place.connecting:
            if place.link is not None and place.link.is_alive():
                return place.link
            self._let_go(place)
            self._set(place, state=LinkState.CONNECTING, message="", hint="", next_try=None)
            try:
                place.link = self._connect(self.record(name), place)
            except PilothouseError as error:
                state = LinkState.REFUSED if isinstance(error, Refused) else LinkState.UNREACHABLE
                shown = LinkState.IDLE if isinstance(error, Cancelled) else state
                message = "" if isinstance(error, Cancelled) else error.message
                self._set(place, state=shown, message=message, hint=error.hint)
                raise
            self._set(place, state=LinkState.ONLINE, message="", hint="", next_try=None)
            return place.link

    def agent(self, name: str) -> AgentClient:
        """Return the running agent of a host, connecting and starting it when there is none.

        Raises:
            UserError: There is no such host, or it has no Python environment for runs.
            EnvironmentProblem: It cannot be reached, or its agent does not start.
        """
        place = self._place(name)
        link = self.link(name)
        with place.connecting:
            if place.agent is not None and place.agent.is_alive():
                return place.agent
            if place.agent is not None:
                self._assure(place, link)
            sink = self._sink(place) if place.wanted else None
            agent = place.agent = AgentClient.start(link, self.record(name), sink)
            place.streaming = agent if sink is not None else None
        self._set(place, latency_s=agent.latency_s, clock_skew_s=agent.clock_skew_s)
        agent.on_close(lambda fault: place.wake.set())
        place.wake.set()
        return agent

    def status(self, name: str) -> HostStatus:
        """Return how the connection to a host stands. Does not block."""
        place = self._places.get(name)
        return HostStatus(name=name) if place is None else place.status

    def on_status(self, callback: OnStatus) -> None:
        """Call back at every change of a status, on a background thread."""
        self._callbacks.append(callback)

    def watch(self, name: str) -> None:
        """Keep a host connected and its readings coming until ``unwatch``; returns at once. Calls add up."""
        place = self._place(name)
        with self._lock:
            place.wanted += 1
            if place.keeper is None:
                place.keeper = threading.Thread(target=self._keep, args=(place,), name=f"keeper of {name}", daemon=True)
                place.keeper.start()
        place.wake.set()

    def unwatch(self, name: str) -> None:
        """Take a ``watch`` back. The connection stays open for whoever needs it next."""
        place = self._place(name)
        with self._lock:
            place.wanted = max(place.wanted - 1, 0)
        place.wake.set()

    def disconnect(self, name: str) -> None:
        """Close the connection to a host; a watched one connects again, by its record as it is then."""
        place = self._places.get(name)
        if place is None:
            return
        place.is_dropped = True
        link = place.link
        if link is not None:
            link.close()  # whoever waits on it, holding the lock, ends
        with place.connecting:
            self._let_go(place)
            place.is_dropped = False
        self._set(place, state=LinkState.IDLE, message="", hint="", next_try=None)
        place.wake.set()

    def close(self) -> None:
        """Close all connections and end all keepers."""
        self._closing.set()
        for place in self._all():
            place.is_dropped = True
            place.wake.set()
            if place.link is not None:
                place.link.close()
        for place in self._all():
            if place.keeper is not None:
                place.keeper.join()
            with place.connecting:
                self._let_go(place)

    # -- one host --------------------------------------------------------------------------------------------------

    def _all(self) -> list[_Place]:
        with self._lock:
            return list(self._places.values())

    def _place(self, name: str) -> _Place:
        with self._lock:
            return self._places.setdefault(name, _Place(name))

    def _connect(self, record: HostRecord, place: _Place) -> Link:
        def is_cancelled() -> bool:
            return place.is_dropped or self._closing.is_set()

        if is_cancelled():
            raise Cancelled
        if record.name == LOCAL_HOST:
            from core.ssh.local import LocalLink

            return LocalLink()
        from core.ssh.connection import connect

        return connect(
            record,
            asker=self._asker,
            secrets=self._secrets,
            known_hosts=self._known_hosts,
            config_file=self._config_file,
            is_cancelled=is_cancelled,
        )

    def _assure(self, place: _Place, link: Link) -> None:
        """See that the host still answers after its agent was lost: a frozen one keeps its connections open for ever."""
        try:
            link.probe(PROBE_LIMIT_S)
        except PilothouseError as error:
            self._let_go(place)
            self._set(place, state=LinkState.UNREACHABLE, message=error.message, hint=error.hint)
            raise

    @staticmethod
    def _let_go(place: _Place) -> None:
        if place.agent is not None:
            place.agent.close()
            place.agent = None
        if place.link is not None:
            place.link.close()
            place.link = None

    def _set(self, place: _Place, **changes: object) -> None:
        with place.noting:
            before = place.status
            since = before.since if changes.get("state", before.state) is before.state else time.time()
            after = place.status = replace(before, **{"since": since, **changes})  # pyright: ignore[reportArgumentType]
        if after != before:
            for callback in list(self._callbacks):
                callback(place.status)  # of two threads here at once, the later one tells the same as the first

    def _sink(self, place: _Place) -> Callable[[said.Readings], None]:
        return lambda readings: self._set(place, readings=readings.values, readings_ts=readings.ts)

    def _keep(self, place: _Place) -> None:
        """Keep one host connected while it is wanted; one that does not let us in is left alone until somebody acts."""
        failures = 0
        while not self._closing.is_set():
            place.wake.clear()
            wait_s: float | None = None
            if place.wanted:
                failures = 0 if self._is_well_at_all(place) else failures + 1
                if not failures:
                    wait_s = PROBE_EVERY_S
                elif place.status.state is not LinkState.REFUSED:
                    wait_s = pause_s(failures)
                    self._set(place, next_try=time.time() + wait_s)
            else:
                self._stream(place, None)
            place.wake.wait(wait_s)

    def _stream(self, place: _Place, agent: AgentClient | None) -> None:
        """Have readings come from this agent, and from no other; a lost one has ended by itself."""
        before, place.streaming = place.streaming, agent
        if agent is not None and agent is not before:
            agent.telemetry(self._sink(place))
        elif agent is None and before is not None and before.is_alive():
            with contextlib.suppress(PilothouseError):
                before.telemetry(None)

    def _is_well_at_all(self, place: _Place) -> bool:
        try:
            return self._is_well(place)
        except Exception as error:  # noqa: BLE001 - the top frame of a keeper, which must go on
            _log.warning("Looking after %s failed: %s", place.name, error, exc_info=error)
            self._set(place, state=LinkState.UNREACHABLE, message=f"{type(error).__name__}: {error}", hint="")
            return False

    def _is_well(self, place: _Place) -> bool:
        """Connect if need be and look for a sign of life; return whether there was one."""
        try:
            link = self.link(place.name)
            if self.record(place.name).runtime.kind == "none":
                self._set(place, latency_s=link.probe(PROBE_LIMIT_S))
                return True
            agent = self.agent(place.name)
            self._stream(place, agent)
            latency_s = agent.ping(PROBE_LIMIT_S)
            self._set(place, latency_s=latency_s, clock_skew_s=agent.clock_skew_s)
        except Cancelled:
            return True
        except PilothouseError as error:
            with place.connecting:
                self._let_go(place)
            if place.status.state is not LinkState.REFUSED:
                self._set(place, state=LinkState.UNREACHABLE, message=error.message, hint=error.hint)
            return False
        return True
