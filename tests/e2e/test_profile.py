"""``pilothouse runs profile`` on a real training: it asks, waits, prints, and the training goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.contracts.ids import RunId
from core.contracts.profiles import CATEGORIES
from core.contracts.states import RunState
from core.plugins.decode import decode_spec
from core.workspace.workspace import Workspace
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.timeout(300)
SPEC: dict[str, Any] = {
    "kind": "train.language",
    "steps": 100_000,
    "micro_batch": 4,
    "device": "cpu",
    "data": {"data": "stdlib", "max_bytes": 200_000},
    "model": {"layers": 2, "hidden": 32, "heads": 4, "key_value_heads": 2, "context": 64},
    "launch": {"threads": 1},
}


@pytest.fixture
def training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Workspace, RunId]]:
    monkeypatch.setenv("PILOTHOUSE_HOME", str(tmp_path / "home"))
    workspace = Workspace.open(tmp_path / "home")
    run_id = workspace.launch_spec(decode_spec(SPEC))

    def is_training() -> bool:
        workspace.refresh(run_id)
        summary = workspace.summary(run_id)
        assert not summary.state.is_terminal, summary.message
        return (summary.step or 0) >= 5

    try:
        wait_for(is_training, "step 5", 200.0)
        yield workspace, run_id
    finally:
        workspace.refresh(run_id)
        if not workspace.summary(run_id).state.is_terminal:
            workspace.stop(run_id)
            workspace.wait(run_id)
        workspace.close()


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-P", "-m", "app.command", "runs", "profile", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_a_profile_is_recorded_while_the_training_goes_on(training: tuple[Workspace, RunId]) -> None:
    workspace, run_id = training
    none = command(run_id, "--last")
    assert none.returncode == 2
    assert "has recorded no profile" in none.stderr

    done = command(run_id, "--steps", "2", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["source"], report["rank"], report["steps"]) == ("torch.profiler", 0, 2)
    assert report["first_step"] > 5
    assert [one["name"] for one in report["categories"]] == list(CATEGORIES)
    shares = {one["name"]: one["fraction"] for one in report["categories"]}
    assert shares["compute"] > 0.2
    assert shares["optimizer"] > 0
    assert {"data_wait", "forward_backward", "optimizer"} <= {one["name"] for one in report["phases"]}
    assert "aten::mm" in {one["name"] for one in report["operators"]}
    assert Path(report["trace_path"]).is_file()

    shown = command(run_id, "--last")
    assert shown.returncode == 0
    assert "CATEGORY" in shown.stdout
    assert "aten::mm" in shown.stdout
    assert "trace.json.gz" in shown.stdout

    wrong = command(run_id, "--rank", "3", "--json")
    assert wrong.returncode == 2
    assert "the ranks 0 to 0" in json.loads(wrong.stdout)["error"]["message"]

    def goes_on() -> bool:
        workspace.refresh(run_id)
        return (workspace.summary(run_id).step or 0) > report["first_step"] + 2

    wait_for(goes_on, "steps after the profile")
    workspace.stop(run_id)
    assert workspace.wait(run_id).state is RunState.STOPPED
    assert command(run_id, "--steps", "2").returncode == 2, "it has ended"
