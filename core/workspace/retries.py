"""Resumes runs elsewhere that failed or lost a host, as often as their spec allows (``launch.retries``).

Whoever has the workspace open does it; a lock in the run directory sees to it that of several only one does. Hosts that do
not answer are left out where the spec allows fewer (``launch.min_nodes``); else they are asked again for a while.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Protocol

import msgspec

from core.contracts.errors import Cancelled, EnvironmentProblem, PilothouseError
from core.contracts.hosts import NoWatcher, Watcher
from core.contracts.ids import RunId
from core.contracts.runs import RunSummary
from core.contracts.states import RunState
from core.fleet.fleet import Fleet
from core.fleet.standing import standing_of
from core.jobs.records import read_record, write_record
from core.plugins.decode import read_spec
from core.runlog.layout import RunLayout
from core.runlog.placements import is_elsewhere, read_placement

RETRIES = "retries.json"
FIRST_PAUSE_S = 2.0
PAUSE_S = 30.0
MOST_TRIES = 20
_log = logging.getLogger("pilothouse.retries")


class Resume(Protocol):
    """Resumes a run, on other hosts where they are given; the watcher may cancel it."""

    def __call__(self, run_id: RunId, hosts: tuple[str, ...] | None, /, *, watcher: Watcher) -> None:
        """Do it, or raise."""
        ...


class _UntilClosed(NoWatcher):
    """Cancels what was begun when nothing is to be begun any more: whoever closes the window waits for it."""

    def __init__(self, closing: threading.Event) -> None:
        self._closing = closing

    def is_cancelled(self) -> bool:
        return self._closing.is_set()


class RetryRecord(msgspec.Struct, frozen=True, kw_only=True):
    """How often a run was resumed by itself, and from which attempts."""

    done: int = 0
    attempts: tuple[int, ...] = ()


class Retries:
    """Resumes runs on threads of its own. Thread-safe."""

    def __init__(self, fleet: Fleet, runs_dir: Path, resume: Resume) -> None:
        """Prepare.

        Args:
            fleet: The hosts.
            runs_dir: Folder of run directories.
            resume: Resumes a run, on other hosts where they are given.
        """
        self._fleet = fleet
        self._runs_dir = runs_dir
        self._resume = resume
        self._lock = threading.Lock()
        self._threads: dict[RunId, threading.Thread] = {}
        self._closing = threading.Event()

    def consider(self, summary: RunSummary) -> None:
        """Resume a run that ended, if it is elsewhere, did not end well, and may be; returns at once."""
        if summary.state not in (RunState.FAILED, RunState.LOST) or self._closing.is_set():
            return
        run_dir = self._runs_dir / summary.run_id
        placement = read_placement(run_dir)
        if placement is None or not is_elsewhere(placement):
            return
        with self._lock:
            known = self._threads.get(summary.run_id)
            if known is not None and known.is_alive():
                return
            thread = threading.Thread(
                target=self._retry, args=(summary.run_id, run_dir), name=f"retry of {summary.run_id}", daemon=True
            )
            self._threads[summary.run_id] = thread
        thread.start()

    def close(self) -> None:
        """Begin nothing any more; returns when what was begun is done or undone."""
        self._closing.set()
        for thread in self._threads.values():
            thread.join()

    def _retry(self, run_id: RunId, run_dir: Path) -> None:
        try:
            with _only_one(run_dir) as is_ours:
                if is_ours:
                    self._try_until_it_goes_on(run_id, run_dir)
        except Exception as error:  # noqa: BLE001 - the top frame of this thread
            _log.warning("The run %s could not be resumed by itself: %s", run_id, error, exc_info=error)

    def _try_until_it_goes_on(self, run_id: RunId, run_dir: Path) -> None:
        allowed = read_spec(RunLayout(run_dir).spec).launch.retries
        path = run_dir / RETRIES
        record = read_record(path, RetryRecord) or RetryRecord()
        placement = read_placement(run_dir)
        if placement is None or record.done >= allowed or placement.attempt in record.attempts:
            return
        record = RetryRecord(done=record.done + 1, attempts=(*record.attempts, placement.attempt))
        write_record(path, record)
        for number in range(MOST_TRIES):
            if self._closing.wait(FIRST_PAUSE_S if number == 0 else PAUSE_S):
                return
            state = standing_of(run_dir).state
            if state not in (RunState.FAILED, RunState.LOST):
                return
            try:
                self._resume(run_id, self._hosts_left(run_dir), watcher=_UntilClosed(self._closing))
            except Cancelled:
                return
            except EnvironmentProblem as problem:
                _log.warning("The run %s cannot be resumed yet: %s", run_id, problem)
                continue
            except PilothouseError as error:
                _log.warning("The run %s is not resumed by itself: %s", run_id, error)
            return

    def _hosts_left(self, run_dir: Path) -> tuple[str, ...] | None:
        """Return the hosts that answer, where the run may go on with fewer; None for all."""
        placement = read_placement(run_dir)
        least = read_spec(RunLayout(run_dir).spec).launch.min_nodes
        if placement is None or placement.engine != "direct" or not least:
            return None
        names = [placed.host or "local" for placed in placement.nodes]
        answering: list[str] = []
        for name in names:
            with contextlib.suppress(PilothouseError):
                self._fleet.pool.agent(name).ping()
                answering.append(name)
        return tuple(answering) if least <= len(answering) < len(names) else None


@contextlib.contextmanager
def _only_one(run_dir: Path) -> Generator[bool]:
    """Tell whether no other process resumes this run by itself just now; held meanwhile."""
    control = RunLayout(run_dir).control
    control.mkdir(exist_ok=True)
    descriptor = os.open(control / "retry.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        yield False
    else:
        yield True
    finally:
        os.close(descriptor)
