"""Runs on the stand-in for Kubernetes as the window and the command line launch them: through the workspace."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from core.cli.main import main
from core.contracts.errors import EnvironmentProblem, UserError
from core.contracts.ids import RunId
from core.contracts.states import RunState
from core.plugins.decode import encode_spec
from core.workspace.workspace import Workspace
from tests.helpers.kube_lab import KubeLab, opened_kube_lab
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def lab(tmp_path: Path, pilothouse_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubeLab]:
    with opened_kube_lab(tmp_path, pilothouse_home, monkeypatch) as opened:
        monkeypatch.setenv("KUBECONFIG", str(opened.kubeconfig))
        yield opened


@pytest.fixture
def workspace(lab: KubeLab) -> Iterator[Workspace]:
    opened = Workspace.open(lab.home.path)
    yield opened
    opened.close()


def at_step(workspace: Workspace, run_id: RunId, step: int) -> None:
    workspace.fleet.following.follow(run_id)
    path = workspace.home.run_dir(run_id) / "events.node0.worker.jsonl"
    wait_for(lambda: path.exists() and path.read_bytes().count(b'"metric"') >= step, f"step {step}")


def test_the_history_of_a_run_on_two_pods_and_its_deletion(lab: KubeLab, workspace: Workspace):
    assert workspace.fleet.kubernetes_contexts() == ("standin",)
    run_id = workspace.launch_spec(lab.toy(name="pods", steps=6, step_s=0.02, asked={"nodes": 2}))
    summary = workspace.wait(run_id)
    assert (summary.state, summary.message) == (RunState.SUCCEEDED, "")
    assert list(workspace.curve(run_id, "toy/value").step) == [1, 2, 3, 4, 5, 6]
    nodes = workspace.nodes(run_id).nodes
    assert [(node.node, node.state, node.alive_pids) for node in nodes] == [
        ("node0", RunState.SUCCEEDED, ()),
        ("node1", RunState.SUCCEEDED, ()),
    ]
    workspace.delete([run_id])
    workspace.purge([run_id])
    assert lab.api.objects == {}


def test_a_pod_that_fails_ends_the_others_and_is_named(lab: KubeLab, workspace: Workspace):
    spec = lab.toy(steps=500, hold_at=4, launch={"stop_grace_s": 5}, asked={"nodes": 2})
    run_id = workspace.launch_spec(spec)
    at_step(workspace, run_id, 4)
    lab.kill_worker("node1")
    summary = workspace.wait(run_id)
    assert summary.state is RunState.FAILED
    assert "pod-1" in summary.message
    workspace.fleet.following.settle(run_id, 30)
    assert {node.state for node in workspace.nodes(run_id).nodes} <= {RunState.FAILED, RunState.STOPPED}
    wait_for(lambda: not lab.api.machine.live_processes(), "all processes to be gone")


def test_stop_and_resume_on_a_volume_claim(lab: KubeLab, workspace: Workspace):
    lab.claim("claim")
    run_id = workspace.launch_spec(lab.toy(steps=10, hold_at=5, asked={"volume_claim": "claim"}))
    at_step(workspace, run_id, 5)
    workspace.stop(run_id)
    assert workspace.wait(run_id).state is RunState.STOPPED
    workspace.resume(run_id)
    summary = workspace.wait(run_id)
    assert summary.state is RunState.SUCCEEDED
    assert list(workspace.curve(run_id, "toy/value").step) == list(range(1, 11))


def test_a_stop_while_it_waits_for_a_place(lab: KubeLab, workspace: Workspace):
    run_id = workspace.launch_spec(lab.toy(asked={"gpus_per_node": 16, "shm": "1Gi"}))
    workspace.fleet.following.follow(run_id)

    def waits() -> bool:
        workspace.sync()
        return (
            workspace.summary(run_id).state is RunState.QUEUED and "nvidia.com/gpu" in workspace.summary(run_id).message
        )

    wait_for(waits, "the reason to be shown")
    workspace.stop(run_id)
    assert workspace.wait(run_id).state is RunState.STOPPED


def test_pause_is_refused_with_the_way_out(lab: KubeLab, workspace: Workspace):
    run_id = workspace.launch_spec(lab.toy(steps=10, hold_at=2))
    at_step(workspace, run_id, 2)
    with pytest.raises(UserError, match="resume it later"):
        workspace.pause(run_id)
    workspace.stop(run_id)
    assert workspace.wait(run_id).state is RunState.STOPPED


def test_a_launch_that_cannot_be_leaves_nothing_and_names_all(lab: KubeLab, workspace: Workspace):
    lab.api.denied.add(("create", "jobs"))
    with pytest.raises(EnvironmentProblem) as caught:
        workspace.launch_spec(lab.toy(asked={"volume_claim": "absent"}))
    assert "create jobs.batch" in caught.value.message
    assert "'absent'" in caught.value.message
    assert lab.api.objects == {}
    assert not list(workspace.home.runs_dir.iterdir())


def test_the_command_line_prints_the_manifest_and_runs(
    lab: KubeLab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "spec.toml"
    spec = lab.toy(steps=3, asked={"context": ""})
    path.write_text(encode_spec(spec), encoding="utf-8")
    assert main(lambda _: 1, ["run", str(path), "--kubernetes", "standin", "--dry-run"]) == 0
    assert [one["kind"] for one in yaml.safe_load_all(capsys.readouterr().out)] == ["ConfigMap", "Service", "Job"]
    assert lab.api.objects == {}
    assert main(lambda _: 1, ["run", str(path), "--kubernetes", "standin", "--follow", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["state"] == "succeeded"
