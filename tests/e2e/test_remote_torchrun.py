"""The shipped distributed example on two hosts by the command line: real sshd, real torchrun, gloo across the hosts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.contracts.events import MetricEvent
from core.jobs.placed import placement_of
from core.runlog.tail import read_batch
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


LANGUAGE = """
kind = "train.language"
steps = 8
micro_batch = 4
evaluate_every = 8
device = "cpu"

[data]
data = "{text}"

[model]
layers = 2
hidden = 32
heads = 4
context = 64

[optimizer]
grad_accum_steps = {accumulation}
lr = 0.01

[parallel]
{parallel}

[launch]
threads = 1
copy_data = ["{text}"]
"""


def test_the_engine_trains_sharded_over_two_hosts_on_copied_data_as_one_process_does(
    lab: RemoteLab, tmp_path: Path
) -> None:
    lab.workspace.fleet.close()
    text = tmp_path / "prose.txt"
    text.write_text("\n\n".join(f"{number} times {number} is {number * number}." for number in range(3000)))
    spec = tmp_path / "language.toml"

    def losses(parallel: str, accumulation: int, *words: str) -> list[float]:
        spec.write_text(LANGUAGE.format(text=text, accumulation=accumulation, parallel=parallel))
        done = command("run", str(spec), *words, "--follow", "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        run_id = json.loads(done.stdout)["run_id"]
        assert not any(lab.left(run_id).values())
        if words:
            placement = placement_of(lab.workspace.home.run_dir(run_id))
            assert [copied.here for copied in placement.copies] == [str(text)]
        batch = read_batch(lab.workspace.home.run_dir(run_id), {}, 64 << 20)
        metrics = [event for file in batch.files for event in file.events if isinstance(event, MetricEvent)]
        return [float(event.values["train/loss"]) for event in metrics if "train/loss" in event.values]

    spread = losses('sharding = "zero3"', 2, "--hosts", "h1,h2")
    assert len(spread) == 8
    assert spread == pytest.approx(losses("processes = 1", 4), rel=1e-5)


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
