"""Brings the index up to date with the run directories: new runs, new events, and what became of open runs."""

from __future__ import annotations

import logging
from dataclasses import replace

from core.contracts.ids import RunId, is_run_id
from core.contracts.runs import RunSummary, RunUpdate
from core.contracts.states import RunState
from core.fleet.standing import standing_of
from core.history.history import History
from core.jobs.reconcile import Standing
from core.runlog.layout import RunLayout
from core.runlog.tail import read_batch
from core.settings.home import Home

_log = logging.getLogger("pilothouse.history")


class Synchronizer:
    """Reads run directories into the history. Thread-safe: an event is taken in once, whoever reads it first."""

    def __init__(self, home: Home, history: History) -> None:
        self._home = home
        self._history = history

    def discover(self) -> None:
        """Index run directories that the index does not know: copied in, launched elsewhere, or after a loss of it."""
        known = self._history.run_ids()
        new = [entry for entry in sorted(self._home.runs_dir.iterdir()) if entry.name not in known]
        found = [entry for entry in new if is_run_id(entry.name) and RunLayout(entry).spec.exists()]
        for run_dir, reason in self._history.index(found):
            _log.warning("The run directory %s is left out of the history: %s", run_dir, reason)
        self._history.mark_indexed()

    def update(self, run_id: RunId, cursor: dict[str, int] | None = None) -> RunUpdate | None:
        """Take in one batch of what a run wrote, then judge where it stands; None when nothing changed.

        Reads a few megabytes at most, so that no caller is held long; the rest of a busy run comes with the next call.

        Args:
            run_id: The run.
            cursor: A reader's own offsets, moved on: it is handed every event once, also those that another process
                took in before. None reads on from where the index stands.
        """
        run_dir = self._home.run_dir(run_id)
        if not run_dir.is_dir():
            return self._vanished(run_id)
        # Looked at before the logs are read: who wrote the exit record had written everything else.
        standing = standing_of(run_dir)
        batch = read_batch(run_dir, self._history.offsets(run_id) if cursor is None else cursor)
        update = None if batch.is_empty else self._history.ingest(run_dir, batch)
        if cursor is not None:
            cursor.update((file.name, file.end) for file in batch.files)
        summary = None if batch.more else self._conclude(run_id, standing)
        if summary is None:
            return update
        return RunUpdate(summary=summary) if update is None else replace(update, summary=summary)

    def _conclude(self, run_id: RunId, standing: Standing) -> RunSummary | None:
        """Apply what the run directory says of the run's end or silence; None when that changes nothing."""
        return self._history.conclude(
            run_id,
            standing.state,
            standing.message,
            standing.hint,
            started=standing.started,
            ended=standing.ended,
            silent_since=standing.silent_since,
        )

    def _vanished(self, run_id: RunId) -> RunUpdate:
        """Take a run off the index whose directory is gone; return its last word, so that nobody waits for more."""
        _log.warning("The directory of run %s is gone; it is taken off the index.", run_id)
        summary = self._history.summary(run_id)
        self._history.purge([run_id])
        message = "Its folder was moved or deleted while it was open."
        return RunUpdate(summary=replace(summary, state=RunState.LOST, message=message), detail_changed=True)

    def drain(self, run_id: RunId) -> None:
        """Take in everything a run has written so far, and judge where it stands."""
        if not self._home.run_dir(run_id).is_dir():
            self._vanished(run_id)
            return
        standing = standing_of(self._home.run_dir(run_id))
        while not (batch := read_batch(self._home.run_dir(run_id), self._history.offsets(run_id))).is_empty:
            self._history.ingest(self._home.run_dir(run_id), batch)
        self._conclude(run_id, standing)

    def all(self) -> None:
        """Bring the whole index up to date: discover, then drain every open run."""
        self.discover()
        for run_id in self._history.open_run_ids():
            self.drain(run_id)

    def rebuild(self) -> int:
        """Empty the index and read every run directory again; return the number of runs."""
        self._history.clear()
        self.all()
        return len(self._history.run_ids())
