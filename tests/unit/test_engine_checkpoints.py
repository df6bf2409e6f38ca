"""Checkpoints of one process: what is refused with which sentence, what stays when a disk is full, where a run may start."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from core.contracts.errors import EnvironmentProblem, UserError
from core.contracts.ids import RunId
from core.jobs.checkpoints import MANIFEST
from core.jobs.records import EXIT_NO_SPACE
from core.jobs.worker import is_no_space, report
from core.train.engine import checkpoint_files as files
from core.train.engine.checkpointing import start_folder
from core.train.engine.contracts import Outcome
from core.train.engine.train import train
from tests.helpers.digit_task import Network, RowTask, maker, row_spec
from tests.helpers.engine_runs import SpyContext, run_once

SHORT: dict[str, Any] = {"steps": 4, "evaluate_every": 2}


def train_here(home: Path, *, attempt: int = 1, task: RowTask | None = None, **fields: Any) -> SpyContext:
    context = SpyContext(home, attempt=attempt)
    try:
        train(row_spec(**{**SHORT, **fields}), context, maker(task or RowTask()))
    finally:
        context.close()
    return context


def newest(context: SpyContext) -> Path:
    return max((context.run_dir / "checkpoints").glob("step-*"))


class Wider(RowTask):
    """The same task with a model that differs in one layer."""

    def build_model(self) -> nn.Module:
        network = Network(0.0)
        network.outer = nn.Linear(16, 9)
        return network


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> SpyContext:
    return train_here(tmp_path_factory.mktemp("trained"))


def test_a_checkpoint_of_another_model_names_what_differs(tmp_path: Path, trained: SpyContext) -> None:
    with pytest.raises(UserError, match=r"another model.*model\.outer\.bias is \(4,\) there and \(9,\) here"):
        train_here(tmp_path, task=Wider(), checkpoints={"start_from": str(newest(trained))})


def test_a_checkpoint_of_another_optimizer_says_which(tmp_path: Path, trained: SpyContext) -> None:
    fields: dict[str, Any] = {"checkpoints": {"start_from": str(newest(trained))}, "optimizer": {"algorithm": "sgd"}}
    with pytest.raises(UserError, match="state of adamw, but the run uses sgd"):
        train_here(tmp_path, **fields)


def test_a_run_starts_from_the_checkpoint_of_another_and_counts_its_own_best(
    tmp_path: Path, trained: SpyContext
) -> None:
    task = RowTask()
    context = train_here(tmp_path, task=task, steps=6, checkpoints={"start_from": str(newest(trained))})
    assert context.starts == [4]
    assert sorted(context.losses()) == [5, 6]
    assert task.outcome is not None
    assert task.outcome.best_step > 4


def test_a_start_that_is_as_far_as_the_run_is_to_go_is_refused(tmp_path: Path, trained: SpyContext) -> None:
    context = SpyContext(tmp_path)
    context.run_id = RunId("20260102-000000-other-abcdef")
    spec = row_spec(**{**SHORT, "checkpoints": {"start_from": str(newest(trained))}})
    with pytest.raises(UserError, match="is of step 4, and this run ends at step 4"):
        train(spec, context, maker(RowTask()))
    context.close()


def test_the_newest_intact_checkpoint_of_a_run_id_is_found_and_what_is_none_is_refused(trained: SpyContext) -> None:
    assert start_folder(str(trained.run_id), trained.home) == newest(trained)
    with pytest.raises(UserError, match="no folder 'nothing', nor a run"):
        start_folder("nothing", trained.home)


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no checkpoint of a training"):
        train_here(tmp_path, checkpoints={"start_from": str(tmp_path / "empty")})


def test_a_damaged_checkpoint_is_passed_over_in_a_resume_and_refused_as_a_start(tmp_path: Path) -> None:
    context = train_here(tmp_path, checkpoints={"keep_best": False})
    shard = next(newest(context).glob("__*"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(UserError, match="is damaged"):
        start_folder(str(newest(context)), tmp_path)
    copy = shutil.copytree(newest(context), tmp_path / "copy")
    (copy / MANIFEST).write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        start_folder(str(copy), tmp_path)
    resumed = train_here(tmp_path, attempt=2, checkpoints={"keep_best": False})
    assert resumed.starts == [2]
    assert any("step 4 is damaged" in message for message in resumed.logs)


def test_metadata_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    (tmp_path / ".metadata").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(EnvironmentProblem, match="missing or damaged"):
        files.load_metadata(tmp_path)
    # A module's own import must not be reached through a class that is admitted.
    dotted = b"\x80\x04\x8c%torch.distributed.checkpoint.metadata\x8c\tos.system\x93."
    (tmp_path / ".metadata").write_bytes(dotted)
    with pytest.raises(EnvironmentProblem, match="missing or damaged"):
        files.load_metadata(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_small_file_that_is_no_checkpoint_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / files.TRAINING_FILE).write_bytes(b"nothing of the kind")
    with pytest.raises(EnvironmentProblem, match="damaged or is no file of a checkpoint"):
        files.load_training(tmp_path)
    torch.save({"step": 3}, tmp_path / files.TRAINING_FILE)
    with pytest.raises(UserError, match="another version of the program"):
        files.load_training(tmp_path)


def test_the_best_checkpoint_stays_beside_the_newest(tmp_path: Path) -> None:
    # The rate ruins the model after the first validation, which stays the best.
    fields: dict[str, Any] = {
        "optimizer": {"lr": 5.0, "schedule": "constant", "algorithm": "sgd", "warmup_fraction": 0.0}
    }
    context = train_here(tmp_path, steps=12, stability={"guard": False}, checkpoints={"keep_last": 1}, **fields)
    losses = context.curve("val/loss")
    best = 2 * (1 + losses.index(min(losses)))
    kept = sorted(int(path.name.removeprefix("step-")) for path in newest(context).parent.glob("step-*"))
    assert kept == sorted({best, 12})


def test_a_damaged_best_checkpoint_does_not_cost_the_model(tmp_path: Path) -> None:
    task = RowTask()

    def damage(number: int) -> float:
        if number == 8:
            shard = next(tmp_path.glob("runs/*/checkpoints/step-*2/__*"))
            shard.write_bytes(shard.read_bytes()[:-9])
        return 1.0

    task.loss_scale = damage
    ruin: dict[str, Any] = {"lr": 5.0, "schedule": "constant", "algorithm": "sgd", "warmup_fraction": 0.0}
    context = train_here(tmp_path, task=task, steps=8, stability={"guard": False}, optimizer=ruin)
    assert any("best step 2 is gone or damaged; the last weights are kept" in line for line in context.logs)
    assert task.outcome is not None
    assert task.outcome.best_step == 8


def test_averaging_may_begin_in_a_resumed_run(tmp_path: Path) -> None:
    train_here(tmp_path)
    resumed = train_here(tmp_path, attempt=2, steps=6, optimizer={"ema_decay": 0.9})
    assert resumed.starts == [4]
    assert sorted(resumed.losses()) == [5, 6]


def test_a_change_of_the_weights_after_save_does_not_reach_the_checkpoint_being_written(tmp_path: Path) -> None:
    """Training goes on while a checkpoint is written: the resumed run must not see what came later."""
    whole = train_here(tmp_path / "a", steps=9, evaluate_every=3)
    stopped = SpyContext(tmp_path / "b")
    stopped.stop_at = 5
    train(row_spec(steps=9, evaluate_every=3), stopped, maker(RowTask()))
    stopped.close()
    resumed = train_here(tmp_path / "b", attempt=2, steps=9, evaluate_every=3)
    assert whole.losses() == stopped.losses() | resumed.losses()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 1 MiB; needs root."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    target = tmp_path / "disk"
    target.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(target)], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"mounting is not allowed here: {done.stderr.decode().strip()}")
    yield target
    subprocess.run(["umount", "-l", str(target)], check=True)


@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_disk_that_fills_up_in_mid_run_ends_in_a_sentence_and_older_checkpoints_stay_good(
    small_disk: Path, *, asynchronous: bool
) -> None:
    task = RowTask()

    def fill(number: int) -> float:
        if number == 6:
            (small_disk / "fill").write_bytes(bytes(_free(small_disk) - 20_000))
        return 1.0

    task.loss_scale = fill
    context = SpyContext(small_disk)
    fields: dict[str, Any] = {"steps": 20, "evaluate_every": 2, "checkpoints": {"asynchronous": asynchronous}}
    with pytest.raises(EnvironmentProblem, match="disk is full: the checkpoint of step") as caught:
        train(row_spec(**fields), context, maker(task))
    assert "older checkpoints are intact" in caught.value.hint
    assert is_no_space(caught.value)
    assert not list((context.run_dir / "checkpoints").glob(".partial-*")), "what was begun is cleared away"
    (small_disk / "fill").unlink()
    resumed = SpyContext(small_disk, attempt=2)
    outcome = run_once(resumed, {"steps": 8, "evaluate_every": 2, "micro_batch": 8}, RowTask())
    assert outcome["error"] == ""
    assert resumed.starts[0] in (2, 4), (
        "the newest whole one; beside the training, that of step 4 may be the one that failed"
    )


def test_a_disk_that_is_full_when_the_model_is_written_is_told_as_such(
    small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Writes(RowTask):
        def finish(self, weights: Mapping[str, torch.Tensor], outcome: Outcome) -> None:
            del outcome
            save_file({**weights, "large": torch.zeros(1 << 20)}, context.artifacts_dir / "model.safetensors")

    context = SpyContext(small_disk)
    with pytest.raises(SafetensorError) as caught:
        train(row_spec(**SHORT), context, maker(Writes()))
    (context.artifacts_dir / "model.safetensors").unlink(missing_ok=True)
    assert report(context, caught.value) == EXIT_NO_SPACE
    context.close()
    assert capsys.readouterr().err == "The disk is full. Free some space and resume the run.\n"


class NoFolder(SpyContext):
    """A disk that has no room for another folder, from the second checkpoint on."""

    def new_checkpoint(self, step: int) -> Path:
        if step > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().new_checkpoint(step)


def test_a_checkpoint_whose_folder_cannot_be_made_costs_nothing_that_is_there(tmp_path: Path) -> None:
    context = NoFolder(tmp_path)
    with pytest.raises(EnvironmentProblem, match="disk is full: the checkpoint of step 4"):
        train(row_spec(**SHORT), context, maker(RowTask()))
    context.close()
    assert newest(context).name == "step-0000000002"
    assert context.losses(), "the run's log is still there, too"
    assert next((context.run_dir).glob("events*")).is_file()


def _free(path: Path) -> int:
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def test_errors_of_the_disk_are_told_apart(tmp_path: Path) -> None:
    full = files.write_problem(OSError(errno.ENOSPC, "No space left on device"), 7, tmp_path)
    denied = files.write_problem(PermissionError(errno.EACCES, "Permission denied"), 7, tmp_path)
    assert str(full).startswith("The disk is full: the checkpoint of step 7 could not be saved.")
    assert str(denied).startswith("The disk cannot be written (Permission denied): the checkpoint of step 7")
    assert is_no_space(full)
    assert not is_no_space(denied)
