"""Runs through a real Slurm from the workspace: submitted over SSH, mirrored, waiting in words, stopped, resumed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.contracts.errors import InvalidSpec
from core.contracts.ids import RunId
from core.contracts.runs import RunSummary
from core.contracts.states import RunState
from core.plugins.decode import decode_spec
from core.runlog.layout import RunLayout
from core.runlog.placements import read_placement
from core.workspace.workspace import Workspace
from tests.helpers.remote_lab import runtime
from tests.helpers.slurm_lab import SlurmLab, running_slurm
from tests.helpers.ssh_server import opened_ssh_server
from tests.helpers.toy_plugin import install_toy
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmLab]:
    with running_slurm(tmp_path_factory.mktemp("slurm") / "lab") as running:
        yield running


@pytest.fixture
def workspace(slurm: SlurmLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """A workspace with the cluster ``login``, reached over SSH, its work folder apart from the home here."""
    install_toy(tmp_path / "plugin", monkeypatch)
    monkeypatch.setenv("SLURM_CONF", str(slurm.conf))
    with opened_ssh_server(tmp_path, more=f"SetEnv SLURM_CONF={slurm.conf}") as server:
        opened = Workspace.open(tmp_path / "home")
        shutil.copy(server.known_hosts, opened.home.known_hosts)
        work_dir = str(tmp_path / "cluster's work")
        opened.fleet.add(server.record("login", work_dir=work_dir, runtime=runtime(tmp_path), is_slurm=True))
        yield opened
        slurm.forget_jobs()
        slurm.wait_quiet()
        opened.close()


def launch(workspace: Workspace, cluster: str = "login", **fields: object) -> RunId:
    asked = {"cluster": cluster, "nodes": 2, "time_limit": "5", "memory": "200M"}
    limits = {"slurm": asked, "stop_grace_s": 5.0, "peer_limit_s": 5.0}
    toy = {"kind": "test.toy", "checkpoint_every": 1000}  # the nodes share a folder: only a stop saves
    return workspace.launch_spec(decode_spec({**toy, "launch": limits, **fields}))


def updated(workspace: Workspace, run_id: RunId) -> RunSummary:
    workspace.fleet.following.follow(run_id)
    workspace.sync()
    return workspace.summary(run_id)


def test_the_script_is_shown_without_submitting(workspace: Workspace) -> None:
    slurm = {"cluster": "login", "nodes": 2, "partition": "debug"}
    text = workspace.preview(decode_spec({"kind": "test.toy", "launch": {"slurm": slurm}}))
    assert text.startswith("#!/bin/bash")
    assert "#SBATCH --partition=debug" in text
    bad = {"cluster": "login", "time_limit": "soon"}
    with pytest.raises(InvalidSpec):
        workspace.preview(decode_spec({"kind": "test.toy", "launch": {"slurm": bad}}))


def test_a_job_over_ssh_is_mirrored_to_its_end(workspace: Workspace, tmp_path: Path) -> None:
    run_id = launch(workspace, steps=8)
    summary = workspace.wait(run_id)
    assert (summary.state, summary.host) == (RunState.SUCCEEDED, "login"), summary
    there = tmp_path / "cluster's work" / "runs" / run_id
    for node in ("node0", "node1"):
        name = RunLayout(there).events("worker", node).name
        assert (workspace.home.run_dir(run_id) / name).read_bytes() == (there / name).read_bytes()
    placement = read_placement(workspace.home.run_dir(run_id))
    assert placement is not None
    assert placement.engine == "slurm"
    assert placement.job_id
    assert [node.state for node in workspace.nodes(run_id).nodes] == [RunState.SUCCEEDED] * 2


def test_a_job_that_waits_says_why_and_can_be_taken_back(workspace: Workspace) -> None:
    first = launch(workspace, steps=8, hold_at=4, name="first")
    wait_for(lambda: (updated(workspace, first).step or 0) >= 4, "the first to run", 60)
    second = launch(workspace, steps=8, name="second")
    waiting = wait_for(
        lambda: found if (found := updated(workspace, second)).message and not found.state.is_terminal else None,
        "the second to say why it waits",
        60,
    )
    assert waiting.state is RunState.QUEUED
    workspace.stop(second)
    assert workspace.wait(second).state is RunState.STOPPED
    workspace.stop(first)
    assert workspace.wait(first).state is RunState.STOPPED
    workspace.resume(first)
    summary = workspace.wait(first)
    assert (summary.state, summary.attempt, summary.step) == (RunState.SUCCEEDED, 2, 8), summary


def test_the_slurm_of_this_machine_needs_no_mirror(workspace: Workspace) -> None:
    run_id = launch(workspace, "local", steps=8)
    summary = workspace.wait(run_id)
    assert (summary.state, summary.step) == (RunState.SUCCEEDED, 8), summary
    assert workspace.curve(run_id, "toy/value").step.tolist() == list(range(1, 9))
