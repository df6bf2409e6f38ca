"""Tables of the index over run directories, in their newest form. ``core.history.migrations`` leads older files here.

Everything in them was read from run directories and can be read again, except which runs lie in the bin. A new
database is made from these tables directly; a test proves that the migrations end in the same form.
"""

from __future__ import annotations

from sqlalchemy import (
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    text,
)

REVISIONS = ("0001", "0002", "0003")
"""Every revision there ever was, oldest first; a stored one that is not among them comes from a newer Pilothouse."""
HEAD = REVISIONS[-1]

metadata = MetaData()


def _run() -> Column[int]:
    return Column("run", Integer, ForeignKey("runs.id", ondelete="CASCADE"), nullable=False)


revisions = Table("alembic_version", metadata, Column("version_num", String(32), primary_key=True))

runs = Table(
    "runs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run_id", String, nullable=False, unique=True),
    Column("name", String(collation="NOCASE"), nullable=False),
    Column("kind", String, nullable=False),
    Column("state", String, nullable=False),
    Column("message", String, nullable=False),
    Column("hint", String, nullable=False),
    Column("created", Float, nullable=False),
    Column("started", Float),
    Column("ended", Float),
    Column("progress", Float),
    Column("stage", String, nullable=False),
    Column("step", Integer),
    Column("total_steps", Integer),
    Column("eta_s", Float),
    Column("tags", String, nullable=False),
    Column("parent", String, nullable=False),
    Column("host", String, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("silent_since", Float),
    Column("run_dir", String, nullable=False),
    Column("last_line", String, nullable=False),
    Column("final", String, nullable=False),
    Column("deleted", Float),
    Column("fold", String, nullable=False),
)
"""One row a run. ``tags`` and ``final`` are JSON for display, ``fold`` is the state of ``core.runlog.fold``."""

_live = text("deleted IS NULL")
for _name in ("created", "name", "kind", "state", "started", "ended"):
    Index(f"runs_by_{_name}", runs.c[_name], sqlite_where=_live)
Index("runs_by_duration", runs.c.ended - runs.c.started, sqlite_where=_live)
Index("runs_by_parent", runs.c.parent)
Index("runs_live", runs.c.deleted, runs.c.kind, runs.c.state)

specs = Table("specs", metadata, _run(), Column("toml", String, nullable=False), UniqueConstraint("run"))

params = Table(
    "params",
    metadata,
    _run(),
    Column("key", String, nullable=False),
    Column("text", String, nullable=False),
    Column("number", Float),
    UniqueConstraint("run", "key"),
    Index("params_by_number", "key", "number", "run"),
    Index("params_by_text", "key", "text", "run"),
)
"""Every value of a run's spec by its dotted path, for filters and sorts."""

metrics = Table(
    "metrics",
    metadata,
    _run(),
    Column("key", String, nullable=False),
    Column("value", Float),
    UniqueConstraint("run", "key"),
    Index("metrics_by_value", "key", "value", "run"),
)
"""Final (or latest) metrics for sorts; NULL stands for NaN, which SQLite cannot hold."""

tags = Table(
    "tags",
    metadata,
    _run(),
    Column("tag", String, nullable=False),
    UniqueConstraint("run", "tag"),
    Index("tags_by_tag", "tag", "run"),
)

positions = Table(
    "positions",
    metadata,
    _run(),
    Column("file", String, nullable=False),
    Column("offset", Integer, nullable=False),
    UniqueConstraint("run", "file"),
)
"""How far each event log was read, in bytes."""

edges = Table(
    "edges",
    metadata,
    _run(),
    Column("parent", String, nullable=False),
    Column("child", String, nullable=False),
    Column("role", String, nullable=False),
    Column("ts", Float, nullable=False),
    UniqueConstraint("run", "parent", "child"),
    Index("edges_by_parent", "parent", "child"),
    Index("edges_by_child", "child", "parent"),
)
"""Lineage, as run ids; ``run`` is the one that told of it."""

