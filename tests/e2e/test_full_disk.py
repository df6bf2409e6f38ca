"""A really full disk: the run fails with a sentence, the exit record is there, and freeing space lets it resume."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.contracts.errors import EnvironmentProblem
from core.contracts.states import RunState
from core.settings.home import Home
from tests.helpers.lab import Lab, opened_lab
from tests.helpers.toy_plugin import install_toy


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 64 MiB; needs root."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    target = tmp_path / "disk"
    target.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(target)], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"mounting is not allowed here: {done.stderr.decode().strip()}")
    yield target
    subprocess.run(["umount", "-l", str(target)], check=True)


@pytest.fixture
def lab(small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    install_toy(tmp_path / "plugin", monkeypatch)
    with opened_lab(Home(small_disk / "home")) as found:
        yield found


def test_a_full_disk_ends_in_a_sentence_and_the_run_resumes_once_there_is_space(lab: Lab) -> None:
    run_id = lab.launch(steps=9, checkpoint_every=2, fill_disk_at=5)
    standing = lab.ended(run_id)
    assert standing.state is RunState.FAILED
    assert "is full" in standing.message
    assert "Free space" in standing.hint
    assert list(lab.layout(run_id).checkpoints.glob("step-*")), "the checkpoints are intact"
    with pytest.raises(EnvironmentProblem, match="MiB are free"):
        lab.launcher.resume(run_id)
    (lab.home.run_dir(run_id) / "scratch-fill").unlink()
    spec = lab.layout(run_id).spec
    spec.write_text(spec.read_text().replace("fill_disk_at = 5", "fill_disk_at = -1"))
    lab.launcher.resume(run_id)
    assert lab.ended(run_id).state is RunState.SUCCEEDED
    assert sorted(dict(lab.steps(run_id))) == list(range(1, 10))


def test_a_launch_on_a_full_disk_is_refused_and_leaves_nothing(lab: Lab, small_disk: Path) -> None:
    (small_disk / "fill").write_bytes(bytes(20 << 20))
    with pytest.raises(EnvironmentProblem, match="MiB are free") as caught:
        lab.launch(steps=1)
    assert "Free at least 50 MiB" in caught.value.hint
    assert list(lab.home.runs_dir.iterdir()) == []
