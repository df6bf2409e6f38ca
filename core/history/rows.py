"""Rows of the index as the records of ``core.contracts.runs``, and back."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, select

from core.contracts.errors import UserError
from core.contracts.events import Cell, Number
from core.contracts.ids import RunId
from core.contracts.runs import ArtifactRecord, CheckpointRecord, MarkerRecord, RunSummary, TableRecord
from core.contracts.states import RunState
from core.history import schema
from core.runlog.fold import RunFold

_encode = msgspec.json.Encoder().encode
_decode_final = msgspec.json.Decoder(dict[str, Number]).decode
_decode_tags = msgspec.json.Decoder(tuple[str, ...]).decode
_decode_fold = msgspec.json.Decoder(RunFold).decode
_decode_meta = msgspec.json.Decoder(dict[str, Cell]).decode
_decode_columns = msgspec.json.Decoder(tuple[str, ...]).decode
_decode_rows = msgspec.json.Decoder(tuple[tuple[Cell, ...], ...]).decode
_columns = schema.runs.c
SUMMARY_COLUMNS = tuple(column for column in _columns if column.name not in {"id", "deleted", "fold"})


def to_json(value: object) -> str:
    """Return plain data as JSON text."""
    return _encode(value).decode()


def sayable(value: float) -> Number:
    """Return a number as JSON can say it: non-finite ones by name."""
    if math.isfinite(value):
        return value
    return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")


def final_to_json(final: dict[str, float]) -> str:
    """Return final metrics as JSON text, by name."""
    return to_json({key: sayable(final[key]) for key in sorted(final)})


def final_from_json(text: str) -> dict[str, float]:
    """Return the metrics of ``final_to_json``."""
    return {key: float(value) for key, value in _decode_final(text).items()}


def fold_from_json(text: str) -> RunFold:
    """Return a stored fold."""
    return _decode_fold(text)


def summary_of(row: Row[Any]) -> RunSummary:
    """Return a row of ``SUMMARY_COLUMNS`` as a record."""
    state = RunState(row.state)
    return RunSummary(
        run_id=RunId(row.run_id),
        name=row.name,
        kind=row.kind,
        state=state,
        message=row.message,
        hint=row.hint,
        created=row.created,
        started=row.started,
        ended=row.ended,
        progress=row.progress,
        stage=row.stage,
        step=row.step,
        total_steps=row.total_steps,
        eta_s=None if state.is_terminal else row.eta_s,
        final=final_from_json(row.final),
        tags=_decode_tags(row.tags),
        parent=RunId(row.parent) if row.parent else None,
        host=row.host,
        attempt=row.attempt,
        silent_since=row.silent_since,
        run_dir=row.run_dir,
        last_line=row.last_line,
    )


def fold_values(fold: RunFold) -> dict[str, Any]:
    """Return the columns of ``runs`` that follow from the fold."""
    return {
        "state": fold.state.value,
        "message": fold.message,
        "hint": fold.hint,
        "started": fold.started,
        "ended": fold.ended,
        "progress": fold.progress,
        "stage": fold.stage,
        "step": fold.step,
        "total_steps": fold.total_steps,
        "eta_s": fold.eta_s,
        "attempt": fold.attempt,
        "last_line": fold.last_line,
        "fold": to_json(fold),
    }


def require_run(connection: Connection, run_id: str) -> Row[Any]:
    """Return the row of a run.

    Raises:
        UserError: The index has no such run.
    """
    row = connection.execute(select(schema.runs).where(_columns.run_id == run_id)).one_or_none()
    if row is None:
        raise UserError(f"There is no run {run_id!r} in the history.", "List the runs to see their ids.")
    return row


def artifact_of(row: Row[Any], run_id: RunId, run_dir: Path) -> ArtifactRecord:
    """Return a row of ``artifacts`` as a record."""
    return ArtifactRecord(
        run_id=run_id,
        name=row.name,
        path=str(run_dir / row.path),
        kind=row.kind,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        meta=_decode_meta(row.meta),
    )


def checkpoint_of(row: Row[Any], run_id: RunId, run_dir: Path) -> CheckpointRecord:
    """Return a row of ``checkpoints`` as a record."""
    return CheckpointRecord(
        run_id=run_id,
        step=row.step,
        path=str(run_dir / row.path),
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        ts=row.ts,
    )


def table_of(row: Row[Any]) -> TableRecord:
    """Return a row of ``tables`` as a record."""
    return TableRecord(name=row.name, columns=_decode_columns(row.columns), rows=_decode_rows(row.rows))


def marker_of(row: Row[Any]) -> MarkerRecord:
    """Return a row of ``markers`` as a record."""
    return MarkerRecord(kind=row.kind, step=row.step, ts=row.ts, text=row.text, signal=row.signal, action=row.action)
