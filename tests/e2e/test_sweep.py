"""Sweeps with real processes: trials are runs, faults of trials and of the sweep's own worker lose nothing."""

from __future__ import annotations

import json
import os
import signal
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.cli.main import main
from core.cli.output import ExitCode
from core.contracts.errors import InvalidSpec
from core.contracts.ids import RunId
from core.contracts.runs import RunSummary
from core.contracts.states import RunState
from core.contracts.sweeps import SweepReport, SweepTrial
from core.jobs.processes import marked_processes
from core.jobs.records import SupervisorRecord, read_record
from core.plugins.decode import decode_spec
from core.runlog.layout import RunLayout
from core.workspace.workspace import Workspace
from tests.helpers.toy_plugin import install_toy
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    install_toy(tmp_path / "plugin", monkeypatch)
    opened = Workspace.open(tmp_path / "home")
    yield opened
    for path in opened.home.runs_dir.iterdir():
        for pid in marked_processes(path.name):
            os.kill(pid, signal.SIGKILL)
    opened.close()


def launch(workspace: Workspace, tmp_path: Path, valley: str, **fields: object) -> RunId:
    base = tmp_path / "valley.toml"
    base.write_text(f'kind = "test.valley"\nname = "valley"\n{valley}\n', encoding="utf-8")
    return workspace.launch_spec(decode_spec({"kind": "sweep", "name": "a sweep", "spec": str(base), **fields}))


def ended(workspace: Workspace, run_id: RunId) -> tuple[RunSummary, SweepReport]:
    summary = workspace.wait(run_id)
    return summary, workspace.sweep(run_id)


def report(workspace: Workspace, run_id: RunId) -> SweepReport | None:
    found = RunLayout(workspace.home.run_dir(run_id)).artifacts / "sweep.json"
    return workspace.sweep(run_id) if found.exists() else None


