"""Leads an older history file to the newest form: a backup first, then every step in one transaction.

Alembic is imported here only, so that a start with an up-to-date file does not pay for it.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, Engine, select

from core.history import schema

MIGRATIONS_DIR = Path(__file__).parent / "migrations"


def stored_revision(connection: Connection) -> str | None:
    """Return the revision of the file."""
    return connection.execute(select(schema.revisions.c.version_num)).scalar_one_or_none()


def migrate(
    engine: Engine, path: Path, *, target: str = schema.HEAD, migrations_dir: Path = MIGRATIONS_DIR
) -> Path | None:
    """Bring the file at ``path`` to ``target``; return the backup, None when another process had done it meanwhile.

    A step that fails undoes all of them; the file is then as it was.

    Args:
        engine: Of that file, as ``core.history.database.make_engine`` makes it.
        path: The file.
        target: Revision to reach.
        migrations_dir: Folder of Alembic's ``env.py`` and ``versions``.
    """
    with engine.connect().execution_options(mode="IMMEDIATE") as connection, connection.begin():
        revision = stored_revision(connection)
        if revision == target:
            return None
        backup = back_up(path, revision or "none")
        upgrade(connection, target, migrations_dir)
    return backup


def upgrade(connection: Connection, target: str, migrations_dir: Path = MIGRATIONS_DIR) -> None:
    """Run the migration steps up to ``target`` inside the connection's transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations_dir).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, target)


def back_up(path: Path, revision: str) -> Path:
    """Copy a history file beside itself, consistently even while others use it; return the copy."""
    moment = datetime.now(UTC)
    backup = path.with_name(f"{path.stem}.backup-{revision}-{moment:%Y%m%d-%H%M%S-%f}{path.suffix}")
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(backup)) as target:
        source.backup(target)
    return backup
