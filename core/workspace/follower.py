"""One background thread that follows all live runs of a home and hands out what each read brought.

Runs elsewhere are brought here by ``core.fleet.following``; what is here is read in the same way as of local runs. It polls: a stat per log file and a small query a tick, so that idle following costs next to nothing and no file
system's notifications are trusted. Errors of one run are logged and do not stop the others.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace

from core.contracts.errors import PilothouseError
from core.contracts.ids import RunId
from core.contracts.runs import RunUpdate
from core.contracts.states import RunState
from core.fleet.following import Following
from core.history.history import History
from core.workspace.retries import Retries
from core.workspace.synchronize import Synchronizer

POLL_S = 0.25
_DISCOVER_EVERY = 8
_log = logging.getLogger("pilothouse.follower")

OnUpdate = Callable[[RunUpdate], None]


class Follower:
    """Follows live runs until closed. ``on_update`` is called on the follower's own thread.

    Points are handed out for watched runs only; every other update carries the summary alone.
    """

    def __init__(
        self, synchronizer: Synchronizer, history: History, on_update: OnUpdate, following: Following, retries: Retries
    ) -> None:
        """Begin to follow.

        Args:
            synchronizer: Takes in what runs wrote.
            history: The index.
            on_update: Called with what each read brought.
            following: Brings runs elsewhere here.
            retries: Resumes runs elsewhere that ask for it.
        """
        self._following = following
        self._retries = retries
        self._touched: set[RunId] = set()
        self._synchronizer = synchronizer
        self._history = history
        self._on_update = on_update
        self._cursors: dict[RunId, dict[str, int]] = {}
        self._watching = threading.Lock()
        self._open: set[RunId] = set()
        self._reported: set[tuple[RunId | None, str]] = set()
        self._wake = threading.Event()
        self._closing = False
        following.on_change(self._touch)
        self._thread = threading.Thread(target=self._loop, name="pilothouse-follower", daemon=True)
        self._thread.start()

    def watch(self, run_id: RunId) -> None:
        """Hand out every point of this run from now on. Load what is stored after this call, not before.

        Reads the index: not for the UI thread. A point may then come both stored and live; it is the same point, known by its step.
        A lost run is asked for again: its host may answer by now, and know better.
        """
        if self._history.summary(run_id).state is RunState.LOST:
            self._following.follow(run_id)
        offsets = self._history.offsets(run_id)
        with self._watching:
            self._cursors = {**self._cursors, run_id: offsets}
        self._wake.set()

    def unwatch(self, run_id: RunId) -> None:
        """Hand out summaries only for this run."""
        with self._watching:
            self._cursors = {watched: cursor for watched, cursor in self._cursors.items() if watched != run_id}

    def _touch(self, run_id: RunId) -> None:
        """Look at a run at the next tick, also one that has ended: something of it has come from elsewhere."""
        with self._watching:
            self._touched.add(run_id)
        self._wake.set()

    def poke(self) -> None:
        """Look at once, after something was launched or resumed."""
        self._wake.set()

    def close(self) -> None:
        """Stop following; returns when the threads have ended."""
        self._closing = True
        self._following.remove_callback(self._touch)
        self._wake.set()
        self._thread.join()
        self._retries.close()

    def _loop(self) -> None:
        tick = 0
        while not self._closing:
            self._tick(discover=tick % _DISCOVER_EVERY == 0)
            tick += 1
            self._wake.wait(POLL_S)
            self._wake.clear()

    def _tick(self, *, discover: bool) -> None:
        try:
            if discover:
                self._synchronizer.discover()
            now_open = set(self._history.open_run_ids())
            if discover:
                for run_id in now_open:
                    self._following.follow(run_id)
        except Exception as error:  # noqa: BLE001 - the top frame of this thread; a fault must not end all following
            self._report(None, error)
            return
        with self._watching:
            touched, self._touched = self._touched, set()
        for run_id in sorted(now_open | self._open | touched):
            if self._closing:
                return
            self._follow(run_id, is_news=(run_id in now_open) != (run_id in self._open))

    def _follow(self, run_id: RunId, *, is_news: bool) -> None:
        """Hand out what one run brought; one that was opened or ended by another process is news in itself."""
        cursor = self._cursors.get(run_id)
        try:
            update = self._synchronizer.update(run_id, cursor)
            if update is None and is_news:
                update = RunUpdate(summary=self._history.summary(run_id), detail_changed=True)
        except Exception as error:  # noqa: BLE001 - the top frame of this thread; the other runs must go on
            self._report(run_id, error)
            self._open.discard(run_id)
            return
        if update is None:
            return
        if update.summary.state.is_terminal:
            self._open.discard(run_id)
            self._retries.consider(update.summary)
        else:
            self._open.add(run_id)
        self._on_update(update if cursor is not None else replace(update, points={}))

    def _report(self, run_id: RunId | None, error: Exception) -> None:
        """Log a fault, once for each run and sentence: it may come back four times a second."""
        if (run_id, str(error)) in self._reported:
            return
        self._reported.add((run_id, str(error)))
        what = f"The run {run_id}" if run_id else "The history"
        known = isinstance(error, (PilothouseError, OSError))
        _log.warning("%s could not be followed: %s", what, error, exc_info=None if known else error)
