"""Everything an index says, in a form in which two indexes over the same run directories are equal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import select

from core.history import pyramid, schema
from core.history.curves import read_chunks
from core.history.database import Database
from core.history.extremes import join
from core.history.rows import fold_from_json

_LISTS = (
    schema.specs,
    schema.params,
    schema.metrics,
    schema.tags,
    schema.positions,
    schema.edges,
    schema.artifacts,
    schema.checkpoints,
    schema.tables,
    schema.markers,
)


def dump(path: Path) -> dict[str, Any]:
    """Return what the history file at ``path`` holds, by run id, without row numbers and times of deletion."""
    database = Database(path)
    with database.read() as connection:
        runs = {row.id: row for row in connection.execute(select(schema.runs)).all()}
        found: dict[str, Any] = {}
        for number, row in runs.items():
            values = dict(row._mapping)
            fold = fold_from_json(values.pop("fold"))
            del values["id"], values["deleted"]
            lists = {
                table.name: sorted(
                    repr({k: v for k, v in line._mapping.items() if k != "run"})
                    for line in connection.execute(select(table).where(table.c.run == number))
                )
                for table in _LISTS
            }
            found[row.run_id] = {"row": values, "fold": fold, **lists, "curves": _curves(connection, number)}
        axes = connection.execute(select(schema.axes.c.digest)).scalars().all()
        used = connection.execute(select(schema.chunks.c.axis).distinct()).scalars().all()
    database.close()
    assert sorted(axes) == sorted(used), "every stored axis is used, and every used one stored"
    return found


def _curves(connection: Any, run: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for row in connection.execute(select(schema.curves).where(schema.curves.c.run == run)).all():
        points = join([part for _, part in read_chunks(connection, row.id, 0, 1 << 40)])
        pages = connection.execute(
            select(schema.pyramid.c.level, schema.pyramid.c.page, schema.pyramid.c.count, schema.pyramid.c.buckets)
            .where(schema.pyramid.c.curve == row.id)
            .order_by(schema.pyramid.c.level, schema.pyramid.c.page)
        ).all()
        columns = [points.step.tobytes(), points.ts.tobytes(), points.value.tobytes()]
        head = (row.total, row.ordered, row.last_step, row.last_ts, row.last_value)
        assert row.total == len(points)
        assert sum(page.count for page in pages if page.level == 0) == row.total // 4096 * (4096 // pyramid.FINEST)
        found[f"{row.source}:{row.key}"] = (head, columns, [tuple(page) for page in pages])
    return found
