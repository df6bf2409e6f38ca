"""Retries of their own accord: what a closed window had begun is cancelled, not waited out."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from core.contracts.errors import Cancelled
from core.contracts.hosts import Watcher
from core.contracts.ids import RunId
from core.contracts.placement import NodePlacement, Placement
from core.contracts.states import RunState
from core.fleet.fleet import Fleet
from core.history.history import History
from core.jobs.records import ExitRecord, write_record
from core.runlog.layout import RunLayout
from core.settings.home import Home
from core.workspace import retries as module
from core.workspace.retries import Retries
from core.workspace.synchronize import Synchronizer

RUN = RunId("20261124-061203-toy-3f9a1c")
SPEC = 'kind = "train.script"\nscript = "/proj/train.py"\n[launch]\nhosts = ["h1"]\nretries = 1\n'


def failed_run(home: Home) -> None:
    layout = RunLayout(home.run_dir(RUN))
    layout.control.mkdir(parents=True)
    layout.spec.write_text(SPEC)
    write_record(layout.placement, Placement(nodes=(NodePlacement(node="h1", host="h1"),)))
    end = ExitRecord(state=RunState.FAILED, message="It broke.", attempt=1, started=1.0, ended=2.0)
    write_record(layout.exit_record("h1"), end)


def test_a_resume_that_is_under_way_is_cancelled_by_closing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.0)
    home = Home(tmp_path / "home")
    home.prepare()
    failed_run(home)
    history = History.open(home.database)
    Synchronizer(home, history).all()
    begun = threading.Event()
    seen: list[str] = []

    def resume(run_id: RunId, hosts: tuple[str, ...] | None, /, *, watcher: Watcher) -> None:
        begun.set()
        is_cancelled = threading.Event()
        while not watcher.is_cancelled():
            is_cancelled.wait(0.01)
        seen.append(f"{run_id} cancelled, hosts {hosts}")
        raise Cancelled

    retries = Retries(Fleet(home), home.runs_dir, resume)
    retries.consider(history.summary(RUN))
    assert begun.wait(10)
    retries.close()
    assert seen == [f"{RUN} cancelled, hosts None"]
    history.close()
