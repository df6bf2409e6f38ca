"""The history file under real faults: damage, full disks, foreign and newer files, other processes."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from core.contracts.errors import EnvironmentProblem
from core.contracts.runs import RunQuery
from core.history.database import Database
from core.history.history import History
from core.runlog.tail import read_batch
from tests.helpers.builders import build_run


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def path(home: Path) -> Path:
    """Return a history file with one run in it, at rest."""
    run_dir = build_run(home, steps=9000)
    history = History.open(home / "history.sqlite")
    history.index([run_dir])
    history.mark_indexed()
    history.close()
    with closing(sqlite3.connect(history.path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return history.path


def set_aside(path: Path) -> list[str]:
    return sorted(found.name for found in path.parent.glob("history.corrupt-*.sqlite"))


def reindexed(history: History, home: Path) -> int:
    assert history.was_rebuilt
    assert history.index(sorted((home / "runs").iterdir())) == ()
    history.mark_indexed()
    assert not history.was_rebuilt
    return history.runs(RunQuery()).total


def test_a_new_file_wants_to_be_filled_once(home: Path) -> None:
    history = History.open(home / "history.sqlite")
    assert history.was_rebuilt
    assert history.notice is None
    history.mark_indexed()
    history.close()
    assert not History.open(home / "history.sqlite").was_rebuilt


def overwrite(path: Path, at: int, length: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\xa5" * length)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"this is no database, whatever its name says " * 100),
        lambda path: overwrite(path, 0, 16),
        lambda path: overwrite(path, 100, 4000),
        lambda path: overwrite(path, 4096 * 3, path.stat().st_size // 2),
        lambda path: os.truncate(path, 5000),
        lambda path: os.truncate(path, path.stat().st_size // 2),
    ],
    ids=["text", "header", "first page", "middle", "one page left", "half left"],
)
def test_a_damaged_file_is_set_aside_and_a_fresh_one_filled(home: Path, path: Path, damage: object) -> None:
    assert callable(damage)
    damage(path)
    history = History.open(path)
    assert history.notice is not None
    assert "damaged" in history.notice.message
    assert len(set_aside(path)) == 1
    assert set_aside(path)[0] in history.notice.details
    assert reindexed(history, home) == 1


def test_another_programs_database_is_set_aside_whole(home: Path, path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE notes (text)")
    history = History.open(path)
    with closing(sqlite3.connect(path.parent / set_aside(path)[0])) as connection:
        assert connection.execute("SELECT count(*) FROM notes").fetchone() == (0,)
    assert reindexed(history, home) == 1


def test_damage_that_shows_while_reading_sets_the_file_aside_and_says_so(
    home: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.history.database.QUICK_CHECK_LIMIT_BYTES", 0)
    run_id = next((home / "runs").iterdir()).name
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE chunks SET value = zeroblob(50)")
        connection.commit()
    history = History.open(path)
    assert history.notice is None
    with pytest.raises(EnvironmentProblem, match="set aside") as caught:
        history.curve(run_id, "lr", points=10**6)
    assert "rebuilt" in caught.value.hint
    assert len(set_aside(path)) == 1
    assert reindexed(history, home) == 1
    assert history.curve(run_id, "lr", points=10**6).total == 9000


def test_pages_that_rot_under_an_open_history_are_noticed(home: Path, path: Path) -> None:
    history = History.open(path)
    history.close()
    overwrite(path, 4096 * 2, path.stat().st_size - 4096 * 3)
    assert history.runs(RunQuery(text="digits")).total == 0, "the file is opened anew, found damaged and replaced"
    assert history.notice is not None
    assert len(set_aside(path)) == 1
    assert reindexed(history, home) == 1


def test_a_newer_history_is_refused_and_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    before = path.read_bytes()
    with pytest.raises(EnvironmentProblem, match="newer Pilothouse") as caught:
        History.open(path)
    assert "Upgrade" in caught.value.hint
    assert path.read_bytes() == before
    assert set_aside(path) == []


def test_a_file_in_place_of_the_folder_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(EnvironmentProblem, match="cannot hold the history"):
        History.open(tmp_path / "home" / "history.sqlite")


def test_a_folder_in_place_of_the_file_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "history.sqlite").mkdir()
    with pytest.raises(EnvironmentProblem, match="history"):
        History.open(tmp_path / "history.sqlite")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write to any folder")
def test_a_folder_without_permission_is_a_sentence(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(EnvironmentProblem, match=r"permission|opened|written"):
            History.open(tmp_path / "history.sqlite")
    finally:
        tmp_path.chmod(0o700)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 2 MiB; needs root."""
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    target = tmp_path / "disk"
    target.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(target)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"mounting is not allowed here: {done.stderr.decode().strip()}")
    yield target
    subprocess.run(["umount", "-l", str(target)], check=True)


