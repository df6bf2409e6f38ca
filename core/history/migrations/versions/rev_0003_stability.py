"""What the stability guard saw and did stands beside the text of its markers.

Markers written before keep their text alone; making the index anew from the run directories fills them in.

Revision ID: 0003
"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table anew with two more columns: a column added to a table would stand behind its constraints."""
    op.execute("DROP INDEX markers_by_run")
    op.execute("ALTER TABLE markers RENAME TO markers_before")
    op.execute(
        """
        CREATE TABLE markers (
        run INTEGER NOT NULL,
        kind VARCHAR NOT NULL,
        step INTEGER,
        ts FLOAT NOT NULL,
        text VARCHAR NOT NULL,
        signal VARCHAR NOT NULL,
        action VARCHAR NOT NULL,
        FOREIGN KEY(run) REFERENCES runs (id) ON DELETE CASCADE
        )
        """
    )
    op.execute("INSERT INTO markers SELECT run, kind, step, ts, text, '', '' FROM markers_before")
    op.execute("DROP TABLE markers_before")
    op.execute("CREATE INDEX markers_by_run ON markers (run, ts)")
