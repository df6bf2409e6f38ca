"""Stages of a pipeline against a workspace that plays runs from a script: order, resume, stop, failure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from core.contracts.errors import Cancelled, UserError
from core.contracts.ids import RunId, new_run_id
from core.contracts.runs import RunSummary
from core.contracts.specs import RunSpec
from core.contracts.states import RunState
from core.pipeline.spec import QuickstartSpec
from core.pipeline.stages import Stage, StageRunner
from core.runlog.emit import EventWriter
from core.settings.home import Home
from core.workspace.workspace import Workspace
from tests.helpers.recording_context import RecordingContext


class ScriptedWorkspace:
    """Plays runs: each launched or resumed one ends in the state that ``outcomes`` has for its name."""

    def __init__(self, home: Path) -> None:
        self.home = Home(home)
        self.outcomes: dict[str, RunState] = {}
        self.summaries: dict[RunId, RunSummary] = {}
        self.launched: list[str] = []
        self.parents: dict[str, str] = {}
        self.guardians: list[Path | None] = []
        self.resumed: list[RunId] = []
        self.waited: list[RunId] = []

    def add(self, name: str, state: RunState) -> RunId:
        run_id = new_run_id(name)
        self.home.run_dir(run_id).mkdir(parents=True)
        self.summaries[run_id] = RunSummary(run_id=run_id, name=name, kind="x", state=state)
        return run_id

    def launch_spec(self, spec: RunSpec, *, guardian: Path | None = None) -> RunId:
        self.launched.append(spec.name)
        self.parents[spec.name] = spec.parent
        self.guardians.append(guardian)
        return self.add(spec.name, RunState.RUNNING)

    def resume(self, run_id: RunId, *, guardian: Path | None = None) -> None:
        self.resumed.append(run_id)
        self.guardians.append(guardian)
        self.summaries[run_id] = replace(self.summaries[run_id], state=RunState.RUNNING)

    def sync(self) -> None:
        pass

    def summary(self, run_id: RunId) -> RunSummary:
        return self.summaries[run_id]

    def wait(
        self, run_id: RunId, on_update: Callable[[RunSummary], None], should_stop: Callable[[], bool]
    ) -> RunSummary:
        self.waited.append(run_id)
        running = self.summaries[run_id]
        on_update(replace(running, progress=0.5, stage="halfway"))
        state = RunState.STOPPED if should_stop() else self.outcomes.get(running.name, RunState.SUCCEEDED)
        if running.state is RunState.SUCCEEDED:
            state = running.state
        if running.state is RunState.STOPPING:
            state = RunState.STOPPED
        ended = replace(running, state=state, message="It broke." if state is RunState.FAILED else "")
        self.summaries[run_id] = ended
        return ended


STAGES = (
    Stage(role="one", title="First", share=0.6, goes_on=True, spec=lambda _: QuickstartSpec(name="one")),
    Stage(
        role="two", title="Second", share=0.4, goes_on=False, spec=lambda r: QuickstartSpec(name="two", parent=r["one"])
    ),
)


@pytest.fixture
def workspace(tmp_path: Path) -> ScriptedWorkspace:
    return ScriptedWorkspace(tmp_path)


def run(workspace: ScriptedWorkspace, context: RecordingContext) -> dict[str, RunId]:
    return StageRunner(cast("Workspace", workspace), context).run(STAGES)


def second_attempt(workspace: ScriptedWorkspace, **earlier: RunId) -> RecordingContext:
    context = RecordingContext(workspace.home.path, attempt=2)
    writer = EventWriter(context.layout.events("worker"))
    for role, run_id in earlier.items():
        writer.write("child", run_id=run_id, role=role)
    writer.close()
    return context


def test_stages_run_in_order_each_building_on_the_last(workspace: ScriptedWorkspace) -> None:
    context = RecordingContext(workspace.home.path)
    runs = run(workspace, context)
    assert workspace.launched == ["one", "two"]
    assert workspace.parents == {"one": "", "two": runs["one"]}
    assert workspace.guardians == [context.run_dir, context.run_dir]
    assert context.children == [(runs["one"], "one"), (runs["two"], "two")]
    assert [round(done, 2) for done, _ in context.progresses] == [0.0, 0.3, 0.6, 0.8]
    assert context.progresses[1][1] == "First: halfway"


def test_a_resume_keeps_what_succeeded_and_does_the_rest(workspace: ScriptedWorkspace) -> None:
    one, two = workspace.add("one", RunState.SUCCEEDED), workspace.add("two", RunState.FAILED)
    context = second_attempt(workspace, one=one, two=two)
    runs = run(workspace, context)
    assert runs["one"] == one
    assert runs["two"] != two
    assert workspace.launched == ["two"]
    assert workspace.resumed == []


@pytest.mark.parametrize("state", [RunState.STOPPED, RunState.FAILED, RunState.LOST])
def test_a_stage_with_checkpoints_goes_on_from_them(workspace: ScriptedWorkspace, state: RunState) -> None:
    one = workspace.add("one", state)
    context = second_attempt(workspace, one=one)
    runs = run(workspace, context)
    assert workspace.resumed == [one]
    assert workspace.guardians[0] == context.run_dir
    assert runs["one"] == one


def test_a_stage_that_still_goes_on_is_joined(workspace: ScriptedWorkspace) -> None:
    one = workspace.add("one", RunState.RUNNING)
    run(workspace, second_attempt(workspace, one=one))
    assert workspace.launched == ["two"]
    assert workspace.resumed == []
    assert workspace.waited[0] == one


def test_a_stage_that_was_just_ending_with_the_attempt_before_goes_on(workspace: ScriptedWorkspace) -> None:
    one = workspace.add("one", RunState.STOPPING)
    runs = run(workspace, second_attempt(workspace, one=one))
    assert runs["one"] == one
    assert workspace.resumed == [one]
    assert workspace.launched == ["two"]


def test_a_stop_while_a_joined_stage_ends_starts_it_no_more(workspace: ScriptedWorkspace) -> None:
    context = second_attempt(workspace, one=workspace.add("one", RunState.RUNNING))
    context.stop_when = lambda: bool(workspace.waited)
    with pytest.raises(Cancelled):
        run(workspace, context)
    assert workspace.resumed == []
    assert workspace.launched == []


def test_a_stage_whose_run_was_deleted_is_done_again(workspace: ScriptedWorkspace) -> None:
    gone = RunId("20260101-000000-gone-abcdef")
    run(workspace, second_attempt(workspace, one=gone))
    assert workspace.launched == ["one", "two"]


def test_a_failed_stage_ends_the_pipeline_with_its_sentence(workspace: ScriptedWorkspace) -> None:
    workspace.outcomes["one"] = RunState.FAILED
    with pytest.raises(UserError, match=r"First failed: It broke\."):
        run(workspace, RecordingContext(workspace.home.path))
    assert workspace.launched == ["one"]


def test_a_stage_stopped_by_somebody_else_is_said(workspace: ScriptedWorkspace) -> None:
    workspace.outcomes["one"] = RunState.STOPPED
    with pytest.raises(UserError, match="First stopped"):
        run(workspace, RecordingContext(workspace.home.path))


def test_a_stop_stops_the_stage_in_hand_and_starts_no_other(workspace: ScriptedWorkspace) -> None:
    context = RecordingContext(workspace.home.path)
    context.stop_when = lambda: bool(workspace.launched)
    with pytest.raises(Cancelled):
        run(workspace, context)
    assert workspace.launched == ["one"]
    assert next(iter(workspace.summaries.values())).state is RunState.STOPPED
