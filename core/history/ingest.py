"""Folds new events of one run into the index, each exactly once, in the caller's write transaction.

The stored offset of each log decides: a batch that does not begin there was read by somebody who is behind or ahead,
so its lines are read again from the stored offset. See ``core.runlog.fold`` for why the order of logs does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, Table, bindparam, delete, select, update
from sqlalchemy.dialects.sqlite import insert

from core.contracts.errors import EnvironmentProblem
from core.contracts.events import ArtifactEvent, AttemptEvent, CheckpointEvent, ChildEvent, StabilityEvent, TableEvent
from core.history import schema
from core.history.columns import METRIC, Column, columns_of, merged
from core.history.curve_writer import CurveWriter
from core.history.curves import unpack_value
from core.history.rows import final_from_json, final_to_json, fold_from_json, fold_values, require_run, to_json
from core.runlog.fold import Restart, RunFold, fold_aside, fold_events, steady_times
from core.runlog.placements import speaks_for_run
from core.runlog.tail import FileBatch, TailBatch, read_batch

_positions = schema.positions.c
_put_position = insert(schema.positions)
_put_position = _put_position.on_conflict_do_update(
    index_elements=["run", "file"], set_={"offset": _put_position.excluded.offset}
)
_put_metric = insert(schema.metrics)
_put_metric = _put_metric.on_conflict_do_update(
    index_elements=["run", "key"], set_={"value": _put_metric.excluded.value}
)
_set_run = update(schema.runs).where(schema.runs.c.id == bindparam("the_run"))
_Put = tuple[Table, dict[str, Any]]
_NAMED_BY = {
    schema.artifacts: ("name",),
    schema.checkpoints: ("path",),
    schema.tables: ("name",),
    schema.edges: ("parent", "child"),
}
"""What names a row of a list within its run; rows of other lists are all kept."""


def stored_offsets(connection: Connection, run: int) -> dict[str, int]:
    """Return how far each log of a run was read, in bytes."""
    rows = connection.execute(select(_positions.file, _positions.offset).where(_positions.run == run))
    return {row.file: row.offset for row in rows}


def due_files(run_dir: Path, batch: TailBatch, offsets: dict[str, int]) -> tuple[FileBatch, ...]:
    """Return what of the batch's logs is to be folded next, read again where the batch does not begin there.

    Raises:
        EnvironmentProblem: A log cannot be read.
    """
    if all(file.start == offsets.get(file.name, 0) for file in batch.files):
        return batch.files
    names = {file.name for file in batch.files}
    try:
        return tuple(file for file in read_batch(run_dir, offsets).files if file.name in names)
    except OSError as error:
        raise EnvironmentProblem(
            f"The event logs in {str(run_dir)!r} cannot be read: {error.strerror or error}.",
            "Check the permissions and the disk of the run's folder.",
        ) from error


class Ingest:
    """Folds files of one run; made anew for each transaction.

    Attributes:
        columns: The new points.
        restarts: Restarts that these files told of.
        detail_changed: True when artifacts, checkpoints, tables, markers or children changed.
    """

    def __init__(self, connection: Connection, run_id: str, heads: frozenset[str] = frozenset()) -> None:
        """Prepare to fold.

        Args:
            connection: A write transaction.
            run_id: The run; must be in the index.
            heads: Nodes that speak for the run; empty for all. See ``core.runlog.placements``.
        """
        self._heads = heads
        self.columns: list[Column] = []
        self.restarts: list[Restart] = []
        self.detail_changed = False
        self._connection = connection
        self._row: Row[Any] = require_run(connection, run_id)
        self._run = int(self._row.id)
        self._fold: RunFold = fold_from_json(self._row.fold)
        self._fold.has_nodes = bool(heads)

    def apply(self, files: Sequence[FileBatch]) -> None:
        """Fold the files, which begin where the stored offsets end."""
        known = set(self._fold.restarts)
        timed = [(file, self._fold_file(file)) for file in files]
        self.restarts = [restart for restart in self._fold.restarts if restart not in known]
        writer = CurveWriter(self._connection, self._run)
        voided = [writer.void(restart) for restart in self.restarts]
        for file, times in timed:
            self.columns += columns_of(file.name, file.events, times, self._fold.restarts, self._heads)
        self.columns = merged(self.columns)
        writer.append(self.columns)
        self._write_records(timed)
        if files:
            ends = [{"run": self._run, "file": file.name, "offset": file.end} for file in files]
            self._connection.execute(_put_position, ends)
        self._write_run(has_voided=any(voided))

    def _fold_file(self, file: FileBatch) -> list[float]:
        times = steady_times(self._fold, file.name, file.events)
        if speaks_for_run(file.name, self._heads):
            fold_events(self._fold, file.name, file.events, times)
        else:
            fold_aside(self._fold, file.name, times)
        self._fold.damaged_lines += file.damaged_lines
        return times

    def _write_records(self, timed: Sequence[tuple[FileBatch, list[float]]]) -> None:
        """Write what lists hold; of several events on one thing, the last in its log counts.

        Paths in them are of the head's run directory, so that what another node lists is left out.
        """
        rows: dict[Table, dict[tuple[Any, ...], dict[str, Any]]] = {}
        for file, times in timed:
            if not speaks_for_run(file.name, self._heads):
                continue
            for event, ts in zip(file.events, times, strict=True):
                to_rows = _RECORDS.get(type(event))
                for table, values in to_rows(event, ts, self._row.run_id) if to_rows else ():
                    names = _NAMED_BY.get(table)
                    name = tuple(values[part] for part in names) if names else (file.name, event.seq)
                    rows.setdefault(table, {})[name] = {"run": self._run, **values}
        for table, by_name in rows.items():
            self._put(table, list(by_name.values()))
        self.detail_changed = bool(rows)

    def _put(self, table: Table, rows: list[dict[str, Any]]) -> None:
        removed = [row["path"] for row in rows if row.pop("removed", False)] if table is schema.checkpoints else []
        kept = [row for row in rows if row.get("path") not in removed]
        if removed:
            gone = (table.c.run == self._run, table.c.path.in_(removed))
            self._connection.execute(delete(table).where(*gone))
        if kept:
            self._connection.execute(insert(table).prefix_with("OR REPLACE"), kept)

    def _write_run(self, *, has_voided: bool) -> None:
        values = fold_values(self._fold)
        silent_since, last_ts = self._row.silent_since, self._fold.last_ts
        if silent_since is not None and last_ts is not None and last_ts > silent_since:
            values["silent_since"] = None
        before = final_from_json(self._row.final)
        after = self._final()
        if (text := final_to_json(after)) != self._row.final:
            values["final"] = text
            self._write_metrics(before, after, has_voided=has_voided)
        self._connection.execute(_set_run.values(values), {"the_run": self._run})

    def _final(self) -> dict[str, float]:
        curves = schema.curves.c
        latest = select(curves.key, curves.last_value).where(curves.run == self._run, curves.source == METRIC)
        final = {row.key: unpack_value(row.last_value) for row in self._connection.execute(latest)}
        final.update({key: float(result.value) for key, result in self._fold.results.items()})
        return final

    def _write_metrics(self, before: dict[str, float], after: dict[str, float], *, has_voided: bool) -> None:
        changed = [
            {"run": self._run, "key": key, "value": after[key]} for key in after if before.get(key) != after[key]
        ]
        if changed:
            self._connection.execute(_put_metric, changed)
        if has_voided:
            metrics = schema.metrics.c
            self._connection.execute(
                delete(schema.metrics).where(metrics.run == self._run, metrics.key.not_in(list(after)))
            )


def _artifact_rows(event: ArtifactEvent, ts: float, _: str) -> list[_Put]:
    values = {
        "name": event.name,
        "path": event.path,
        "kind": event.kind,
        "size_bytes": event.size_bytes,
        "sha256": event.sha256,
        "meta": to_json(event.meta),
        "ts": ts,
    }
    return [(schema.artifacts, values)]


def _marker(kind: str, step: int | None, ts: float, text: str, signal: str = "", action: str = "") -> _Put:
    # Rows of one statement must name the same columns.
    return schema.markers, {"kind": kind, "step": step, "ts": ts, "text": text, "signal": signal, "action": action}


def _checkpoint_rows(event: CheckpointEvent, ts: float, _: str) -> list[_Put]:
    values = {
        "path": event.path,
        "step": event.step,
        "size_bytes": event.size_bytes,
        "sha256": event.sha256,
        "ts": ts,
        "removed": event.removed,
    }
    if event.removed:
        return [(schema.checkpoints, values)]
    return [(schema.checkpoints, values), _marker("checkpoint", event.step, ts, f"Checkpoint at step {event.step}")]


def _stability_rows(event: StabilityEvent, ts: float, _: str) -> list[_Put]:
    text = event.message or f"{event.signal}: {event.action}"
    return [_marker("stability", event.step, ts, text, event.signal, event.action)]


def _attempt_rows(event: AttemptEvent, ts: float, _: str) -> list[_Put]:
    if event.attempt <= 1:
        return []
    step = event.resumed_from_step
    text = f"Start {event.attempt}, " + ("from the beginning" if step is None else f"from step {step}")
    return [_marker("restart", step, ts, text)]


def _table_rows(event: TableEvent, ts: float, _: str) -> list[_Put]:
    values = {"name": event.name, "columns": to_json(event.columns), "rows": to_json(event.rows), "ts": ts}
    return [(schema.tables, values)]


def _child_rows(event: ChildEvent, ts: float, run_id: str) -> list[_Put]:
    return [(schema.edges, {"parent": run_id, "child": event.run_id, "role": event.role, "ts": ts})]


_RECORDS: dict[type, Callable[[Any, float, str], list[_Put]]] = {
    ArtifactEvent: _artifact_rows,
    CheckpointEvent: _checkpoint_rows,
    StabilityEvent: _stability_rows,
    AttemptEvent: _attempt_rows,
    TableEvent: _table_rows,
    ChildEvent: _child_rows,
}


def columns_of_batch(batch: TailBatch, heads: frozenset[str]) -> tuple[list[Column], list[Restart]]:
    """Return the points and restarts of a batch on its own, for whoever shows what others have stored already."""
    fold = RunFold()
    timed = [(file, steady_times(fold, file.name, file.events)) for file in batch.files]
    for file, times in timed:
        if speaks_for_run(file.name, heads):
            fold_events(fold, file.name, file.events, times)
    columns = [
        column for file, times in timed for column in columns_of(file.name, file.events, times, fold.restarts, heads)
    ]
    return columns, fold.restarts