def recorded(workspace: Workspace, run_id: RunId) -> list[SweepTrial]:
    """Wait until two trials go on and have recorded steps."""

    def found() -> list[SweepTrial] | None:
        sweep = report(workspace, run_id)
        running = [t for t in sweep.trials if t.state == "running" and (t.step or 0) >= 2] if sweep else []
        return running if len(running) == 2 else None

    return wait_for(found, "two trials that have recorded")


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Return what ``pilothouse sweep show`` prints."""
    assert main(lambda _: 0, ["sweep", "show", *words]) == ExitCode.OK
    return capsys.readouterr().out


def test_a_grid_covers_all_and_a_trial_that_fails_does_not_end_it(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parameters = {"width": "20..60 step 20", "lr": "1e-3|1e-1"}
    run_id = launch(
        workspace,
        tmp_path,
        "fails_above = 0.01",
        sampler="grid",
        parallel_trials=3,
        parameters=parameters,
        stop_after_failures=0,
    )
    summary, found = ended(workspace, run_id)
    assert summary.state is RunState.SUCCEEDED, summary.message
    tried = {(t.values["width"], t.values["lr"]): t for t in found.trials}
    assert set(tried) == {(width, lr) for width in (20, 40, 60) for lr in (1e-3, 1e-1)}
    for (_, lr), trial in tried.items():
        assert trial.state == ("failed" if lr == 1e-1 else "finished")
        assert ("The loss went away" in trial.message) == (lr == 1e-1)
    best = found.best_trial
    assert best is not None
    assert best.values == {"width": 40, "lr": 1e-3}
    assert summary.final["val/loss"] == best.value == pytest.approx(2.0)
    importance = {p.path: p.importance for p in found.parameters}
    assert importance["width"] == pytest.approx(1.0)
    detail = workspace.detail(run_id)
    assert set(detail.children) == {RunId(t.run_id) for t in found.trials}
    artifacts = {a.kind: Path(a.path) for a in detail.artifacts}
    assert set(artifacts) == {"sweep", "spec"}
    assert tomllib.loads(artifacts["spec"].read_text())["width"] == 40
    assert workspace.summary(RunId(best.run_id)).parent == run_id
    assert workspace.curve(run_id, "sweep/best").step[-1] == 6
    (table,) = detail.tables
    assert len(table.rows) == 6
    document = json.loads(shown(capsys, run_id[-6:], "--json"))
    assert document["run_id"] == run_id
    assert document["best"] == best.number
    text = shown(capsys, run_id)
    assert f"Best: trial {best.number} with val/loss = 2 (width = 40, lr = 0.001)" in text
    assert "The loss went away" in text
    assert main(lambda _: 0, ["sweep", "show", best.run_id]) == ExitCode.INVALID
    assert "no sweep to show" in capsys.readouterr().err


def test_asha_ends_trials_early_and_the_best_goes_through(workspace: Workspace, tmp_path: Path) -> None:
    run_id = launch(
        workspace,
        tmp_path,
        "steps = 24\nstep_s = 0.1",
        sampler="grid",
        parallel_trials=2,
        pruner="asha",
        min_steps=4,
        reduction_factor=2,
        parameters={"width": "40|100|200|300"},
    )
    summary, found = ended(workspace, run_id)
    assert summary.state is RunState.SUCCEEDED, summary.message
    states = {t.values["width"]: t.state for t in found.trials}
    assert states[40] == "finished"
    assert found.best_trial is not None
    assert found.best_trial.values == {"width": 40}
    pruned = [t for t in found.trials if t.state == "pruned"]
    assert len(pruned) >= 2
    for trial in pruned:
        assert trial.message == f"pruned at step {trial.step}"
        assert trial.step is not None
        assert trial.step >= 4
        assert workspace.summary(RunId(trial.run_id)).state is RunState.STOPPED


def test_a_killed_worker_loses_no_trial(workspace: Workspace, tmp_path: Path) -> None:
    run_id = launch(
        workspace,
        tmp_path,
        "steps = 15\nstep_s = 0.2",
        sampler="random",
        trials=3,
        parallel_trials=2,
        parameters={"lr": "1e-4..1e-1 log", "width": "16..64 step 8"},
    )
    running = recorded(workspace, run_id)
    record = read_record(RunLayout(workspace.home.run_dir(run_id)).supervisor(), SupervisorRecord)
    assert record is not None
    assert record.worker is not None
    os.kill(record.worker.pid, signal.SIGKILL)
    assert workspace.wait(run_id).state is RunState.FAILED
    workspace.resume(run_id)
    summary, found = ended(workspace, run_id)
    assert summary.state is RunState.SUCCEEDED, summary.message
    assert [(t.number, t.state) for t in found.trials] == [(number, "finished") for number in range(3)]
    for trial in running:
        assert found.trials[trial.number].run_id == trial.run_id, "the same run goes on"
        assert found.trials[trial.number].values == trial.values
    for trial in found.trials:
        steps = [int(step) for step in workspace.curve(RunId(trial.run_id), "val/loss").step]
        assert steps == list(range(1, 16)), "no step is lost or done twice"
    assert len(set(workspace.detail(run_id).children)) == 3


def test_a_stop_stops_the_trials_and_a_resume_goes_on_with_them(workspace: Workspace, tmp_path: Path) -> None:
    run_id = launch(
        workspace,
        tmp_path,
        "steps = 12\nstep_s = 0.2",
        trials=2,
        parallel_trials=2,
        parameters={"lr": "1e-4..1e-1 log"},
    )
    running = recorded(workspace, run_id)
    workspace.stop(run_id)
    assert workspace.wait(run_id).state is RunState.STOPPED
    assert {workspace.updated(RunId(t.run_id)).state for t in running} == {RunState.STOPPED}
    workspace.resume(run_id)
    summary, found = ended(workspace, run_id)
    assert summary.state is RunState.SUCCEEDED, summary.message
    assert [t.run_id for t in found.trials] == [t.run_id for t in sorted(running, key=lambda t: t.number)]


def test_all_problems_of_a_sweep_are_told_at_once(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec) as raised:
        launch(
            workspace,
            tmp_path,
            "",
            sampler="grid",
            launch={"queue": True},
            parameters={"lr": "1..0", "widht": "1..2", "width": "0..20", "fails_above": "0.1..0.2", "name": "a|b"},
        )
    assert {p.field for p in raised.value.problems} == {
        "launch.queue",
        "parameters.lr",
        "parameters.widht",
        "parameters.width",
        "parameters.fails_above",
        "parameters.name",
    }