artifacts = Table(
    "artifacts",
    metadata,
    _run(),
    Column("name", String, nullable=False),
    Column("path", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("size_bytes", Integer, nullable=False),
    Column("sha256", String, nullable=False),
    Column("meta", String, nullable=False),
    Column("ts", Float, nullable=False),
    UniqueConstraint("run", "name"),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    _run(),
    Column("path", String, nullable=False),
    Column("step", Integer, nullable=False),
    Column("size_bytes", Integer, nullable=False),
    Column("sha256", String, nullable=False),
    Column("ts", Float, nullable=False),
    UniqueConstraint("run", "path"),
)

tables = Table(
    "tables",
    metadata,
    _run(),
    Column("name", String, nullable=False),
    Column("columns", String, nullable=False),
    Column("rows", String, nullable=False),
    Column("ts", Float, nullable=False),
    UniqueConstraint("run", "name"),
)

markers = Table(
    "markers",
    metadata,
    _run(),
    Column("kind", String, nullable=False),
    Column("step", Integer),
    Column("ts", Float, nullable=False),
    Column("text", String, nullable=False),
    Column("signal", String, nullable=False),
    Column("action", String, nullable=False),
    Index("markers_by_run", "run", "ts"),
)

curves = Table(
    "curves",
    metadata,
    Column("id", Integer, primary_key=True),
    _run(),
    Column("key", String, nullable=False),
    Column("source", String, nullable=False),
    Column("total", Integer, nullable=False),
    Column("ordered", Integer, nullable=False),
    Column("last_step", Integer, nullable=False),
    Column("last_ts", Float, nullable=False),
    Column("last_value", LargeBinary, nullable=False),
    UniqueConstraint("run", "source", "key"),
)
"""One row a curve. ``source`` is ``metric`` or ``telemetry``; ``ordered`` tells that steps and times never fall."""

axes = Table(
    "axes",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    _run(),
    Column("step", LargeBinary, nullable=False),
    Column("ts", LargeBinary, nullable=False),
    Index("axes_by_run", "run"),
)
"""Steps and times of a chunk, shared by all curves of the run that were written together."""

chunks = Table(
    "chunks",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("curve", Integer, ForeignKey("curves.id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("count", Integer, nullable=False),
    Column("min_step", Integer, nullable=False),
    Column("max_step", Integer, nullable=False),
    Column("min_ts", Float, nullable=False),
    Column("max_ts", Float, nullable=False),
    Column("axis", LargeBinary, nullable=False),
    Column("value", LargeBinary, nullable=False),
    UniqueConstraint("curve", "number"),
    Index("chunks_by_range", "curve", "number", "min_step", "max_step", "min_ts", "max_ts"),
    Index("chunks_by_axis", "axis"),
)

pyramid = Table(
    "pyramid",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("curve", Integer, ForeignKey("curves.id", ondelete="CASCADE"), nullable=False),
    Column("level", Integer, nullable=False),
    Column("page", Integer, nullable=False),
    Column("count", Integer, nullable=False),
    Column("buckets", LargeBinary, nullable=False),
    UniqueConstraint("curve", "level", "page"),
)
"""Extremes of buckets of points, some hundred buckets a row."""

_WORDS = "{0}.name || ' ' || {0}.run_id || ' ' || {0}.kind || ' ' || {0}.tags"

SEARCH = (
    "CREATE VIRTUAL TABLE search USING fts5(words, tokenize='trigram')",
    "CREATE TRIGGER search_added AFTER INSERT ON runs BEGIN"
    f" INSERT INTO search (rowid, words) VALUES (new.id, {_WORDS.format('new')}); END",
    "CREATE TRIGGER search_changed AFTER UPDATE OF name, kind, tags ON runs BEGIN"
    f" UPDATE search SET words = {_WORDS.format('new')} WHERE rowid = new.id; END",
    "CREATE TRIGGER search_removed AFTER DELETE ON runs BEGIN DELETE FROM search WHERE rowid = old.id; END",
)
"""Text search over runs: any part of a word of three letters or more is found by an index."""
