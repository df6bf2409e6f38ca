"""Runs, their specs, metrics and lineage, and their curves as chunks with a pyramid of extremes.

Revision ID: 0001
"""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    CREATE TABLE runs (
    id INTEGER NOT NULL,
    run_id VARCHAR NOT NULL,
    name VARCHAR COLLATE "NOCASE" NOT NULL,
    kind VARCHAR NOT NULL,
    state VARCHAR NOT NULL,
    message VARCHAR NOT NULL,
    hint VARCHAR NOT NULL,
    created FLOAT NOT NULL,
    started FLOAT,
    ended FLOAT,
    progress FLOAT,
    stage VARCHAR NOT NULL,
    step INTEGER,
    total_steps INTEGER,
    eta_s FLOAT,
    tags VARCHAR NOT NULL,
    parent VARCHAR NOT NULL,
    host VARCHAR NOT NULL,
    attempt INTEGER NOT NULL,
    silent_since FLOAT,
    run_dir VARCHAR NOT NULL,
    last_line VARCHAR NOT NULL,
    final VARCHAR NOT NULL,
    deleted FLOAT,
    fold VARCHAR NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (run_id)
    )
    """,
    """
    CREATE INDEX runs_by_created ON runs (created) WHERE deleted IS NULL
    """,
    """
    CREATE INDEX runs_by_started ON runs (started) WHERE deleted IS NULL
    """,
    """
    CREATE INDEX runs_by_parent ON runs (parent)
    """,
    """
    CREATE INDEX runs_by_name ON runs (name) WHERE deleted IS NULL
    """,
    """
    CREATE INDEX runs_by_ended ON runs (ended) WHERE deleted IS NULL
    """,
    """
    CREATE INDEX runs_by_kind ON runs (kind) WHERE deleted IS NULL
    """,
    """
    CREATE INDEX runs_by_state ON runs (state) WHERE deleted IS NULL
    """,
    """
    CREATE INDEX runs_by_duration ON runs (ended - started) WHERE deleted IS NULL
    """,
    """
    CREATE INDEX runs_live ON runs (deleted, kind, state)
    """,
    """
    CREATE TABLE artifacts (
    run INTEGER NOT NULL,
    name VARCHAR NOT NULL,
    path VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    size_bytes INTEGER NOT NULL,
    sha256 VARCHAR NOT NULL,
    meta VARCHAR NOT NULL,
    ts FLOAT NOT NULL,
    UNIQUE (run, name),
    FOREIGN KEY(run) REFERENCES runs (id) ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE axes (
    digest BLOB NOT NULL,
    run INTEGER NOT NULL,
    step BLOB NOT NULL,
    ts BLOB NOT NULL,
    PRIMARY KEY (digest),
    FOREIGN KEY(run) REFERENCES runs (id) ON DELETE CASCADE
    )
    """,
    """
    CREATE INDEX axes_by_run ON axes (run)
    """,
    """
    CREATE TABLE checkpoints (
    run INTEGER NOT NULL,
    path VARCHAR NOT NULL,
    step INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    sha256 VARCHAR NOT NULL,
    ts FLOAT NOT NULL,
    UNIQUE (run, path),
    FOREIGN KEY(run) REFERENCES runs (id) ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE curves (
    id INTEGER NOT NULL,
    run INTEGER NOT NULL,
    "key" VARCHAR NOT NULL,
    source VARCHAR NOT NULL,
    total INTEGER NOT NULL,
    ordered INTEGER NOT NULL,
    last_step INTEGER NOT NULL,
    last_ts FLOAT NOT NULL,
    last_value BLOB NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (run, source, "key"),
    FOREIGN KEY(run) REFERENCES runs (id) ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE edges (
    run INTEGER NOT NULL,
    parent VARCHAR NOT NULL,
    child VARCHAR NOT NULL,
    role VARCHAR NOT NULL,
    ts FLOAT NOT NULL,
    UNIQUE (run, parent, child),
    FOREIGN KEY(run) REFERENCES runs (id) ON DELETE CASCADE
    )
    """,
    """
    CREATE INDEX edges_by_parent ON edges (parent, child)
    """,
    """
    CREATE INDEX edges_by_child ON edges (child, parent)
    """,
    """
    CREATE TABLE markers (
    run INTEGER NOT NULL,
    kind VARCHAR NOT NULL,
    step INTEGER,
    ts FLOAT NOT NULL,
    text VARCHAR NOT NULL,
    FOREIGN KEY(run) REFERENCES runs (id) ON DELETE CASCADE
    )
    """,
    """
    CREATE INDEX markers_by_run ON markers (run, ts)
    """,
    """
    CREATE TABLE metrics (
    run INTEGER NOT NULL,
    "key" VARCHAR NOT NULL,
    value FLOAT,
    UNIQUE (run, "key"),
    FOREIGN KEY(run) REFERENCES runs (id) ON DELETE CASCADE
    )
    """,
    """
    CREATE INDEX metrics_by_value ON metrics ("key", value, run)
    """,
    """
    CREATE TABLE params (
    run INTEGER NOT NULL,
    "key" VARCHAR NOT NULL,
    text VARCHAR NOT NULL,
    number FLOAT,
    UNIQUE (run, "key"),
    FOREIGN KEY(run) REFERENCES runs (id) ON DELETE CASCADE
    )
    """,
    """
    CREATE INDEX params_by_text ON params ("key", text, run)
    """,
    """
    CREATE INDEX params_by_number ON params ("key", number, run)
    """,
    """
    CREATE TABLE positions (
    run INTEGER NOT NULL,
    file VARCHAR NOT NULL,
    "offset" INTEGER NOT NULL,
    UNIQUE (run, file),
    FOREIGN KEY(run) REFERENCES runs (id) ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE specs (
    run INTEGER NOT NULL,
    toml VARCHAR NOT NULL,
    UNIQUE (run),
    FOREIGN KEY(run) REFERENCES runs (id) ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE tables (
    run INTEGER NOT NULL,
    name VARCHAR NOT NULL,
    columns VARCHAR NOT NULL,
    rows VARCHAR NOT NULL,
    ts FLOAT NOT NULL,
    UNIQUE (run, name),
    FOREIGN KEY(run) REFERENCES runs (id) ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE tags (
    run INTEGER NOT NULL,
    tag VARCHAR NOT NULL,
    UNIQUE (run, tag),
    FOREIGN KEY(run) REFERENCES runs (id) ON DELETE CASCADE
    )
    """,
    """
    CREATE INDEX tags_by_tag ON tags (tag, run)
    """,
    """
    CREATE TABLE chunks (
    id INTEGER NOT NULL,
    curve INTEGER NOT NULL,
    number INTEGER NOT NULL,
    count INTEGER NOT NULL,
    min_step INTEGER NOT NULL,
    max_step INTEGER NOT NULL,
    min_ts FLOAT NOT NULL,
    max_ts FLOAT NOT NULL,
    axis BLOB NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (curve, number),
    FOREIGN KEY(curve) REFERENCES curves (id) ON DELETE CASCADE
    )
    """,
    """
    CREATE INDEX chunks_by_axis ON chunks (axis)
    """,
    """
    CREATE INDEX chunks_by_range ON chunks (curve, number, min_step, max_step, min_ts, max_ts)
    """,
    """
    CREATE TABLE pyramid (
    id INTEGER NOT NULL,
    curve INTEGER NOT NULL,
    level INTEGER NOT NULL,
    page INTEGER NOT NULL,
    count INTEGER NOT NULL,
    buckets BLOB NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (curve, level, page),
    FOREIGN KEY(curve) REFERENCES curves (id) ON DELETE CASCADE
    )
    """,
)


def upgrade() -> None:
    """Make the tables."""
    for statement in STATEMENTS:
        op.execute(statement)
