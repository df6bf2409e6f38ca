"""Which checkpoint a run takes along to another head: a task's sealed folder or a script's file, the newest that is whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.contracts.errors import EnvironmentProblem
from core.contracts.hosts import HostRecord, NobodyToAsk, NoWatcher
from core.contracts.placement import NodePlacement, Placement
from core.fleet.checkpoint_move import newest_checkpoint
from core.fleet.fetch import fetch
from core.fleet.pool import HostPool
from core.fleet.run_folder import RunFolder
from core.jobs.checkpoints import hash_path
from core.jobs.records import write_record
from core.runlog.emit import EventWriter
from core.security.secrets import Secrets
from core.settings.home import Home


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[HostPool]:
    def record(name: str) -> HostRecord:
        return HostRecord(name=name)

    found = HostPool(record, NobodyToAsk(), Secrets.open(tmp_path / "secrets"), tmp_path / "known_hosts")
    yield found
    found.close()


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    home = Home(tmp_path / "home")
    home.prepare()
    found = RunFolder(home, "run")
    found.layout.checkpoints.mkdir(parents=True)
    write_record(found.layout.placement, Placement(nodes=(NodePlacement(node="local", host="local"),)))
    return found


def checkpoint(folder: RunFolder, step: int, name: str, *, is_file: bool) -> Path:
    path = folder.layout.checkpoints / name
    if not is_file:
        path.mkdir()
    (path if is_file else path / "weights").write_text(f"weights of step {step}")
    record(folder, step, name, *hash_path(path), removed=False)
    return path


def record(folder: RunFolder, step: int, name: str, sha256: str, size_bytes: int, *, removed: bool) -> None:
    writer = EventWriter(folder.layout.events(0))
    path = f"checkpoints/{name}"
    writer.write("checkpoint", step=step, path=path, size_bytes=size_bytes, sha256=sha256, removed=removed)
    writer.close()


def moved(pool: HostPool, folder: RunFolder) -> tuple[str, str] | None:
    copy = newest_checkpoint(pool, folder, "b", NoWatcher())
    return None if copy is None else (copy.here, copy.there)


def test_the_newest_whole_one_is_taken_be_it_a_file_or_a_folder(pool: HostPool, folder: RunFolder) -> None:
    older = checkpoint(folder, 10, "step-0000000010", is_file=False)
    newer = checkpoint(folder, 20, "step-00000020.pt", is_file=True)
    newest = checkpoint(folder, 30, "step-00000030.pt", is_file=True)
    assert moved(pool, folder) == (str(newest), "runs/run/checkpoints/step-00000030.pt")
    newest.write_text("damaged")
    assert moved(pool, folder) == (str(newer), "runs/run/checkpoints/step-00000020.pt")
    newer.unlink()
    record(folder, 20, newer.name, "", 0, removed=True)
    assert moved(pool, folder) == (str(older), "runs/run/checkpoints/step-0000000010")


def test_a_path_outside_of_the_checkpoints_is_not_taken(pool: HostPool, folder: RunFolder, tmp_path: Path) -> None:
    outside = tmp_path / "home" / "runs" / "secret"
    outside.write_text("secret")
    record(folder, 99, "../../secret", *hash_path(outside), removed=False)
    with pytest.raises(EnvironmentProblem, match="could not be brought"):
        moved(pool, folder)


def test_without_checkpoints_or_with_the_same_head_nothing_moves(pool: HostPool, folder: RunFolder) -> None:
    assert moved(pool, folder) is None
    checkpoint(folder, 1, "step-1.pt", is_file=True)
    assert newest_checkpoint(pool, folder, "local", NoWatcher()) is None


def test_of_a_run_whose_head_is_this_machine_everything_is_here(folder: RunFolder, pool: HostPool) -> None:
    nodes = (NodePlacement(node="local", run_dir=str(folder.path)), NodePlacement(node="h1", host="h1"))
    write_record(folder.layout.placement, Placement(nodes=nodes))
    assert fetch(pool, folder.path, "checkpoints", NoWatcher()) == 0
