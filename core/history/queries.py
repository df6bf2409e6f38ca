"""Questions to the index: pages of the run table, everything of one run, lineage, names of metrics.

Pages stay quick over 100,000 runs: filters and sorts run on indexes, and the fat columns are fetched for the page's
rows only. Sorting by a metric walks that metric's index first and then the runs that lack it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    column,
    exists,
    func,
    literal_column,
    or_,
    select,
    table,
    text,
)

from core.contracts.errors import UserError
from core.contracts.ids import RunId
from core.contracts.runs import RunDetail, RunPage, RunQuery, RunSummary
from core.contracts.states import RunState
from core.history import schema
from core.history.columns import METRIC, TELEMETRY
from core.history.rows import (
    SUMMARY_COLUMNS,
    artifact_of,
    checkpoint_of,
    marker_of,
    require_run,
    summary_of,
    table_of,
)

_runs = schema.runs.c
_NOT_DELETED = text("deleted IS NULL")
_TRIGRAM = 3
_search = table("search", column("rowid"))
_SORTS: dict[str, ColumnElement[Any]] = {
    **{
        name: _runs[name]
        for name in (
            "name",
            "kind",
            "state",
            "created",
            "started",
            "ended",
            "progress",
            "step",
            "host",
            "attempt",
            "parent",
        )
    },
    "run_id": _runs.run_id,
    "duration": _runs.ended - _runs.started,
    "duration_s": _runs.ended - _runs.started,
    "message": _runs.message,
    "stage": _runs.stage,
}


def find_runs(connection: Connection, query: RunQuery) -> RunPage:
    """Return a page of the runs that match, and how many do.

    Raises:
        UserError: The query sorts by something that is no column.
    """
    conditions = _conditions(query)
    total = _count(connection, conditions)
    prefix, _, key = query.sort.partition(":")
    if key and prefix in {"metric", "param"}:
        ids = _ids_by_value(connection, prefix, key, query, conditions)
    elif query.sort in _SORTS:
        sort = _SORTS[query.sort]
        order = sort.desc() if query.descending else sort.asc()
        tie = _runs.id.desc() if query.descending else _runs.id.asc()
        wanted = _ids().where(*conditions).order_by(order, tie).limit(query.limit).offset(query.offset)
        ids = [int(number) for number in connection.execute(wanted).scalars()]
    else:
        names = ", ".join(sorted({*_SORTS}))
        raise UserError(f"Runs cannot be sorted by {query.sort!r}.", f"Use metric:NAME, param:NAME or one of: {names}.")
    return RunPage(rows=tuple(_summaries(connection, ids)), total=total)


def _ids() -> Select[Any]:
    return select(_runs.id).select_from(schema.runs).where(_NOT_DELETED)


def _count(connection: Connection, conditions: list[ColumnElement[bool]]) -> int:
    """Return how many runs match. Without conditions that is all less the bin, which SQLite knows at once."""
    if conditions:
        return connection.execute(_ids().where(*conditions).with_only_columns(func.count())).scalar_one()
    everything, binned = select(func.count()).select_from(schema.runs), _runs.deleted.is_not(None)
    return connection.execute(everything).scalar_one() - connection.execute(everything.where(binned)).scalar_one()


def _conditions(query: RunQuery) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [_contains(word) for word in query.text.split()]
    if query.states:
        conditions.append(_runs.state.in_([state.value for state in query.states]))
    if query.kinds:
        conditions.append(_runs.kind.in_(query.kinds))
    tags = schema.tags.c
    conditions += [_runs.id.in_(select(tags.run).where(tags.tag == tag)) for tag in query.tags]
    if query.parent is not None:
        edges = schema.edges.c
        conditions.append(_runs.run_id.in_(select(edges.child).where(edges.parent == query.parent)))
    return conditions


def _contains(word: str) -> ColumnElement[bool]:
    """Match a part of a run's name, id, kind or tags by the index of trigrams.

    A word that is too short for it is looked for in each run, but not in ids: almost any digit is in all of them.
    """
    if len(word) >= _TRIGRAM:
        phrase = '"' + word.replace('"', '""') + '"'
        return _runs.id.in_(select(_search.c.rowid).where(literal_column("search").op("MATCH")(phrase)))
    fields = (_runs.name, _runs.kind, _runs.tags)
    return or_(*(field.contains(word, autoescape=True) for field in fields))


def _ids_by_value(
    connection: Connection, prefix: str, key: str, query: RunQuery, conditions: list[ColumnElement[bool]]
) -> list[int]:
    """Return the page's runs in the order of a metric or a value of the spec; those without it come last."""
    source = schema.metrics if prefix == "metric" else schema.params
    value = source.c.value if prefix == "metric" else source.c.number
    if prefix == "param" and not _is_numeric(connection, key):
        value = source.c.text
    having = (
        select(source.c.run)
        .join(schema.runs, _runs.id == source.c.run)
        .where(source.c.key == key, value.is_not(None), _NOT_DELETED, *conditions)
    )
    order = (value.desc(), source.c.run.desc()) if query.descending else (value.asc(), source.c.run.asc())
    ids = list(connection.execute(having.order_by(*order).limit(query.limit).offset(query.offset)).scalars())
    if len(ids) == query.limit:
        return ids
    counted = connection.execute(having.with_only_columns(func.count())).scalar_one()
    lacks = ~exists().where(source.c.run == _runs.id, source.c.key == key, value.is_not(None))
    rest = _ids().where(*conditions, lacks).order_by(_runs.created.desc(), _runs.id.desc())
    rest = rest.limit(query.limit - len(ids)).offset(max(0, query.offset - counted))
    return ids + list(connection.execute(rest).scalars())


