"""The SQLite file of the history: opened, checked, migrated, set aside when damaged, shared by processes and threads.

How: WAL, one pooled connection a thread, short BEGIN IMMEDIATE transactions. A damaged file is renamed and a fresh one
made, since all in it can be read again from the run directories. A file replaced by another process is noticed at the
next transaction. Knows the tables' form, not what is in them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from core.contracts.errors import EnvironmentProblem
from core.contracts.notices import Notice, Severity
from core.history import schema
from core.history.blocks import DamagedBlock
from core.history.faults import folder_problem, is_busy, is_damage, problem_of

BUSY_TIMEOUT_S = 10.0
QUICK_CHECK_LIMIT_BYTES = 16 << 20
_HEADER = b"SQLite format 3\x00"
_SIDE_FILES = ("", "-wal", "-shm")
_REBUILDING = "It is rebuilt from the run directories; nothing of a run is lost."


class _NotOurs(Exception):
    """The file is a database, but no history."""


def _prepare_connection(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    for pragma in ("foreign_keys=ON", "synchronous=NORMAL", "cache_size=-16000", "temp_store=MEMORY"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(f"BEGIN {connection.get_execution_options().get('mode', 'DEFERRED')}")


def make_engine(path: Path, busy_timeout_s: float = BUSY_TIMEOUT_S) -> Engine:
    """Return an engine whose transactions begin as their connection's ``mode`` option says."""
    engine = create_engine(
        f"sqlite:///{path}",
        poolclass=QueuePool,
        pool_size=8,
        max_overflow=32,
        connect_args={"timeout": busy_timeout_s, "check_same_thread": False, "isolation_level": None},
    )
    event.listen(engine, "connect", _prepare_connection)
    event.listen(engine, "begin", _begin)
    return engine


