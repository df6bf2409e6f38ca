"""The queue of a host without a daemon: waiting supervisors take leases of its devices, first come first served.

In ``<home>/queue/<host name>/`` lie a ticket for each run that waits for devices or holds some, and a lease file for each
device, held by ``flock`` by the supervisor and its worker: once both are gone, however they went, the devices are free.
Whoever changes anything holds ``lock`` meanwhile. A ticket whose process is gone counts for nothing and is swept away.

A run on several hosts takes them one after the other, in the order of their own names (see ``core.jobs.peers``), and its
ticket counts only once it is its turn: so two such runs can never wait for each other. A run that does not queue never
waits; it shares the leases of what it uses, so that queued ones wait for its end.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import re
import time
from collections.abc import Generator
from pathlib import Path

import msgspec

from core.contracts.errors import UserError
from core.contracts.hosts import QueueEntry
from core.jobs.devices import CPU, DeviceRequest
from core.jobs.identity import ProcessIdentity, is_alive, own_identity
from core.jobs.records import read_record, write_record

QUEUE_FOLDER = "queue"


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """One run's place in the queue of a host.

    Attributes:
        owner: The supervisor that waits or holds.
        order: Those with a lower one come first.
        since: Unix seconds at which it was queued, or took its devices.
        exact: Names of the devices asked for; empty when any ``count`` will do.
        has_turn: It may take devices; false while other hosts of the run come first.
        held: Devices it holds.
    """

    run_id: str
    node: str
    name: str
    owner: ProcessIdentity
    order: float
    since: float
    exact: tuple[str, ...] = ()
    count: int = 1
    has_turn: bool = True
    held: tuple[str, ...] = ()

    @property
    def request(self) -> DeviceRequest:
        """What it asks for."""
        return DeviceRequest(self.exact, self.count)


def queue_folder(home: Path) -> Path:
    """Return the folder of this host's queue: one home may be shared by several hosts."""
    return home / QUEUE_FOLDER / (re.sub(r"[^A-Za-z0-9._-]", "_", platform.node()) or "host")


