"""Text search over names, ids, kinds and tags of runs.

Revision ID: 0002
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_WORDS = "{0}.name || ' ' || {0}.run_id || ' ' || {0}.kind || ' ' || {0}.tags"


def upgrade() -> None:
    """Make the index, fill it from the runs there are, and keep it by triggers."""
    op.execute("CREATE VIRTUAL TABLE search USING fts5(words, tokenize='trigram')")
    op.execute(f"INSERT INTO search (rowid, words) SELECT id, {_WORDS.format('runs')} FROM runs")
    op.execute(
        "CREATE TRIGGER search_added AFTER INSERT ON runs BEGIN"
        f" INSERT INTO search (rowid, words) VALUES (new.id, {_WORDS.format('new')}); END"
    )
    op.execute(
        "CREATE TRIGGER search_changed AFTER UPDATE OF name, kind, tags ON runs BEGIN"
        f" UPDATE search SET words = {_WORDS.format('new')} WHERE rowid = new.id; END"
    )
    op.execute(
        "CREATE TRIGGER search_removed AFTER DELETE ON runs BEGIN DELETE FROM search WHERE rowid = old.id; END"
    )
