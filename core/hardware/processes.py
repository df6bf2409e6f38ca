"""What the process trees of a run use: processor, memory, processes, threads, disk traffic.

Scanning all of /proc is the dear way (psutil's ``children(recursive=True)``: milliseconds, growing with the machine).
On Linux the children are read from ``/proc/PID/task/*/children`` and the numbers from file descriptors kept open, which
also makes a reused pid harmless. Elsewhere psutil does it. Searching for new children is rationed by what it costs.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import psutil

from core.contracts.telemetry import Sample
from core.hardware.reading import attempt

SEARCH_SHARE = 0.0025
"""Part of one core that the search for new children may cost."""

MAX_KEPT_PROCESSES = 256
_PROC = Path("/proc")


class ProcessTree(Protocol):
    """Reads process trees by the pids of their roots. Thread: any one at a time."""

    @property
    def pids(self) -> frozenset[int]:
        """All processes of the trees at the last reading."""
        ...

    def read(self, roots: tuple[int, ...], now: float) -> Sample:
        """Return the ``run.*`` readings at ``now`` (monotonic seconds); rates are None for a root's first reading."""
        ...

    def close(self) -> None:
        """Let go of what is held open."""
        ...


def process_tree() -> ProcessTree:
    """Return the cheapest reader that works here."""
    children = _PROC / "self" / "task" / str(threading.get_native_id()) / "children"
    if sys.platform == "linux" and children.exists():
        return LinuxProcessTree()
    return PortableProcessTree()


class _Member:
    """One process of a tree and its counters at the last reading; what it used before the first one is not counted."""

    __slots__ = ("cpu_s", "read_bytes", "written_bytes")

    def __init__(self) -> None:
        self.cpu_s: float | None = None
        self.read_bytes: float | None = None
        self.written_bytes: float | None = None


class _Totals:
    """Sums the members of one reading."""

    def __init__(self) -> None:
        self.cpu_s = 0.0
        self.read_bytes = 0.0
        self.written_bytes = 0.0
        self.rss_bytes = 0.0
        self.threads = 0
        self.processes = 0
        self.has_io = False

    def add(self, member: _Member, cpu_s: float, rss_bytes: float, threads: int) -> None:
        """Count one process: its share since last time, and what it holds."""
        self.processes += 1
        self.threads += threads
        self.rss_bytes += rss_bytes
        if member.cpu_s is not None:
            self.cpu_s += max(0.0, cpu_s - member.cpu_s)
        member.cpu_s = cpu_s

    def add_io(self, member: _Member, read_bytes: float, written_bytes: float) -> None:
        """Count one process's disk traffic."""
        self.has_io = True
        if member.read_bytes is not None and member.written_bytes is not None:
            self.read_bytes += max(0.0, read_bytes - member.read_bytes)
            self.written_bytes += max(0.0, written_bytes - member.written_bytes)
        member.read_bytes, member.written_bytes = read_bytes, written_bytes

    def sample(self, elapsed_s: float | None) -> Sample:
        """Return the readings; shared pages count in every process that maps them."""
        known = elapsed_s is not None and elapsed_s > 0
        span = elapsed_s if known and elapsed_s else 1.0
        return {
            "run.cpu_percent": self.cpu_s / span * 100.0 if known else None,
            "run.rss_bytes": self.rss_bytes,
            "run.processes": float(self.processes),
            "run.threads": float(self.threads),
            "run.read_bytes_per_s": self.read_bytes / span if known and self.has_io else None,
            "run.write_bytes_per_s": self.written_bytes / span if known and self.has_io else None,
        }


class _Search:
    """Decides when to look for new children: at once for new roots, else as often as ``SEARCH_SHARE`` allows."""

    def __init__(self) -> None:
        self.roots: tuple[int, ...] = ()
        self.last_reading: float | None = None
        self._due = 0.0

    def elapsed(self, roots: tuple[int, ...], now: float) -> float | None:
        """Return the seconds since the last reading of the same roots, None for the first."""
        before = self.last_reading if roots == self.roots else None
        self.last_reading = now
        return None if before is None else now - before

    def is_due(self, roots: tuple[int, ...], now: float) -> bool:
        """Tell whether to search now."""
        return roots != self.roots or now >= self._due

    def done(self, roots: tuple[int, ...], now: float, cost_s: float) -> None:
        """Note what the search cost."""
        self.roots = roots
        self._due = now + cost_s / SEARCH_SHARE


