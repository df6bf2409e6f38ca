"""Requests for profiles, on this machine and through an agent, and the reports that come of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from core.contracts import agent as said
from core.contracts.errors import EnvironmentProblem, UserError
from core.contracts.hosts import LOCAL_HOST, HostRecord, RuntimeRecord
from core.contracts.ids import RunId, new_run_id
from core.contracts.placement import NodePlacement, Placement
from core.contracts.profiles import SUMMARY_KIND, ProfileReport
from core.contracts.states import RunState
from core.fleet.agent_client import AgentClient
from core.jobs.starting import prepare_attempt
from core.runlog.layout import RunLayout
from core.ssh.local import LocalLink
from core.workspace.workspace import Workspace
from tests.helpers.builders import EPOCH, LogFile, build_run

TWO_RANKS = {"parallel": {"processes": 2}}


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    found = Workspace.open(tmp_path / "home")
    yield found
    found.close()


def make_run(workspace: Workspace, state: RunState = RunState.RUNNING, kind: str = "train.language") -> RunLayout:
    spec = TWO_RANKS if kind == "train.language" else None
    run_dir = build_run(workspace.home.path, steps=20, state=state, kind=kind, spec=spec, telemetry=False)
    workspace.sync()
    return RunLayout(run_dir)


def id_of(layout: RunLayout) -> RunId:
    return RunId(layout.run_dir.name)


def test_a_request_names_ranks_and_steps_and_a_new_attempt_withdraws_it(workspace: Workspace) -> None:
    layout = make_run(workspace)
    workspace.request_profile(id_of(layout), 7, (0, 1))
    assert {path.name for path in layout.control.iterdir()} == {"profile", "profile.1", "profile.steps"}
    assert layout.profile_steps.read_text() == "7\n"
    prepare_attempt(layout.run_dir)
    assert not any(layout.control.iterdir())


@pytest.mark.parametrize(
    ("kind", "state", "steps", "ranks", "sentence"),
    [
        ("train.language", RunState.SUCCEEDED, 3, (0,), "has already ended"),
        ("train.script", RunState.RUNNING, 3, (0,), "of the kind train.script records no profile"),
        ("train.language", RunState.RUNNING, 3, (0, 2), "asked of rank 2; the run's first node has the ranks 0 to 1"),
        ("train.language", RunState.RUNNING, 3, (), "asked of no rank"),
        ("train.language", RunState.RUNNING, 0, (0,), "covers 1 to 1000 steps, not 0"),
        ("train.language", RunState.RUNNING, 1001, (0,), "covers 1 to 1000 steps, not 1001"),
    ],
)
def test_what_cannot_be_recorded_is_refused_and_nothing_is_written(
    workspace: Workspace, kind: str, state: RunState, steps: int, ranks: tuple[int, ...], sentence: str
) -> None:
    layout = make_run(workspace, state, kind)
    with pytest.raises(UserError, match=sentence):
        workspace.request_profile(id_of(layout), steps, ranks)
    assert not list(layout.run_dir.glob("control/profile*"))


def add_report(layout: RunLayout, name: str, rank: int, recorded_at: float) -> Path:
    path = layout.artifacts / "profiles" / name / "profile.json"
    path.parent.mkdir(parents=True)
    report = ProfileReport(
        source="torch.profiler",
        rank=rank,
        device="cpu",
        first_step=1,
        steps=3,
        recorded_at=recorded_at,
        wall_s=0.5,
        trace_path="trace.json.gz",
    )
    path.write_bytes(msgspec.json.encode(report))
    LogFile(layout.events(f"w{rank}-{name}")).write(
        "artifact",
        EPOCH + 50,
        name=name,
        path=str(path.relative_to(layout.run_dir)),
        kind=SUMMARY_KIND,
        size_bytes=path.stat().st_size,
        sha256="0",
        meta={"rank": float(rank), "recorded_at": recorded_at},
    )
    return path


def test_the_newest_report_is_read_and_its_trace_is_absolute(workspace: Workspace) -> None:
    layout = make_run(workspace)
    run_id = id_of(layout)
    assert workspace.profile(run_id) is None
    newest = add_report(layout, "b", rank=0, recorded_at=EPOCH + 20)
    add_report(layout, "a", rank=0, recorded_at=EPOCH + 10)
    add_report(layout, "c", rank=1, recorded_at=EPOCH + 5)
    workspace.refresh(run_id)
    report = workspace.profile(run_id)
    assert report is not None
    assert report.recorded_at == EPOCH + 20
    assert report.trace_path == "", "the trace is gone"
    (newest.parent / "trace.json.gz").write_bytes(b"")
    report = workspace.profile(run_id, rank=0)
    assert report is not None
    assert report.trace_path == str(newest.parent / "trace.json.gz")
    other = workspace.profile(run_id, rank=1)
    assert other is not None
    assert other.recorded_at == EPOCH + 5
    assert workspace.profile(run_id, rank=2) is None


@pytest.mark.parametrize("content", [b"{", b'{"source": 3}', None])
def test_a_damaged_report_is_a_sentence(workspace: Workspace, content: bytes | None) -> None:
    layout = make_run(workspace)
    path = add_report(layout, "a", rank=0, recorded_at=EPOCH)
    workspace.refresh(id_of(layout))
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(EnvironmentProblem, match=r"profile.json' (is damaged|cannot be read)"):
        workspace.profile(id_of(layout))


def test_an_agent_writes_the_request_where_the_run_is(tmp_path: Path) -> None:
    record = HostRecord(
        name=LOCAL_HOST,
        work_dir=str(tmp_path / "there"),
        runtime=RuntimeRecord(kind="interpreter", python=sys.executable),
    )
    agent = AgentClient.start(LocalLink(), record)
    try:
        run_id = new_run_id("toy")
        run_dir = tmp_path / "there" / "runs" / run_id
        placed = NodePlacement(node="box", work_dir=record.work_dir, run_dir=str(run_dir), python=sys.executable)
        spec = 'kind = "train.language"\n'
        agent.ask(said.PrepareRun(run_id=run_id, spec_toml=spec, placement=Placement(nodes=(placed,))), said.Done)
        agent.ask(said.ProfileRun(run_id=run_id, steps=4, ranks=(0,)), said.Done)
        assert RunLayout(run_dir).profile_request(0).exists()
        assert RunLayout(run_dir).profile_steps.read_text() == "4\n"
        with pytest.raises(UserError):
            agent.ask(said.ProfileRun(run_id=new_run_id("none"), steps=4, ranks=(0,)), said.Done)
    finally:
        agent.close()
