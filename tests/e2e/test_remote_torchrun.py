"""The shipped distributed example on two hosts by the command line: real sshd, real torchrun, gloo across the hosts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.remote_lab import RemoteLab, opened_remote_lab

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RemoteLab]:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with opened_remote_lab(tmp_path, monkeypatch) as found:
        monkeypatch.setenv("PILOTHOUSE_HOME", str(found.workspace.home.path))
        yield found


def command(*words: str) -> subprocess.CompletedProcess[str]:
    """Run ``pilothouse`` in a process of its own, inside the hosts' network."""
    argv = [sys.executable, "-P", "-m", "app.command", *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_two_hosts_with_two_ranks_each_train_to_the_same_loss_as_one_process(lab: RemoteLab, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    lab.workspace.fleet.close()
    planned = command("run", "ddp-digits.toml", "--hosts", "h1,h2", "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert f"They meet at {lab.hosts.address('h1')}" in planned.stdout
    assert "Code " in planned.stdout
    assert list(lab.workspace.home.runs_dir.iterdir()) == []

    done = command("run", "ddp-digits.toml", "--hosts", "h1,h2", "--follow", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    run = json.loads(done.stdout)
    assert (run["state"], run["host"]) == ("succeeded", "h1, h2")

    shown = json.loads(command("runs", "show", run["run_id"], "--json").stdout)
    assert [(node["node"], node["state"], node["alive_pids"]) for node in shown["nodes"]] == [
        ("h1", "succeeded", []),
        ("h2", "succeeded", []),
    ]
    assert sorted(rank["rank"] for rank in shown["ranks"]) == [0, 1, 2, 3]
    assert not any(lab.left(run["run_id"]).values())

    alone = command("run", "ddp-digits.toml", "--follow", "--json")
    assert alone.returncode == 0, alone.stdout + alone.stderr
    losses = [key for key in run["final"] if key.endswith("loss")]
    assert losses
    for key in losses:
        assert run["final"][key] == pytest.approx(json.loads(alone.stdout)["final"][key], rel=0.2), key


def test_what_stands_against_a_launch_is_listed_at_once_and_nothing_is_made(lab: RemoteLab) -> None:
    lab.workspace.fleet.close()
    for host in ("h1", "h2"):
        lab.hosts.poweroff(host)
    done = command("run", "ddp-digits.toml", "--hosts", "h1,h2", "--json")
    assert done.returncode == 3, done.stdout + done.stderr
    error = json.loads(done.stdout)["error"]
    assert "h1: " in error["message"]
    assert "h2: " in error["message"]
    assert "--no-check" in error["hint"]
    assert list(lab.workspace.home.runs_dir.iterdir()) == []