def _is_numeric(connection: Connection, key: str) -> bool:
    params = schema.params.c
    wanted = select(params.number).where(params.key == key, params.number.is_not(None)).limit(1)
    return connection.execute(wanted).scalar() is not None


def _summaries(connection: Connection, ids: Sequence[int]) -> list[RunSummary]:
    """Return the summaries of rows by number, in that order."""
    if not ids:
        return []
    rows = connection.execute(select(_runs.id, *SUMMARY_COLUMNS).where(_runs.id.in_(ids)))
    by_id = {row.id: summary_of(row) for row in rows}
    return [by_id[number] for number in ids if number in by_id]


def summary(connection: Connection, run_id: str) -> RunSummary:
    """Return the summary of one run, in the bin or not.

    Raises:
        UserError: There is no such run.
    """
    return summary_of(require_run(connection, run_id))


def detail(connection: Connection, run_id: str) -> RunDetail:
    """Return everything of one run but its curves and its log.

    Raises:
        UserError: There is no such run.
    """
    run = require_run(connection, run_id)
    head = summary_of(run)
    run_dir = Path(head.run_dir)

    def listed(source: Any, *order: Any) -> Sequence[Any]:
        return connection.execute(select(source).where(source.c.run == run.id).order_by(*order)).all()

    artifacts, checkpoints, tables, markers = (
        schema.artifacts,
        schema.checkpoints,
        schema.tables,
        schema.markers,
    )
    return RunDetail(
        summary=head,
        spec_toml=connection.execute(select(schema.specs.c.toml).where(schema.specs.c.run == run.id)).scalar() or "",
        artifacts=tuple(
            artifact_of(row, head.run_id, run_dir) for row in listed(artifacts, artifacts.c.ts, artifacts.c.name)
        ),
        checkpoints=tuple(
            checkpoint_of(row, head.run_id, run_dir)
            for row in listed(checkpoints, checkpoints.c.step, checkpoints.c.ts)
        ),
        tables=tuple(table_of(row) for row in listed(tables, tables.c.ts, tables.c.name)),
        markers=tuple(
            marker_of(row) for row in listed(markers, markers.c.ts, markers.c.kind, markers.c.step, markers.c.text)
        ),
        children=children(connection, run_id),
        metric_keys=_keys(connection, METRIC, [run.id]),
        telemetry_keys=_keys(connection, TELEMETRY, [run.id]),
    )


