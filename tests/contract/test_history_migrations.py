"""Every step from one form of the history to the next, over real files; a step without a test here fails."""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from core.contracts.errors import EnvironmentProblem
from core.contracts.runs import RunQuery
from core.history import migration, schema
from core.history.database import Database, make_engine
from core.history.history import History
from tests.helpers.builders import build_run
from tests.helpers.history_dump import dump

VERSIONS = migration.MIGRATIONS_DIR / "versions"


def file_at(path: Path, revision: str) -> None:
    """Make a history file of an earlier form."""
    engine = make_engine(path)
    with engine.connect() as connection:
        connection.connection.cursor().execute("PRAGMA journal_mode=WAL")
    with engine.connect().execution_options(mode="IMMEDIATE") as connection, connection.begin():
        migration.upgrade(connection, revision)
    engine.dispose()


def form_of(connection: Connection) -> dict[str, str]:
    """Return the tables' and indexes' definitions, without differences of blanks and quotes."""
    rows = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE name != 'alembic_version'").all()
    return {name: re.sub(r"\s*([(),])\s*", r"\1", re.sub(r'[\s"]+', " ", sql or "")).strip() for name, sql in rows}


def test_revisions_are_those_of_the_steps() -> None:
    found = [
        re.search(r'^revision = "(\d+)"$', path.read_text(), re.MULTILINE) for path in sorted(VERSIONS.glob("rev_*.py"))
    ]
    assert tuple(match[1] for match in found if match) == schema.REVISIONS


@pytest.mark.parametrize("revision", schema.REVISIONS)
def test_every_step_has_a_test(revision: str) -> None:
    assert callable(globals().get(f"test_step_{revision}")), f"write test_step_{revision}"


def test_the_steps_end_in_the_form_that_a_new_file_has(tmp_path: Path) -> None:
    file_at(tmp_path / "stepped.sqlite", schema.HEAD)
    with Database(tmp_path / "stepped.sqlite").read() as connection:
        stepped = form_of(connection)
    with Database(tmp_path / "new.sqlite").read() as connection:
        assert form_of(connection) == stepped


def test_step_0001(tmp_path: Path) -> None:
    file_at(tmp_path / "history.sqlite", "0001")
    with closing(sqlite3.connect(tmp_path / "history.sqlite")) as connection:
        names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert {"runs", "curves", "chunks", "pyramid"} <= names
    assert "search" not in names


def test_step_0002(tmp_path: Path) -> None:
    """Runs of the first form are kept and can then be found by their words."""
    run_dir = build_run(tmp_path, name="river", steps=5000)
    path = tmp_path / "history.sqlite"
    history = History.open(path)
    history.index([run_dir])
    history.close()
    before = dump(path)
    _take_back_to_0001(path)
    with closing(sqlite3.connect(path)) as connection, pytest.raises(sqlite3.OperationalError):
        connection.execute("SELECT * FROM search")
    history = History.open(path)
    assert [row.name for row in history.runs(RunQuery(text="ive")).rows] == ["river"]
    assert history.notice is not None
    assert not history.was_rebuilt
    backups = list(tmp_path.glob("history.backup-0001-*.sqlite"))
    assert [backup.name in history.notice.details for backup in backups] == [True]
    history.close()
    assert dump(path) == before
    with closing(sqlite3.connect(backups[0])) as connection:
        assert connection.execute("SELECT name FROM runs").fetchall() == [("river",)]
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == ("0001",)
    assert History.open(path).notice is None


def test_step_0003(tmp_path: Path) -> None:
    """Markers of the second form keep their text; those of a new one tell signal and action."""
    run_dir = build_run(tmp_path, name="river", steps=50)
    path = tmp_path / "history.sqlite"
    history = History.open(path)
    history.index([run_dir])
    run_id = history.runs(RunQuery()).rows[0].run_id
    before = history.detail(run_id).markers
    assert before
    history.close()
    with closing(sqlite3.connect(path)) as connection:
        _take_back_to_0002(connection)
        connection.commit()
    history = History.open(path)
    assert history.detail(run_id).markers == before
    history.close()


def _take_back_to_0002(connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE markers DROP COLUMN signal")
    connection.execute("ALTER TABLE markers DROP COLUMN action")
    connection.execute("UPDATE alembic_version SET version_num = '0002'")


def _take_back_to_0001(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        _take_back_to_0002(connection)
        for statement in (
            "DROP TRIGGER search_added",
            "DROP TRIGGER search_changed",
            "DROP TRIGGER search_removed",
            "DROP TABLE search",
            "UPDATE alembic_version SET version_num = '0001'",
        ):
            connection.execute(statement)
        connection.commit()


@pytest.fixture
def further_step(tmp_path: Path) -> Callable[[str], Path]:
    """Return a maker of a copy of the steps with one more, whose body is given."""

    def make(body: str) -> Path:
        folder = tmp_path / "migrations"
        shutil.copytree(migration.MIGRATIONS_DIR, folder, ignore=shutil.ignore_patterns("__pycache__"))
        text = f'from alembic import op\nrevision = "9999"\ndown_revision = "{schema.HEAD}"\n\n\ndef upgrade():\n{body}'
        (folder / "versions" / "rev_9999_more.py").write_text(text)
        return folder

    return make


def test_a_step_that_fails_leaves_the_file_as_it_was(tmp_path: Path, further_step: Callable[[str], Path]) -> None:
    path = tmp_path / "history.sqlite"
    History.open(path).close()
    folder = further_step('    op.execute("CREATE TABLE half (a)")\n    op.execute("SELECT nonsense FROM nowhere")\n')
    engine = make_engine(path)
    with pytest.raises(OperationalError, match="nowhere"):
        migration.migrate(engine, path, target="9999", migrations_dir=folder)
    with engine.connect() as connection, connection.begin():
        assert "half" not in form_of(connection)
        assert migration.stored_revision(connection) == schema.HEAD
    engine.dispose()
    assert len(list(tmp_path.glob(f"history.backup-{schema.HEAD}-*.sqlite"))) == 1
    assert History.open(path).notice is None


def test_a_step_that_another_process_took_is_not_taken_again(
    tmp_path: Path, further_step: Callable[[str], Path]
) -> None:
    path = tmp_path / "history.sqlite"
    History.open(path).close()
    folder = further_step('    op.execute("CREATE TABLE more (a)")\n')
    engine = make_engine(path)
    arguments: dict[str, Any] = {"target": "9999", "migrations_dir": folder}
    assert migration.migrate(engine, path, **arguments) is not None
    assert migration.migrate(engine, path, **arguments) is None
    engine.dispose()
    with pytest.raises(EnvironmentProblem, match="newer Pilothouse"):
        History.open(path)