@contextlib.contextmanager
def _locked(folder: Path) -> Generator[None]:
    (folder / "tickets").mkdir(parents=True, exist_ok=True)
    (folder / "devices").mkdir(exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _tickets(folder: Path) -> list[tuple[Path, Ticket]]:
    """Return the tickets whose owners live, in order; the others are removed. Call with the queue locked."""
    found: list[tuple[Path, Ticket]] = []
    for path in (folder / "tickets").glob("*.json"):
        ticket = read_record(path, Ticket)
        if ticket is None or not is_alive(ticket.owner):
            path.unlink(missing_ok=True)
        else:
            found.append((path, ticket))
    return sorted(found, key=lambda pair: (pair[1].order, pair[1].run_id, pair[1].node))


def _waiting(folder: Path) -> list[tuple[Path, Ticket]]:
    return [(path, ticket) for path, ticket in _tickets(folder) if not ticket.held]


def entries(home: Path) -> tuple[QueueEntry, ...]:
    """Return who holds devices of this host and who waits for some, in order.

    Args:
        home: The Pilothouse home on this host.

    Raises:
        OSError: The queue's folder cannot be read.
    """
    folder = queue_folder(home)
    if not folder.is_dir():
        return ()
    with _locked(folder):
        tickets = [ticket for _, ticket in _tickets(folder)]
    holders = [_entry(ticket, 0) for ticket in tickets if ticket.held]
    waiting = [ticket for ticket in tickets if not ticket.held]
    return (*holders, *(_entry(ticket, position) for position, ticket in enumerate(waiting, start=1)))


def _entry(ticket: Ticket, position: int) -> QueueEntry:
    devices = tuple(int(name) for name in ticket.held if name != CPU)
    return QueueEntry(
        run_id=ticket.run_id,
        name=ticket.name,
        position=position,
        asked=ticket.count,
        devices=devices,
        since=ticket.since,
    )


def move(home: Path, run_id: str, position: int) -> None:
    """Give a waiting run another place in the queue of this host.

    Args:
        home: The Pilothouse home on this host.
        run_id: The run.
        position: 1 for the first of those that wait.

    Raises:
        UserError: The run does not wait here.
        OSError: The queue's folder cannot be written.
    """
    folder = queue_folder(home)
    with _locked(folder):
        waiting = _waiting(folder)
        moved = next((pair for pair in waiting if pair[1].run_id == run_id), None)
        if moved is None:
            raise UserError(f"The run {run_id} does not wait in the queue of this host.", "List the queue again.")
        others = [ticket.order for path, ticket in waiting if path != moved[0]]
        index = min(max(position - 1, 0), len(others))
        before = others[index - 1] if index > 0 else None
        after = others[index] if index < len(others) else None
        write_record(moved[0], msgspec.structs.replace(moved[1], order=_between(before, after, moved[1].order)))


def _between(before: float | None, after: float | None, present: float) -> float:
    if before is None:
        return present if after is None else after - 1.0
    return before + 1.0 if after is None else (before + after) / 2


def waiting_sentence(request: DeviceRequest, ahead: int) -> str:
    """Return what a run waits for and how many come first."""
    what = "the host to be free" if request.wants_cpu else "a free GPU"
    if not request.wants_cpu and request.count > 1:
        what = f"{request.count} free GPUs"
    if not request.wants_cpu and request.exact:
        plural = "s" if len(request.exact) > 1 else ""
        what = f"GPU{plural} {', '.join(request.exact)}"
    return f"Waits for {what}: {ahead} ahead." if ahead else f"Waits for {what}: next in line."


class Lease:
    """One supervisor's place in the queue of its host and what it holds. One thread; never blocks for long.

    Args:
        home: The Pilothouse home on this host.
        run_id: The run.
        node: Its node here.
        name: Its name, for people.
    """

    def __init__(self, home: Path, run_id: str, node: str, name: str) -> None:
        self._folder = queue_folder(home)
        self._path = self._folder / "tickets" / f"{run_id}.{node}.json"
        self._run_id, self._node, self._name = run_id, node, name
        self._descriptors: list[int] = []
        self.held: tuple[str, ...] = ()

    def enqueue(self, request: DeviceRequest, *, has_turn: bool) -> None:
        """Draw a ticket; OSError when the folder cannot be written."""
        with _locked(self._folder):
            self._write(request, has_turn=has_turn, order=time.time())

    def _write(self, request: DeviceRequest, *, has_turn: bool, order: float, since: float | None = None) -> None:
        ticket = Ticket(
            run_id=self._run_id,
            node=self._node,
            name=self._name,
            owner=own_identity(),
            order=order,
            since=time.time() if since is None else since,
            exact=request.exact,
            count=request.count,
            has_turn=has_turn,
            held=self.held,
        )
        write_record(self._path, ticket)

    def take(self, request: DeviceRequest, devices: tuple[str, ...], *, has_turn: bool) -> int:
        """Take the devices if it is this run's turn and they are free.

        Args:
            request: What is asked for.
            devices: Names of the host's GPUs.
            has_turn: The run's other hosts do not come first.

        Returns:
            How many come first; ``held`` tells whether the devices were taken.
        """
        with _locked(self._folder):
            tickets = _waiting(self._folder)
            own = next((ticket for path, ticket in tickets if path == self._path), None)
            order = time.time() if own is None else own.order
            ahead = [
                ticket
                for path, ticket in tickets
                if path != self._path and ticket.order < order and ticket.request.conflicts_with(request)
            ]
            if has_turn and not any(ticket.has_turn for ticket in ahead):
                self._lock(request.exact or devices, request.count, fcntl.LOCK_EX)
            if own is None or self.held or own.has_turn != has_turn:
                since = None if own is None or self.held else own.since
                self._write(request, has_turn=has_turn, order=order, since=since)
        return len(ahead)

    def share(self, request: DeviceRequest) -> None:
        """Hold what is used together with others that do not queue; never waits, never refuses."""
        with _locked(self._folder):
            self._lock(request.exact, 1, fcntl.LOCK_SH)
            if self.held:
                self._write(request, has_turn=True, order=time.time())

    def _lock(self, names: tuple[str, ...], count: int, mode: int) -> None:
        """Lock ``count`` of the devices, or all that can be when they are shared; none when there are too few."""
        held: list[str] = []
        for name in names:
            descriptor = os.open(
                self._folder / "devices" / f"{name}.lease", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644
            )
            try:
                fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
            except OSError:
                os.close(descriptor)
                continue
            self._descriptors.append(descriptor)
            held.append(name)
            if mode == fcntl.LOCK_EX and len(held) == count:
                break
        self.held = tuple(held)
        if len(held) < count:
            self._let_go()

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What keeps the devices held; a process that inherits them holds the devices too."""
        return tuple(self._descriptors)

    def _let_go(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []
        self.held = ()

    def release(self) -> None:
        """Free the devices and leave the queue. Raises nothing."""
        self._let_go()
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