class Database:
    """One history file. Thread-safe.

    Attributes:
        path: The file.
        notice: What the user should be told about how it was opened; None when all was well.
        generation: Counts the times the file was found new or made anew: whoever sees it change indexes all runs again.
    """

    def __init__(self, path: Path, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        """Open the file, making or migrating it as needed.

        Raises:
            EnvironmentProblem: It cannot be used, or was made by a newer Pilothouse (then nothing is touched).
        """
        self.path = path
        self.notice: Notice | None = None
        self.generation = 0
        self._busy_timeout_s = busy_timeout_s
        self._swap_lock = threading.RLock()
        self._write_lock = threading.Lock()
        self._engine: Engine | None = None
        self._identity: tuple[int, int] | None = None
        self._open()

    @contextmanager
    def read(self) -> Generator[Connection]:
        """Yield a connection in a read transaction: one consistent view.

        Raises:
            EnvironmentProblem: The file cannot be read, or was damaged and has been replaced by a fresh one.
        """
        with self._translated(), self._checked_engine().connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Generator[Connection]:
        """Yield a connection in a write transaction; committed at the end, undone by an exception.

        Raises:
            EnvironmentProblem: As ``read``; also a full disk, a read-only file, another program that holds it.
        """
        with (
            self._translated(),
            self._write_lock,
            self._checked_engine().connect().execution_options(mode="IMMEDIATE") as connection,
            connection.begin(),
        ):
            yield connection

    def close(self) -> None:
        """Let go of the file; a later use opens it again."""
        with self._swap_lock:
            if self._engine is not None:
                self._engine.dispose()
                self._engine = None

    @contextmanager
    def _translated(self) -> Generator[None]:
        try:
            yield
        except (DBAPIError, DamagedBlock) as error:
            if is_damage(error):
                self._replace(str(error))
                raise EnvironmentProblem("The history file was damaged and has been set aside.", _REBUILDING) from error
            problem = problem_of(error, self.path)
            if problem is None:
                raise
            raise problem from error

    def _checked_engine(self) -> Engine:
        with self._swap_lock:
            if self._engine is None or self._identity != self._file_identity():
                self.close()
                self._open()
            if self._engine is None:
                raise AssertionError("opening leaves an engine or raises")
            return self._engine

    def _file_identity(self) -> tuple[int, int] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _open(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise folder_problem(self.path, error) from error
        try:
            self._open_file()
        except (DBAPIError, DamagedBlock, _NotOurs) as error:
            self.close()
            if isinstance(error, _NotOurs) or is_damage(error):
                self._replace(str(error))
                return
            problem = problem_of(error, self.path)
            if problem is None:
                raise
            raise problem from error
        except OSError as error:
            raise folder_problem(self.path, error) from error

    def _open_file(self) -> None:
        is_empty = not self.path.exists() or self.path.stat().st_size == 0
        if not is_empty:
            with self.path.open("rb") as file:
                if file.read(len(_HEADER)) != _HEADER:
                    raise DamagedBlock("not a SQLite file")
        engine = make_engine(self.path, self._busy_timeout_s)
        self._engine = engine
        if is_empty:
            self._create(engine)
        else:
            self._check(engine)
        self._identity = self._file_identity()

    def _create(self, engine: Engine) -> None:
        """Make the tables; two processes may try at once, and one of them then finds them made."""
        self._enable_wal(engine)
        with engine.connect().execution_options(mode="IMMEDIATE") as connection, connection.begin():
            if not engine.dialect.has_table(connection, "alembic_version"):
                schema.metadata.create_all(connection, checkfirst=False)
                for statement in schema.SEARCH:
                    connection.exec_driver_sql(statement)
                connection.execute(schema.revisions.insert().values(version_num=schema.HEAD))
                self.generation += 1

    def _enable_wal(self, engine: Engine) -> None:
        """Switch to WAL; SQLite does not wait for others here, so we do."""
        deadline = time.monotonic() + self._busy_timeout_s
        while True:
            try:
                with engine.connect() as connection:
                    connection.connection.cursor().execute("PRAGMA journal_mode=WAL")
            except Exception as error:
                if not is_busy(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return

    def _check(self, engine: Engine) -> None:
        revision = self._revision(engine)
        if revision is None:
            self._create(engine)
            return
        if revision not in schema.REVISIONS:
            raise EnvironmentProblem(
                f"The history {str(self.path)!r} was made by a newer Pilothouse (revision {revision}).",
                "Upgrade Pilothouse, or set PILOTHOUSE_HOME to another folder. Nothing was changed.",
            )
        if self.path.stat().st_size <= QUICK_CHECK_LIMIT_BYTES:
            with engine.connect() as connection, connection.begin():
                found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
            if found != "ok":
                raise DamagedBlock(str(found))
        if revision != schema.HEAD:
            from core.history.migration import migrate

            backup = migrate(engine, self.path)
            self.notice = Notice(
                severity=Severity.INFO,
                message="The history was brought to the form of this version.",
                details=f"The earlier file is kept as {backup.name}." if backup else "",
            )

    def _revision(self, engine: Engine) -> str | None:
        """Return the form of the file; None while it has no tables, as when another process is making them."""
        with engine.connect() as connection, connection.begin():
            names = set(connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'").scalars())
            if "alembic_version" not in names:
                if names:
                    raise _NotOurs("another program's database")
                return None
            return str(connection.execute(select(schema.revisions.c.version_num)).scalar_one_or_none())

    def _replace(self, reason: str) -> None:
        """Set the damaged file aside, unless another process or thread has done so already, and make a fresh one."""
        with self._swap_lock:
            seen = self._identity
            self.close()
            is_ours = seen is None or seen == self._file_identity()
            kept = self._set_aside() if is_ours else "the copy that was set aside"
            self._identity = None
            self._open()
            self.generation += 1
            self.notice = Notice(
                severity=Severity.WARNING,
                message="The history file was damaged and has been set aside.",
                hint=_REBUILDING,
                details=f"Kept as {kept}. Reason: {reason}",
            )

    def _set_aside(self) -> str:
        moment = datetime.now(UTC)
        kept = self.path.with_name(f"{self.path.stem}.corrupt-{moment:%Y%m%d-%H%M%S-%f}{self.path.suffix}")
        for end in _SIDE_FILES:
            source = self.path.with_name(self.path.name + end)
            try:
                source.rename(kept.with_name(kept.name + end))
            except FileNotFoundError:
                continue
            except OSError as error:
                raise folder_problem(self.path, error) from error
        return kept.name