class _LinuxMember(_Member):
    """A process with its files under /proc kept open, so that they never speak of another process."""

    __slots__ = ("io_fd", "stat_fd")

    def __init__(self, pid: int) -> None:
        super().__init__()
        self.stat_fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.io_fd: int | None = os.open(f"/proc/{pid}/io", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self.io_fd = None

    def close(self) -> None:
        """Close its files."""
        os.close(self.stat_fd)
        if self.io_fd is not None:
            os.close(self.io_fd)


class LinuxProcessTree:
    """Reads trees through /proc; see the module's docstring. At most ``MAX_KEPT_PROCESSES`` are followed."""

    def __init__(self) -> None:
        self._members: dict[int, _LinuxMember] = {}
        self._search = _Search()
        self._tick_s = 1.0 / os.sysconf("SC_CLK_TCK")
        self._page_bytes = os.sysconf("SC_PAGE_SIZE")

    @property
    def pids(self) -> frozenset[int]:
        """All processes of the trees at the last reading."""
        return frozenset(self._members)

    def read(self, roots: tuple[int, ...], now: float) -> Sample:
        """Return the ``run.*`` readings."""
        elapsed = self._search.elapsed(roots, now)
        if self._search.is_due(roots, now):
            begin = time.thread_time()
            self._update(_descendants(roots))
            self._search.done(roots, now, time.thread_time() - begin)
        totals = _Totals()
        for pid, member in list(self._members.items()):
            try:
                self._read_member(member, totals)
            except (ProcessLookupError, ValueError, IndexError):
                self._drop(pid)
        return totals.sample(elapsed)

    def _read_member(self, member: _LinuxMember, totals: _Totals) -> None:
        text = os.pread(member.stat_fd, 1024, 0)
        # The program's name may hold spaces and brackets: the numbers begin after the last bracket.
        fields = text[text.rindex(b")") + 2 :].split()
        if fields[0] == b"Z":
            raise ProcessLookupError
        cpu_s = (int(fields[11]) + int(fields[12])) * self._tick_s
        totals.add(member, cpu_s, int(fields[21]) * self._page_bytes, int(fields[17]))
        if member.io_fd is None:
            return
        with suppress(OSError):
            lines = dict(line.split(b": ") for line in os.pread(member.io_fd, 1024, 0).splitlines())
            totals.add_io(member, float(lines[b"read_bytes"]), float(lines[b"write_bytes"]))

    def _update(self, pids: list[int]) -> None:
        for pid in self._members.keys() - set(pids):
            self._drop(pid)
        for pid in pids[:MAX_KEPT_PROCESSES]:
            if pid not in self._members:
                with suppress(OSError):
                    self._members[pid] = _LinuxMember(pid)

    def _drop(self, pid: int) -> None:
        self._members.pop(pid).close()

    def close(self) -> None:
        """Close all files."""
        for pid in list(self._members):
            self._drop(pid)


def _descendants(roots: tuple[int, ...]) -> list[int]:
    """Return the roots and all processes below them, parents first, by /proc/PID/task/*/children."""
    found: list[int] = []
    seen: set[int] = set()
    frontier = list(roots)
    while frontier:
        pid = frontier.pop(0)
        if pid in seen:
            continue
        seen.add(pid)
        try:
            threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208 - pathlib would double the cost
        except OSError:
            continue
        found.append(pid)
        for thread in threads:
            with suppress(OSError):
                frontier.extend(_children_of_thread(pid, thread))
    return found


def _children_of_thread(pid: int, thread: str) -> map[int]:
    descriptor = os.open(f"/proc/{pid}/task/{thread}/children", os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = b""
        while block := os.read(descriptor, 1 << 16):
            text += block
    finally:
        os.close(descriptor)
    return map(int, text.split())


class PortableProcessTree:
    """Reads trees through psutil, with its objects kept between readings."""

    def __init__(self) -> None:
        self._members: dict[psutil.Process, _Member] = {}
        self._search = _Search()

    @property
    def pids(self) -> frozenset[int]:
        """All processes of the trees at the last reading."""
        return frozenset(process.pid for process in self._members)

    def read(self, roots: tuple[int, ...], now: float) -> Sample:
        """Return the ``run.*`` readings."""
        elapsed = self._search.elapsed(roots, now)
        if self._search.is_due(roots, now):
            begin = time.thread_time()
            self._update(roots)
            self._search.done(roots, now, time.thread_time() - begin)
        totals = _Totals()
        for process, member in list(self._members.items()):
            if attempt(lambda process=process, member=member: self._read_member(process, member, totals)) is None:
                del self._members[process]
        return totals.sample(elapsed)

    def _read_member(self, process: psutil.Process, member: _Member, totals: _Totals) -> bool:
        with process.oneshot():
            if process.status() == psutil.STATUS_ZOMBIE:
                raise psutil.ZombieProcess(process.pid)
            times = process.cpu_times()
            totals.add(member, times.user + times.system, float(process.memory_info().rss), process.num_threads())
            # macOS has no io_counters (hence the look-up inside the attempt); another user's process may refuse them.
            counters = attempt(lambda: process.io_counters())  # noqa: PLW0108
        if counters is not None:
            totals.add_io(member, float(counters.read_bytes), float(counters.write_bytes))
        return True

    def _update(self, roots: tuple[int, ...]) -> None:
        alive: dict[psutil.Process, _Member] = {}
        for pid in roots:
            root = attempt(lambda pid=pid: psutil.Process(pid))
            if root is None:
                continue
            for process in (root, *(attempt(lambda root=root: root.children(recursive=True)) or ())):
                # psutil's equality is pid and start time, so a reused pid is a new member.
                alive[process] = self._members.get(process) or _Member()
        self._members = alive

    def close(self) -> None:
        """Forget the processes."""
        self._members.clear()