def test_a_read_only_disk_is_a_sentence(home: Path, path: Path, mounted: Path) -> None:
    copy = mounted / path.name
    copy.write_bytes(path.read_bytes())
    subprocess.run(["mount", "-o", "remount,ro", str(mounted)], check=True)
    with pytest.raises(EnvironmentProblem, match=r"cannot be (written|opened)"):
        History.open(copy).add(next((home / "runs").iterdir()))


def test_a_full_disk_is_a_sentence_and_nothing_is_half_done(home: Path, mounted: Path) -> None:
    run_dir = build_run(home, steps=60_000, metrics=("x", "y", "z"))
    history = History.open(mounted / "history.sqlite")

    def fold_all(limit_bytes: int) -> None:
        while not (batch := read_batch(run_dir, history.offsets(run_dir.name), limit_bytes)).is_empty:
            history.ingest(run_dir, batch)

    with pytest.raises(EnvironmentProblem, match="disk") as caught:
        fold_all(200_000)
    assert "space" in caught.value.hint
    stored = history.curve(run_dir.name, "x").total
    subprocess.run(["mount", "-o", "remount,size=64m", str(mounted)], check=True)
    fold_all(4 << 20)
    whole = history.curve(run_dir.name, "x", points=10**6)
    assert 0 < stored < whole.total == 60_000
    assert whole.step.tolist() == list(range(60_000))
    history.close()


def test_a_history_that_another_program_holds_for_long_is_a_sentence(path: Path) -> None:
    database = Database(path, busy_timeout_s=0.05)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(EnvironmentProblem, match="held by another program"), database.write():
            pass
        other.execute("ROLLBACK")
    with database.write():
        pass
    database.close()


def test_a_file_that_another_process_replaced_is_opened_anew(home: Path, path: Path) -> None:
    history = History.open(path)
    assert history.runs(RunQuery()).total == 1
    path.rename(path.with_name("moved.sqlite"))
    for end in ("-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)
    assert history.runs(RunQuery()).total == 0
    assert reindexed(history, home) == 1


def test_many_threads_share_one_history(home: Path, path: Path) -> None:
    history = History.open(path)
    run_dirs = [build_run(home, number=n, steps=20, telemetry=False) for n in range(1, 17)]
    failures: list[BaseException] = []

    def work(part: list[Path]) -> None:
        try:
            for run_dir in part:
                history.ingest(run_dir, read_batch(run_dir, history.offsets(run_dir.name)))
                history.runs(RunQuery(text="digits"))
                history.curve(run_dir.name, "lr")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(run_dirs[n::4],)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert history.runs(RunQuery()).total == 17
    history.close()


def test_processes_that_make_the_file_at_once_make_one(home: Path) -> None:
    run_dir = build_run(home, steps=50)
    command = [sys.executable, "-m", "tests.helpers.ingest_process", str(home / "history.sqlite"), str(run_dir), "4000"]
    processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(3)]
    for process in processes:
        _, errors = process.communicate(timeout=50)
        assert process.returncode == 0, errors.decode()
    assert set_aside(home / "history.sqlite") == []
    assert History.open(home / "history.sqlite").curve(run_dir.name, "lr").total == 50


def test_opening_an_up_to_date_history_imports_no_alembic_and_no_orm(path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from core.history.history import History\n"
        f"History.open(Path({str(path)!r})).close()\n"
        "heavy = ('alembic', 'sqlalchemy.orm', 'tsdownsample', 'pyarrow', 'tensorboard')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
