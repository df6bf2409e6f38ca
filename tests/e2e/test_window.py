"""The main job in the real window: clicked through the wizard, killed, re-opened, found live, then finished."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.contracts.ids import RunId, is_run_id
from core.contracts.states import RunState
from core.jobs.processes import marked_processes
from core.jobs.reconcile import examine
from tests.helpers.waiting import wait_for
from tests.helpers.window_process import WindowProcess, opened_windows


def runs_in(home: Path) -> list[RunId]:
    return (
        [RunId(path.name) for path in (home / "runs").iterdir() if is_run_id(path.name)]
        if (home / "runs").exists()
        else []
    )


@pytest.fixture
def home(pilothouse_home: Path) -> Iterator[Path]:
    yield pilothouse_home
    for run_id in runs_in(pilothouse_home):
        for pid in marked_processes(run_id):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def open_window(tmp_path: Path) -> Iterator[Callable[[], WindowProcess]]:
    with opened_windows(tmp_path) as opener:
        yield opener


@pytest.mark.timeout(900)
def test_the_quick_start_survives_its_window_and_is_found_again(
    home: Path, open_window: Callable[[], WindowProcess]
) -> None:
    window = open_window()
    window.click("nav_train")
    window.click("card_quickstart")
    window.type("field_epochs", "3")
    window.click("wizard_next")
    window.click("wizard_next")
    window.click("wizard_launch")
    quick_start = wait_for(lambda: next(iter(sorted(runs_in(home))), None), "the run directory")
    wait_for(lambda: window.shows("Running"), "the run's page to show it running")
    window.kill()
    assert examine(home / "runs" / quick_start).state is None, "the run goes on without the window"

    again = open_window()
    again.click(f"live_run_{quick_start}")
    wait_for(lambda: again.shows("Running"), "the run to be found live")
    ended = wait_for(lambda: _ended(home, quick_start), "the quick start to end", 600)
    assert ended is RunState.SUCCEEDED
    again.ask("tab", name="run_tabs", title="Overview")
    wait_for(lambda: again.shows("Succeeded", "onnxruntime", "openvino", "int8"), "the page to show the result table")
    again.process.terminate()
    again.close()
    assert again.process.returncode == 0
    assert len(runs_in(home)) >= 4, "the quick start, its training, compression and benchmark"


def _ended(home: Path, run_id: RunId) -> RunState | None:
    state = examine(home / "runs" / run_id).state
    return state if state is not None and state.is_terminal else None
