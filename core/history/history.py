"""The history: one object over the index of run directories, for whoever has a home open.

How: every method is one short transaction; see ``ingest``, ``queries`` and ``curves`` for what happens inside.
The run directories are the truth: after ``generation`` changed, and at any other time, ``clear`` and ``index`` make the
same index anew. Moving, deleting and starting runs is others' work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from sqlalchemy import Connection, delete, select, update

from core.contracts.errors import PilothouseError, UserError
from core.contracts.ids import RunId
from core.contracts.notices import Notice
from core.contracts.runs import Curve, RunDetail, RunPage, RunQuery, RunSummary, RunUpdate
from core.contracts.states import RunState
from core.history import queries, schema
from core.history.columns import Column
from core.history.curves import Axis, CurveReader, Window
from core.history.database import Database
from core.history.ingest import Ingest, columns_of_batch, due_files, stored_offsets
from core.history.registration import register
from core.history.rows import fold_from_json, fold_values, require_run, to_json
from core.runlog.fold import Restart, RunFold, fold_conclusion, fold_reopening
from core.runlog.layout import STDOUT_PREFIX
from core.runlog.placements import heads_of
from core.runlog.tail import TailBatch, read_batch

_BULK_TRANSACTION_S = 0.5
_OPENING = frozenset({RunState.QUEUED, RunState.PREPARING})
_runs = schema.runs.c


class History:
    """The index of one home. Thread-safe; blocks: keep off the UI thread.

    Every method may raise ``EnvironmentProblem`` (disk full, held by another program, not writable, damaged and set
    aside) and, for a run that is not in it, ``UserError``.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._seen_generation = 0

    @classmethod
    def open(cls, database: Path) -> History:
        """Open the history file, making, migrating or replacing it as needed.

        Raises:
            EnvironmentProblem: It cannot be used, or was made by a newer Pilothouse (then nothing is touched).
        """
        return cls(Database(database))

    @property
    def path(self) -> Path:
        """The file."""
        return self._database.path

    @property
    def notice(self) -> Notice | None:
        """What the user should be told about the file: set aside as damaged, migrated; None when all was well."""
        return self._database.notice

    @property
    def was_rebuilt(self) -> bool:
        """True while the file is fresh, so that all run directories must be indexed (again); see ``mark_indexed``.

        Look again after any EnvironmentProblem: a file can be found damaged at any time.
        """
        return self._database.generation != self._seen_generation

    def mark_indexed(self) -> None:
        """Say that all run directories are in the index now."""
        self._seen_generation = self._database.generation

    def close(self) -> None:
        """Let go of the file; a later use opens it again."""
        self._database.close()

    def add(self, run_dir: Path) -> RunSummary:
        """Enter a run from its spec, or renew what its spec says."""
        with self._database.write() as connection:
            register(connection, run_dir)
            return queries.summary(connection, run_dir.name)

    def offsets(self, run_id: str) -> dict[str, int]:
        """Return how far each log of a run was read, in bytes; empty for a run that is not in the index."""
        with self._database.read() as connection:
            run = connection.execute(select(_runs.id).where(_runs.run_id == run_id)).scalar()
            return {} if run is None else stored_offsets(connection, run)

    def ingest(self, run_dir: Path, batch: TailBatch) -> RunUpdate:
        """Fold what was read of a run, each event exactly once whoever reads it how often; enters an unknown run.

        Returns:
            The run as it stands, with all points of ``batch``, also those that another process had folded before.
        """
        with self._database.write() as connection:
            done, is_whole = self._fold(connection, run_dir, batch)
            summary = queries.summary(connection, run_dir.name)
        whole = (done.columns, done.restarts) if is_whole else columns_of_batch(batch, heads_of(run_dir))
        columns, restarts = whole
        return RunUpdate(
            summary=summary,
            points=_curves_of(columns),
            truncated_at=_truncated_at(restarts),
            detail_changed=done.detail_changed or not is_whole,
            log_size_bytes=_log_size(run_dir),
        )

    @staticmethod
    def _fold(connection: Connection, run_dir: Path, batch: TailBatch) -> tuple[Ingest, bool]:
        """Fold a batch; tell also whether exactly its files were folded."""
        run = connection.execute(select(_runs.id).where(_runs.run_id == run_dir.name)).scalar()
        if run is None:
            run = register(connection, run_dir)
        files = due_files(run_dir, batch, stored_offsets(connection, run))
        done = Ingest(connection, run_dir.name, heads_of(run_dir))
        done.apply(files)
        return done, files is batch.files

    def index(
        self, run_dirs: Sequence[Path], on_progress: Callable[[int], None] | None = None
    ) -> tuple[tuple[Path, str], ...]:
        """Enter many runs and fold all there is of them, many a transaction; what is known already is not read again.

        Args:
            run_dirs: Run directories.
            on_progress: Called with the number of runs done, about twice a second, on this thread.

        Returns:
            The directories that could not be entered, with the reason as a sentence.
        """
        problems: list[tuple[Path, str]] = []
        done = 0
        while done < len(run_dirs):
            deadline = time.monotonic() + _BULK_TRANSACTION_S
            with self._database.write() as connection:
                while done < len(run_dirs) and time.monotonic() < deadline:
                    try:
                        with connection.begin_nested():
                            self._index_one(connection, run_dirs[done])
                    except (PilothouseError, OSError) as error:
                        problems.append((run_dirs[done], str(error)))
                    done += 1
            if on_progress is not None:
                on_progress(done)
        return tuple(problems)

    def _index_one(self, connection: Connection, run_dir: Path) -> None:
        run = register(connection, run_dir)
        more = True
        while more:
            batch = read_batch(run_dir, stored_offsets(connection, run))
            if not batch.is_empty:
                self._fold(connection, run_dir, batch)
            more = batch.more

    def conclude(  # noqa: PLR0913 - what a reader can know of an end
        self,
        run_id: str,
        state: RunState | None,
        message: str = "",
        hint: str = "",
        *,
        started: float | None = None,
        ended: float | None = None,
        silent_since: float | None = None,
    ) -> RunSummary | None:
        """Apply what a reader concluded from outside the logs (exit record, lost, silent); see ``core.jobs.reconcile``.

        It holds until the logs say something newer. That a run is queued or preparing holds only if it had ended, or
        has written nothing yet: then a cluster may tell what it waits for.

        Args:
            run_id: The run; its logs should be folded as far as there are.
            state: Concluded state; None when the logs' own state holds.
            message: One sentence; empty keeps what the logs say where the state is the same.
            hint: The remedy.
            started: Unix seconds, used where the logs do not tell.
            ended: Unix seconds of the end or the last sign of life.
            silent_since: Unix seconds of the last sign of life of a run that does not answer; None when it does.

        Returns:
            The run as it stands now; None when nothing changed.
        """

        def change(fold: RunFold) -> None:
            is_early = fold.state.is_terminal or fold.last_ts is None
            if state is None or (state in _OPENING and not is_early):
                return
            fold.started = started if fold.started is None else fold.started
            if fold.state is not state:
                fold_conclusion(fold, state, message, hint, ended=ended)
            elif message and message != fold.state_message:
                fold_conclusion(fold, state, message, hint, ended=ended if fold.ended is None else fold.ended)

        return self._change_fold(run_id, change, silent_since)

    def reopen(self, run_id: str) -> RunSummary | None:
        """Say that an ended run was started again, until its logs say so themselves.

        Whatever its logs say from then on holds, also where the new host's clock is behind that of the last.
        """

        def change(fold: RunFold) -> None:
            if fold.state.is_terminal:
                fold_reopening(fold)

        return self._change_fold(run_id, change, None)

    def _change_fold(
        self, run_id: str, change: Callable[[RunFold], None], silent_since: float | None
    ) -> RunSummary | None:
        """Apply a change to a run's fold; opens a write transaction only where there is something to change."""
        with self._database.read() as connection:
            row = require_run(connection, run_id)
        fold = fold_from_json(row.fold)
        change(fold)
        if to_json(fold) == row.fold and row.silent_since == silent_since:
            return None
        with self._database.write() as connection:
            row = require_run(connection, run_id)
            fold = fold_from_json(row.fold)
            change(fold)
            values = {**fold_values(fold), "silent_since": silent_since}
            connection.execute(update(schema.runs).where(_runs.id == row.id).values(values))
            return queries.summary(connection, run_id)

    def curve(
        self,
        run_id: str,
        key: str,
        *,
        first: float | None = None,
        last: float | None = None,
        points: int = 2000,
        by: Axis = "step",
    ) -> Curve:
        """Return a curve between two places of an axis, both included: exact, or about ``points`` extremes of it.

        Args:
            run_id: The run.
            key: A metric, or a telemetry name (then a step is the sample's number).
            first: Step or Unix seconds (see ``by``) to begin at; None for the start.
            last: Where to end; None for the end.
            points: How many points are wanted at most (16 at least are given where there are).
            by: ``step`` or ``ts``.

        Raises:
            UserError: The run has no such curve.
        """
        with self._database.read() as connection:
            reader = CurveReader.find(connection, require_run(connection, run_id).id, key)
            if reader is None:
                raise UserError(f"The run {run_id} has no metric {key!r}.", "Choose one of the names on its page.")
            return reader.read(key, Window(first, last, by), points)

    def runs(self, query: RunQuery) -> RunPage:
        """Return a page of the runs that match and are not in the bin; UserError for an unknown sort."""
        with self._database.read() as connection:
            return queries.find_runs(connection, query)

    def summary(self, run_id: str) -> RunSummary:
        """Return the summary of a run, in the bin or not."""
        with self._database.read() as connection:
            return queries.summary(connection, run_id)

    def detail(self, run_id: str) -> RunDetail:
        """Return everything of a run but its curves and its log."""
        with self._database.read() as connection:
            return queries.detail(connection, run_id)

    def params(self, run_id: str) -> dict[str, str | float]:
        """Return every value of a run's spec by its dotted path: numbers as such, all else as text."""
        with self._database.read() as connection:
            return queries.params(connection, run_id)

    def metric_keys(self, run_ids: Sequence[str] | None = None) -> tuple[str, ...]:
        """Return the names of metrics of some runs, or of all, sorted."""
        with self._database.read() as connection:
            return queries.metric_keys(connection, run_ids)

    def tags(self) -> tuple[str, ...]:
        """Return every tag in use, sorted."""
        with self._database.read() as connection:
            return queries.all_tags(connection)

    def ancestors(self, run_id: str) -> tuple[RunId, ...]:
        """Return the runs this one builds on or was started by, nearest first."""
        with self._database.read() as connection:
            return queries.relatives(connection, run_id, upwards=True)

    def descendants(self, run_id: str) -> tuple[RunId, ...]:
        """Return the runs that build on this one or were started by it, nearest first."""
        with self._database.read() as connection:
            return queries.relatives(connection, run_id, upwards=False)

    def open_run_ids(self) -> tuple[RunId, ...]:
        """Return the runs that have not ended, oldest first."""
        with self._database.read() as connection:
            return queries.open_run_ids(connection)

    def run_ids(self) -> set[RunId]:
        """Return all runs that are not in the bin."""
        with self._database.read() as connection:
            return queries.run_ids(connection)

    def match_ids(self, text: str) -> tuple[RunId, ...]:
        """Return the run of this very id, else those whose id begins or ends with a text, newest first."""
        with self._database.read() as connection:
            return queries.match_ids(connection, text)

    def export(self, run_id: str, file_format: str, target: Path) -> Path:
        """Write the metrics of a run as ``csv``, ``parquet`` or ``tensorboard``; see ``core.history.exports``."""
        from core.history import exports

        with self._database.read() as connection:
            return exports.export(connection, require_run(connection, run_id).id, file_format, target)

    def delete(self, run_id: str) -> None:
        """Mark a run as lying in the bin: it is in no list any more, but keeps its curves."""
        self._mark(run_id, time.time())

    def restore(self, run_id: str) -> None:
        """Take a run out of the bin; ``add`` does so too."""
        self._mark(run_id, None)

    def _mark(self, run_id: str, deleted: float | None) -> None:
        with self._database.write() as connection:
            row = require_run(connection, run_id)
            connection.execute(update(schema.runs).where(_runs.id == row.id).values(deleted=deleted))

    def purge(self, run_ids: Iterable[str]) -> None:
        """Remove runs from the index for good; those that are not in it are passed over."""
        with self._database.write() as connection:
            connection.execute(delete(schema.runs).where(_runs.run_id.in_(list(run_ids))))

    def clear(self) -> None:
        """Empty the index, to fill it anew from the run directories."""
        with self._database.write() as connection:
            connection.execute(delete(schema.runs))


def _curves_of(columns: list[Column]) -> dict[str, Curve]:
    return {
        column.key: Curve(
            key=column.key,
            step=column.points.step,
            ts=column.points.ts,
            value=column.points.value,
            total=len(column.points),
        )
        for column in columns
    }


def _truncated_at(restarts: list[Restart]) -> int | None:
    return min((0 if restart.from_step is None else restart.from_step + 1 for restart in restarts), default=None)


def _log_size(run_dir: Path) -> int:
    """Return the size of the run's output now, in bytes."""
    size = 0
    for path in run_dir.glob(f"{STDOUT_PREFIX}.*.log"):
        try:
            size += path.stat().st_size
        except FileNotFoundError:
            continue
    return size