def children(connection: Connection, run_id: str) -> tuple[RunId, ...]:
    """Return the runs that a run started or that build on it, each once, oldest first."""
    edges = schema.edges.c
    wanted = select(edges.child).where(edges.parent == run_id).group_by(edges.child).order_by(edges.child)
    return tuple(RunId(child) for child in connection.execute(wanted).scalars())


def metric_keys(connection: Connection, run_ids: Sequence[str] | None = None) -> tuple[str, ...]:
    """Return the names of metrics of some runs, or of all, sorted."""
    metrics = schema.metrics.c
    wanted = select(metrics.key).distinct().order_by(metrics.key)
    if run_ids is not None:
        wanted = wanted.where(metrics.run.in_(select(_runs.id).where(_runs.run_id.in_(run_ids))))
    return tuple(connection.execute(wanted).scalars())


def _keys(connection: Connection, source: str, runs: Sequence[int]) -> tuple[str, ...]:
    curves = schema.curves.c
    wanted = select(curves.key).where(curves.run.in_(runs), curves.source == source).distinct().order_by(curves.key)
    return tuple(connection.execute(wanted).scalars())


def params(connection: Connection, run_id: str) -> dict[str, str | float]:
    """Return every value of a run's spec by its dotted path: numbers as such, all else as text."""
    run = require_run(connection, run_id)
    columns = schema.params.c
    rows = connection.execute(select(columns.key, columns.text, columns.number).where(columns.run == run.id))
    return {row.key: row.text if row.number is None else row.number for row in rows.all()}


def relatives(connection: Connection, run_id: str, *, upwards: bool) -> tuple[RunId, ...]:
    """Return all ancestors (or descendants) of a run by lineage, nearest first; cycles are harmless."""
    edges = schema.edges.c
    near, far = (edges.child, edges.parent) if upwards else (edges.parent, edges.child)
    depth = literal_column("1").label("depth")
    tree = select(far.label("run_id"), depth).where(near == run_id).cte("tree", recursive=True)
    deeper = select(far, tree.c.depth + 1).join(tree, near == tree.c.run_id).where(tree.c.depth < 1000)
    tree = tree.union(deeper)
    wanted = select(tree.c.run_id).where(tree.c.run_id != run_id).group_by(tree.c.run_id)
    rows = connection.execute(wanted.order_by(func.min(tree.c.depth), tree.c.run_id))
    return tuple(RunId(row) for row in rows.scalars())


def open_run_ids(connection: Connection) -> tuple[RunId, ...]:
    """Return the runs that have not ended, oldest first."""
    going = [state.value for state in RunState if not state.is_terminal]
    wanted = select(_runs.run_id).where(_NOT_DELETED, _runs.state.in_(going)).order_by(_runs.created, _runs.run_id)
    return tuple(RunId(run_id) for run_id in connection.execute(wanted).scalars())


def run_ids(connection: Connection) -> set[RunId]:
    """Return all runs that are not in the bin."""
    return {RunId(run_id) for run_id in connection.execute(select(_runs.run_id).where(_NOT_DELETED)).scalars()}


def match_ids(connection: Connection, part: str) -> tuple[RunId, ...]:
    """Return the run of this very id, else those whose id begins or ends with a text, newest first."""
    exact = select(_runs.run_id).where(_NOT_DELETED, _runs.run_id == part)
    if connection.execute(exact).scalar() is not None:
        return (RunId(part),)
    fits = or_(_runs.run_id.startswith(part, autoescape=True), _runs.run_id.endswith(part, autoescape=True))
    wanted = select(_runs.run_id).where(_NOT_DELETED, fits).order_by(_runs.created.desc(), _runs.id.desc())
    return tuple(RunId(run_id) for run_id in connection.execute(wanted).scalars()) if part else ()


def all_tags(connection: Connection) -> tuple[str, ...]:
    """Return every tag in use, sorted."""
    tags = schema.tags.c
    return tuple(connection.execute(select(tags.tag).distinct().order_by(tags.tag)).scalars())
