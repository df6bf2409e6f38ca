"""The mirror of the nodes of one run that are on one host: files that grow exactly as they do there.

What comes is appended only where it continues what is here; anything else is asked for anew. So a window that is killed
at any moment, two windows, and lost connections all leave a byte-exact prefix. Of several processes that would mirror the
same nodes one does, held by a lock that the kernel drops with the process; the others read.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path

import msgspec

from core.contracts import agent as said
from core.contracts.ids import RunId
from core.contracts.mirrors import LinkRecord
from core.contracts.placement import Placement
from core.jobs.pushing import NodeFiles
from core.jobs.reconcile import START_LIMIT_S
from core.jobs.records import read_record, write_record
from core.runlog.layout import ENVIRONMENT, RunLayout

_NOTE_EVERY_S = 2.0
_LEAVE_S = 10.0
"""Processes of an ended node that are there for longer are left over; they are shown, and not waited for."""


class NodeMirrors:
    """Nodes of one run on one host. Thread-safe.

    Attributes:
        run_id: The run.
        nodes: Their names.
        placement: The run's placement that they belong to.
    """

    def __init__(self, run_dir: Path, nodes: tuple[str, ...], placement: Placement) -> None:
        self.run_id = RunId(run_dir.name)
        self.nodes = nodes
        self.placement = placement
        self._run_dir = run_dir
        self._layout = RunLayout(run_dir)
        self._files = NodeFiles(nodes)
        self._lock = threading.RLock()
        self._lock_fd = -1
        self._links = {node: read_record(self._layout.link(node), LinkRecord) or LinkRecord() for node in nodes}
        self._noted = 0.0
        self._must_restart = False
        self._contact = 0.0
        self._ended: dict[str, float] = {}
        self._caught_up = 0.0

    def _read_link(self, node: str) -> LinkRecord:
        """Return what was noted of a node; the end of an earlier attempt completes nothing of this one.

        Neither does a folder that was not there: it is asked for again.
        """
        link = read_record(self._layout.link(node), LinkRecord) or LinkRecord()
        said_last = link.standing
        is_ours = said_last is not None and said_last.is_there and self._is_of_this_placement(said_last)
        return link if is_ours else msgspec.structs.replace(link, is_complete=False)

    def _is_of_this_placement(self, standing: said.NodeStanding) -> bool:
        """Tell whether a judgement is about this placement; a run that was paused has later attempts in it, too."""
        return not standing.attempt or standing.attempt >= self.placement.attempt

    def take_over(self) -> bool:
        """Become the process that writes these mirrors; False while another is."""
        import fcntl

        with self._lock:
            if self._lock_fd >= 0:
                return True
            self._layout.control.mkdir(exist_ok=True)
            path = self._layout.control / f"mirror.{self.nodes[0]}.lock"
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(descriptor)
                self._must_restart = True  # tried again at the next beat: the other process may have ended
                return False
            self._lock_fd = descriptor
            self._must_restart = False
            # The other process may have gone on since this object was made.
            self._links = {node: self._read_link(node) for node in self.nodes}
            return True

    def close(self) -> None:
        """Let another process take over."""
        with self._lock:
            if self._lock_fd >= 0:
                os.close(self._lock_fd)
                self._lock_fd = -1

    def offsets(self) -> dict[str, int]:
        """Return how much of each of the host's files is here, in offsets of the host's files."""
        found: dict[str, int] = {}
        for path in self._run_dir.iterdir():
            if (node := self._files.node_of_stream(path.name)) is not None:
                start = self._links[node].stdout_start if path == self._layout.stdout(node) else 0
                found[path.name] = start + path.stat().st_size
        return found

    def take(self, message: said.OfRun, clock_skew_s: float) -> bool:
        """Take in what the agent pushed; return whether a reader of the run would see something new.

        Args:
            message: What came.
            clock_skew_s: The host's clock minus ours.

        Raises:
            OSError: It cannot be written here.
        """
        with self._lock:
            if self._lock_fd < 0:
                return False
            self._contact = time.time()
            if isinstance(message, said.CaughtUp):
                if not self._must_restart:
                    self._caught_up = message.began - clock_skew_s
                return self._catch_up(message)
            if isinstance(message, said.Unread):
                return self.note_silence(message.message)
            if message.is_record:
                return self._record(message)
            return self._append(message)

    def _record(self, chunk: said.FileChunk) -> bool:
        """Replace a record. What is no record of our nodes is not taken: a host writes nowhere else here."""
        is_head = self.placement.head.node in self.nodes
        if not self._files.is_record(chunk.name) or (chunk.name == ENVIRONMENT and not is_head):
            return False
        path = self._run_dir / chunk.name
        partial = path.with_name(f".{path.name}.partial")
        partial.write_bytes(chunk.data)
        partial.replace(path)
        return True

    def _append(self, chunk: said.FileChunk) -> bool:
        node = self._files.node_of_stream(chunk.name)
        if node is None or self._must_restart:
            return False
        path = self._run_dir / chunk.name
        is_stdout = path == self._layout.stdout(node)
        with path.open("ab") as file:
            here = file.tell()
            start = self._links[node].stdout_start if is_stdout else 0
            if chunk.restart:
                file.truncate(0)
                start, here = chunk.offset, 0
            known = start + here - chunk.offset  # bytes of the chunk that are here already: it was asked for twice
            if known < 0:
                self._must_restart = True
                return False
            if known >= len(chunk.data):
                return False
            # Kept before the bytes: a death in between leaves an empty file that begins where the record says.
            if is_stdout:
                link = msgspec.structs.replace(self._links[node], stdout_start=start, stdout_bytes=chunk.size)
                self._links[node] = link
                if chunk.restart:
                    write_record(self._layout.link(node), link)
            file.write(chunk.data[known:])
        return True

    def _catch_up(self, message: said.CaughtUp) -> bool:
        """Note where the nodes stand; everything they had written when they were judged is here."""
        is_news = False
        now = time.time()
        for standing in message.standings:
            if standing.node not in self._links:
                continue
            before = self._links[standing.node]
            after = msgspec.structs.replace(
                before,
                last_contact=now,
                is_reachable=True,
                message="",
                standing=standing,
                is_complete=self._is_over(standing) and not self._must_restart,
            )
            self._links[standing.node] = after
            is_changed = (
                before.standing != standing or not before.is_reachable or before.is_complete != after.is_complete
            )
            if is_changed or now - self._noted >= _NOTE_EVERY_S:
                write_record(self._layout.link(standing.node), after)
            is_news = is_news or is_changed
        self._noted = now
        return is_news

    def _is_over(self, standing: said.NodeStanding) -> bool:
        """Tell whether nothing more will come. A launch makes the folder here first, so that one there may be yet to come."""
        if not standing.is_there:
            return time.time() - self._layout.spec.stat().st_mtime > START_LIMIT_S
        return standing.state is not None and standing.state.is_terminal and self._is_gone(standing)

    def _is_gone(self, standing: said.NodeStanding) -> bool:
        """Tell whether an ended node has no process left, or keeps them: the supervisor itself is the last to leave."""
        if not standing.pids:
            return True
        return time.monotonic() - self._ended.setdefault(standing.node, time.monotonic()) > _LEAVE_S

    def note_silence(self, message: str) -> bool:
        """Note that the host does not answer, and why; return whether that is news."""
        with self._lock:
            is_news = False
            if self._lock_fd < 0:
                return False
            for node, before in self._links.items():
                after = msgspec.structs.replace(before, is_reachable=False, message=message)
                if self._contact and (before.last_contact or 0.0) < self._contact:
                    after = msgspec.structs.replace(after, last_contact=self._contact)
                if after != before:
                    self._links[node] = after
                    write_record(self._layout.link(node), after)
                    is_news = True
            return is_news

    def restart(self) -> None:
        """Have everything beyond what is here sent anew, at the next beat."""
        self._must_restart = True

    def wants_restart(self) -> bool:
        """Return whether what comes does not continue what is here, and clear that."""
        with self._lock:
            wanted, self._must_restart = self._must_restart, False
            return wanted

    def is_here(self, since: float) -> bool:
        """Return whether all that the nodes had written at ``since`` (Unix seconds, our clock) is here."""
        with self._lock:
            if self._lock_fd >= 0:
                return self._caught_up >= since or all(link.is_complete for link in self._links.values())
            self._reread()  # another process mirrors: its notes tell, and are a beat old
            return all(
                link.is_complete or ((link.last_contact or 0.0) >= since + 2 * _NOTE_EVERY_S and link.is_reachable)
                for link in self._links.values()
            )

    def _reread(self) -> None:
        for node in self.nodes:
            with contextlib.suppress(OSError):
                self._links[node] = self._read_link(node)

    def has_vanished(self) -> bool:
        """Return whether the run directory here is gone: deleted, by another process or by hand."""
        return not self._run_dir.is_dir()

    def is_finished(self) -> bool:
        """Return whether all nodes have ended in the present attempt and all they wrote is here."""
        with self._lock:
            if self._lock_fd < 0:
                self._reread()
            return all(
                link.is_complete
                and link.standing is not None
                and self._is_of_this_placement(link.standing)
                and not link.standing.pids
                for link in self._links.values()
            )
