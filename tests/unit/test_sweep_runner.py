"""What a sweep does with the ends of its trials, against a workspace that plays runs from a script."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from core.contracts.errors import Cancelled, EnvironmentProblem, UserError
from core.contracts.ids import RunId, new_run_id
from core.contracts.runs import Curve, RunPage, RunQuery, RunSummary
from core.contracts.specs import RunSpec
from core.contracts.states import RunState
from core.contracts.sweeps import SweepReport
from core.pipeline.sweep import runner as runner_module
from core.pipeline.sweep.base import prepare
from core.pipeline.sweep.runner import SweepRunner
from core.pipeline.sweep.spec import SweepSpec
from core.runlog.emit import EventWriter
from core.settings.home import Home
from core.workspace.workspace import Workspace
from tests.helpers.recording_context import RecordingContext
from tests.helpers.toy_plugin import install_toy

Ending = tuple[RunState, dict[str, float]]


class ScriptedWorkspace:
    """Plays runs: each ends at its second look as ``ending`` says for its width."""

    def __init__(self, home: Path, ending: Callable[[int], Ending | Exception]) -> None:
        self.home = Home(home)
        self.ending = ending
        self.fleet = SimpleNamespace(following=SimpleNamespace(follow=lambda _: None))
        self.specs: dict[RunId, RunSpec] = {}
        self.states: dict[RunId, RunState] = {}
        self.looks: dict[RunId, int] = {}
        self.deleted: set[RunId] = set()
        self.resumed: list[RunId] = []
        self.stopped: list[RunId] = []
        self.curves: dict[RunId, list[float]] = {}
        self.on_launch: Callable[[RunId], None] = lambda _: None

    def launch_spec(self, spec: RunSpec, *, guardian: Path) -> RunId:
        found = self.ending(spec.width)  # type: ignore[attr-defined]
        if isinstance(found, Exception):
            raise found
        run_id = new_run_id(spec.name)
        self.specs[run_id], self.states[run_id], self.looks[run_id] = spec, RunState.RUNNING, 0
        self.on_launch(run_id)
        return run_id

    def updated(self, run_id: RunId) -> RunSummary:
        if run_id in self.deleted:
            raise UserError("There is no such run.")
        summary = RunSummary(run_id=run_id, name="", kind="test.valley", state=self.states[run_id])
        self.looks[run_id] += 1
        if self.states[run_id] is RunState.RUNNING and self.looks[run_id] >= 2:
            state, final = cast("Ending", self.ending(self.specs[run_id].width))  # type: ignore[attr-defined]
            self.states[run_id] = state
            summary = replace(
                summary, state=state, final=final, message="It broke." if state is RunState.FAILED else ""
            )
        return summary

    def curve(self, run_id: RunId, key: str, *, first_step: int = 0) -> Curve:
        values = np.array(self.curves.get(run_id, []), dtype=np.float64)[first_step:]
        if not len(values):
            raise UserError("No such metric.")
        steps = np.arange(first_step, first_step + len(values), dtype=np.int64)
        return Curve(key=key, step=steps, ts=values * 0, value=values, total=len(values))

    def stop(self, run_id: RunId) -> None:
        self.stopped.append(run_id)
        self.states[run_id] = RunState.STOPPED

    def resume(self, run_id: RunId, *, guardian: Path) -> None:
        self.resumed.append(run_id)
        self.states[run_id] = RunState.RUNNING

    def sync(self) -> None:
        pass

    def runs(self, query: RunQuery) -> RunPage:
        found = [run_id for run_id, spec in self.specs.items() if set(query.tags) <= set(spec.tags)]
        rows = tuple(RunSummary(run_id=run_id, name="", kind="", state=self.states[run_id]) for run_id in found)
        return RunPage(rows=rows, total=len(rows))


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RecordingContext:
    install_toy(tmp_path / "plugin", monkeypatch)
    monkeypatch.setattr(runner_module, "POLL_S", 0.001)
    (tmp_path / "valley.toml").write_text('kind = "test.valley"\nname = "valley"\ntags = ["mine"]\n', encoding="utf-8")
    return RecordingContext(tmp_path / "home")


def made(workspace: ScriptedWorkspace, context: RecordingContext, **fields: object) -> SweepRunner:
    asked = {"sampler": "grid", "parameters": {"width": "1|2|3"}, **fields}
    spec = SweepSpec(spec=str(context.home.parent / "valley.toml"), **asked)  # type: ignore[arg-type]
    base, problems = prepare(spec, workspace.home)
    assert problems == ()
    assert base is not None
    return SweepRunner(spec, context, cast("Workspace", workspace), base)


def outcome(runner: SweepRunner) -> SweepReport:
    runner.run()
    return runner.reporter.settle()


def test_trials_are_named_labelled_and_placed_in_the_lineage(context: RecordingContext) -> None:
    workspace = ScriptedWorkspace(context.home, lambda width: (RunState.SUCCEEDED, {"val/loss": float(width)}))
    report = outcome(made(workspace, context))
    first = next(iter(workspace.specs.values()))
    assert (first.name, first.parent) == ("valley #0", context.run_id)
    assert first.tags == ("mine", f"sweep-{context.run_id[-6:]}", "trial-000")
    assert context.children == [(RunId(t.run_id), f"trial-{t.number:03d}") for t in report.trials]
    assert context.curve("sweep/best") == [(1, 1.0), (2, 1.0), (3, 1.0)]
    assert report.best == 0
    assert context.tables["trials"].columns == ("trial", "state", "width", "val/loss", "step", "run")


@pytest.mark.parametrize(
    ("ending", "said"),
    [
        ((RunState.FAILED, {}), "It broke."),
        ((RunState.LOST, {}), "Its run lost."),
        ((RunState.STOPPED, {}), "Its run was stopped by hand."),
        ((RunState.SUCCEEDED, {"train/loss": 1.0}), "It recorded no val/loss; its metrics: train/loss."),
        ((RunState.SUCCEEDED, {"val/loss": math.nan}), "Its val/loss is nan."),
        (EnvironmentProblem("The disk is full.", "Free some."), "It could not be launched: The disk is full."),
    ],
)
def test_a_trial_without_a_value_is_failed_with_its_reason_and_the_sweep_goes_on(
    context: RecordingContext, ending: Ending | Exception, said: str
) -> None:
    good: Ending = (RunState.SUCCEEDED, {"val/loss": 1.0})
    workspace = ScriptedWorkspace(context.home, lambda width: ending if width == 2 else good)
    report = outcome(made(workspace, context))
    assert [trial.state for trial in report.trials] == ["finished", "failed", "finished"]
    assert said in report.trials[1].message


def test_values_that_do_not_go_together_fail_their_trials_without_a_run(context: RecordingContext) -> None:
    workspace = ScriptedWorkspace(context.home, lambda _: (RunState.SUCCEEDED, {"val/loss": 1.0}))
    runner = made(workspace, context, stop_after_failures=3)
    runner._base.mapping["steps"] = 0
    with pytest.raises(UserError, match="3 trials in a row failed, the last so: It could not be launched: .*steps"):
        runner.run()
    assert workspace.specs == {}


def test_a_deleted_run_is_a_failed_trial(context: RecordingContext) -> None:
    workspace = ScriptedWorkspace(context.home, lambda _: (RunState.SUCCEEDED, {"val/loss": 1.0}))
    workspace.on_launch = lambda run_id: workspace.deleted.update({run_id} - {*list(workspace.specs)[1:]})
    report = outcome(made(workspace, context, parallel_trials=3))
    assert [trial.state for trial in report.trials] == ["failed", "finished", "finished"]
    assert report.trials[0].message == "Its run was deleted."


def test_failures_in_a_row_end_the_sweep_and_stop_what_goes_on(context: RecordingContext) -> None:
    workspace = ScriptedWorkspace(context.home, lambda width: (RunState.FAILED if width < 3 else RunState.RUNNING, {}))
    with pytest.raises(UserError, match="2 trials in a row failed, the last so: It broke."):
        made(workspace, context, parallel_trials=3, stop_after_failures=2).run()
    assert [workspace.specs[run_id].width for run_id in workspace.stopped] == [3]  # type: ignore[attr-defined]


def test_after_the_time_limit_no_trial_begins_and_those_that_run_end(context: RecordingContext) -> None:
    workspace = ScriptedWorkspace(context.home, lambda _: (RunState.SUCCEEDED, {"val/loss": 1.0}))
    runner = made(workspace, context, timeout_minutes=1000)
    workspace.on_launch = lambda _: setattr(runner, "_deadline", 0.0)
    report = outcome(runner)
    assert [trial.state for trial in report.trials] == ["finished"]


def test_the_best_of_the_curve_counts_or_the_last(context: RecordingContext) -> None:
    workspace = ScriptedWorkspace(context.home, lambda _: (RunState.SUCCEEDED, {"val/loss": 0.9}))
    workspace.on_launch = lambda run_id: workspace.curves.update({run_id: [2.0, 0.5, math.nan, 0.9]})
    assert {trial.value for trial in outcome(made(workspace, context)).trials} == {0.5}
    other = RecordingContext(context.home, "20260101-000000-test-bbbbbb")
    last = made(workspace, other, aggregate="last")
    assert {trial.value for trial in outcome(last).trials} == {0.9}


def test_a_pruned_trial_is_stopped_and_told_with_its_step(context: RecordingContext) -> None:
    workspace = ScriptedWorkspace(context.home, lambda _: (RunState.RUNNING, {"val/loss": 1.0}))
    runner = made(workspace, context, parallel_trials=3, pruner="asha", min_steps=2, reduction_factor=2)
    runner._begin()
    for level, run_id in enumerate(workspace.specs):
        workspace.curves[run_id] = [float(level)] * 4
    for _ in range(3):
        runner._look()
    assert len(workspace.stopped) == 2
    trials = runner.reporter.settle().trials
    assert [trial.state for trial in trials] == ["running", "pruned", "pruned"]
    assert trials[1].message == "pruned at step 3"


def test_a_stop_stops_the_trials_and_keeps_them_for_a_resume(context: RecordingContext) -> None:
    workspace = ScriptedWorkspace(context.home, lambda _: (RunState.RUNNING, {}))
    context.stop_when = lambda: len(workspace.specs) == 2
    runner = made(workspace, context, parallel_trials=2)
    with pytest.raises(Cancelled):
        runner.run()
    assert workspace.stopped == list(workspace.specs)
    assert [trial.state for trial in runner.reporter.settle().trials] == ["running", "running"]


def resumed(context: RecordingContext, workspace: ScriptedWorkspace) -> SweepRunner:
    """Return the runner of a second attempt, after the first was killed with one trial under way."""
    runner = made(workspace, context)
    runner._begin()
    workspace.looks = dict.fromkeys(workspace.specs, 0)
    return made(workspace, context.next_attempt())


@pytest.mark.parametrize("state", [RunState.STOPPED, RunState.LOST])
def test_a_trial_that_was_stopped_with_the_sweep_goes_on(context: RecordingContext, state: RunState) -> None:
    workspace = ScriptedWorkspace(context.home, lambda width: (RunState.SUCCEEDED, {"val/loss": float(width)}))
    second = resumed(context, workspace)
    (run_id,) = workspace.specs
    workspace.states[run_id] = state
    report = outcome(second)
    assert workspace.resumed == [run_id]
    assert report.trials[0].run_id == run_id
    assert [trial.state for trial in report.trials] == ["finished"] * 3


def test_a_run_launched_just_before_the_kill_is_found_again(context: RecordingContext) -> None:
    workspace = ScriptedWorkspace(context.home, lambda width: (RunState.SUCCEEDED, {"val/loss": float(width)}))
    runner = made(workspace, context)
    number = runner.study.ask()
    assert number == 0
    stray = workspace.launch_spec(
        runner._dressed(0, runner._base.trial_spec(runner.study.values_of(0))), guardian=context.run_dir
    )
    report = outcome(made(workspace, context.next_attempt()))
    assert report.trials[0].run_id == stray
    assert len(workspace.specs) == 3


def test_a_run_known_by_the_lineage_alone_is_taken_up(context: RecordingContext) -> None:
    workspace = ScriptedWorkspace(context.home, lambda width: (RunState.SUCCEEDED, {"val/loss": float(width)}))
    runner = made(workspace, context)
    assert runner.study.ask() == 0
    run_id = workspace.launch_spec(runner._base.trial_spec(runner.study.values_of(0)), guardian=context.run_dir)
    writer = EventWriter(context.layout.events("worker"))
    writer.write("child", run_id=run_id, role="trial-000")
    writer.close()
    assert outcome(made(workspace, context.next_attempt())).trials[0].run_id == run_id
