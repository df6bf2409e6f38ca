"""The run directory here when a resume does not come about: the run stands as before; and one resumes at a time."""

from __future__ import annotations

import fcntl
from pathlib import Path

import msgspec
import pytest

from core.contracts.agent import NodeStanding
from core.contracts.errors import UserError
from core.contracts.mirrors import LinkRecord
from core.contracts.placement import NodePlacement, Placement
from core.contracts.states import RunState
from core.fleet.fleet import Fleet
from core.fleet.run_folder import RunFolder
from core.fleet.standing import standing_of
from core.jobs.records import ExitRecord, write_record
from core.settings.home import Home


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    home = Home(tmp_path / "home")
    home.prepare()
    found = RunFolder(home, "20261124-061203-toy-3f9a1c")
    found.layout.control.mkdir(parents=True)
    found.layout.spec.touch()
    nodes = tuple(NodePlacement(node=name, host=name) for name in ("h1", "h2"))
    write_record(found.layout.placement, Placement(nodes=nodes))
    return found


@pytest.mark.parametrize("attempt", [1, 3])
def test_a_resume_that_is_taken_back_leaves_the_end_as_it_was(folder: RunFolder, attempt: int) -> None:
    before = folder.placement()
    end = ExitRecord(state=RunState.FAILED, message="It broke.", attempt=attempt, started=1.0, ended=2.0)
    write_record(folder.layout.exit_record("h1"), end)
    as_it_was = standing_of(folder.path)
    folder.begin_attempt(msgspec.structs.replace(before, attempt=attempt + 1))
    assert standing_of(folder.path).state is None
    folder.take_back_attempt(before)
    assert standing_of(folder.path) == as_it_was
    assert folder.last_attempt() == attempt


def test_what_a_host_concluded_comes_back_too(folder: RunFolder) -> None:
    before = folder.placement()
    killed = NodeStanding(node="h1", state=RunState.LOST, message="Its supervisor was killed.", attempt=1, pids=())
    write_record(folder.layout.link("h1"), LinkRecord(last_contact=5.0, is_complete=True, standing=killed))
    folder.begin_attempt(msgspec.structs.replace(before, attempt=2))
    folder.take_back_attempt(before)
    assert standing_of(folder.path).state is RunState.LOST


def test_a_run_that_is_being_resumed_is_not_resumed_by_a_second_one(folder: RunFolder, tmp_path: Path) -> None:
    end = ExitRecord(state=RunState.FAILED, message="It broke.", attempt=1, started=1.0, ended=2.0)
    write_record(folder.layout.exit_record("h1"), end)
    runs = Fleet(Home(tmp_path / "home")).runs
    with (folder.layout.control / "resume.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="being resumed already"):
            runs.resume(folder.run_id)
    folder.layout.spec.write_text('kind = "train.script"\nscript = "/proj/train.py"\n')
    with pytest.raises(UserError, match="h1"):
        runs.resume(folder.run_id)
    assert folder.placement().attempt == 1
