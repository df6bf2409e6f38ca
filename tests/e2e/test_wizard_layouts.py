"""The wizard of the real window launches each parallel layout that two ranks can have; every one trains on gloo to its end."""

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
from core.plugins.decode import read_spec
from core.runlog.layout import RunLayout
from core.train.specs.parallel import ParallelSpec
from core.train.tasks.language import LanguageTrainingSpec
from tests.helpers.waiting import wait_for
from tests.helpers.window_process import WindowProcess, opened_windows

LIMIT_S = 300.0
FIELDS = {
    "field_steps": "4",
    "field_device": "cpu",
    "field_data.max_bytes": "200000",
    "field_model.hidden": "32",
    "field_optimizer.grad_accum_steps": "4",
    "field_parallel.processes": "2",
}
EXPECTED = {
    "ddp": ParallelSpec(processes=2),
    "zero3": ParallelSpec(processes=2, sharding="zero3"),
    "tensor": ParallelSpec(processes=2, tensor=2),
    "pipeline": ParallelSpec(processes=2, pipeline=2),
}


def runs_in(home: Path) -> set[RunId]:
    return {RunId(path.name) for path in (home / "runs").glob("*") if is_run_id(path.name)}


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


def ended(run_dir: Path) -> RunState:
    def final() -> RunState | None:
        state = examine(run_dir).state
        return state if state is not None and state.is_terminal else None

    return wait_for(final, "the run to end", LIMIT_S)


def fill_in(window: WindowProcess) -> None:
    window.click("nav_train")
    window.click("card_train.language")
    window.click("wizard_advanced")
    window.click("section_Parallel layout")
    for name, text in FIELDS.items():
        (window.choose if name == "field_device" else window.type)(name, text)


@pytest.mark.timeout(900)
def test_every_layout_of_two_ranks_is_launched_from_the_wizard(
    home: Path, open_window: Callable[[], WindowProcess]
) -> None:
    window = open_window()
    fill_in(window)
    known: set[RunId] = set()
    for name, expected in EXPECTED.items():
        if known:
            # What was filled in is still there.
            window.click("nav_train")
            window.click("card_train.language")
        window.click(f"layout_{name}")
        window.click("wizard_next")
        window.click("wizard_next")
        window.click("wizard_launch")
        (run_id,) = wait_for(lambda: runs_in(home) - known, "the run directory")
        known.add(run_id)
        spec = read_spec(RunLayout(home / "runs" / run_id).spec)
        assert isinstance(spec, LanguageTrainingSpec)
        assert spec.parallel == expected
        assert ended(home / "runs" / run_id) is RunState.SUCCEEDED, (
            RunLayout(home / "runs" / run_id).stdout().read_text()
        )
    wait_for(lambda: window.shows("Succeeded"), "the page to show the end")
    window.process.terminate()
    window.close()
    assert window.process.returncode == 0
