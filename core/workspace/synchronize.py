"""Brings the index up to date with the run directories: new runs, new events, and what became of open runs."""

from __future__ import annotations

import logging
from pathlib import Path

from core.contracts.ids import RunId, is_run_id
from core.contracts.runs import RunUpdate
from core.history.history import History
from core.jobs.launcher import Launcher
from core.runlog.layout import RunLayout
from core.runlog.tail import read_batch
from core.settings.home import Home

_log = logging.getLogger("pilothouse.history")


class Synchronizer:
    """Reads run directories into the history. Thread-safe: an event is taken in once, whoever reads it first."""

    def __init__(self, home: Home, history: History, launcher: Launcher) -> None:
        self._home = home
        self._history = history
        self._launcher = launcher

    def discover(self) -> list[RunId]:
        """Add run directories that the index does not know (copied in, or after a rebuild); return their ids."""
        known = self._history.run_ids()
        found: list[RunId] = []
        for entry in sorted(self._home.runs_dir.iterdir()):
            if is_run_id(entry.name) and entry.name not in known and RunLayout(entry).spec.exists():
                self._history.add(entry)
                found.append(RunId(entry.name))
        return found

    def update(self, run_id: RunId) -> RunUpdate | None:
        """Take in one batch of what a run wrote, then judge where it stands; None when nothing changed.

        Reads a few megabytes at most, so that no caller is held long; ``more`` in a busy run shows at the next call.
        """
        run_dir = self._home.run_dir(run_id)
        if not run_dir.is_dir():
            return self._vanished(run_id)
        batch = read_batch(run_dir, self._history.offsets(run_id))
        update = None if batch.is_empty else self._history.ingest(run_dir, batch)
        if batch.more:
            return update
        return self._judge(run_id, run_dir) or update if update is None else self._merge(update, run_id, run_dir)

    def _merge(self, update: RunUpdate, run_id: RunId, run_dir: Path) -> RunUpdate:
        judged = self._judge(run_id, run_dir)
        if judged is None:
            return update
        return RunUpdate(
            summary=judged.summary,
            points=update.points,
            truncated_at=update.truncated_at,
            detail_changed=True,
            log_size_bytes=update.log_size_bytes,
        )

    def _judge(self, run_id: RunId, run_dir: Path) -> RunUpdate | None:
        del run_dir
        standing = self._launcher.standing(run_id)
        return self._history.conclude(
            run_id,
            state=standing.state,
            message=standing.message,
            hint=standing.hint,
            ended=standing.ended,
            silent_since=standing.silent_since,
        )

    def _vanished(self, run_id: RunId) -> RunUpdate | None:
        _log.warning("The directory of run %s is gone; it is taken off the index.", run_id)
        self._history.delete(run_id)
        return None

    def drain(self, run_id: RunId) -> None:
        """Take in everything a run has written so far."""
        while True:
            batch = read_batch(self._home.run_dir(run_id), self._history.offsets(run_id))
            if batch.is_empty:
                break
            self._history.ingest(self._home.run_dir(run_id), batch)
        self._judge(run_id, self._home.run_dir(run_id))

    def all(self) -> None:
        """Bring the whole index up to date: discover, then drain every open run."""
        self.discover()
        for run_id in self._history.open_run_ids():
            if self._home.run_dir(run_id).is_dir():
                self.drain(run_id)
            else:
                self._vanished(run_id)

    def rebuild(self) -> int:
        """Empty the index and read every run directory again; return the number of runs."""
        self._history.clear()
        found = self.discover()
        for run_id in found:
            self.drain(run_id)
        return len(found)
