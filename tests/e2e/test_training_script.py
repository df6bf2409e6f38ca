"""Users' own unmodified scripts under real supervisors: every launcher, every way to report, failures, stop."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.contracts.events import ArtifactEvent, LogEvent, MetricEvent, ResultEvent
from core.contracts.ids import RunId
from core.contracts.states import RunState
from core.jobs.processes import marked_processes
from core.plugins.decode import decode_spec, read_spec
from core.runlog.tail import read_batch
from core.settings.home import Home
from core.settings.resources import examples_dir
from tests.helpers.lab import Lab, opened_lab
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.timeout(300)
LIMIT_S = 250.0

CSV = """
import csv, sys, time
with open("log.csv", "w", newline="", buffering=1) as file:
    writer = csv.writer(file)
    writer.writerow(["step", "loss"])
    for step in range(5):
        writer.writerow([step, 1 / (step + 1)])
print("arguments", sys.argv[1:])
"""
EMITTER = """
import sys
sys.path.insert(0, "")
import core, pilothouse_emit
assert core.MINE, "their own package is the one that is imported"
for step in range(3):
    pilothouse_emit.metric(step, loss=2.0 - step)
pilothouse_emit.result(score=0.75)
"""
BOARD = """
from torch.utils.tensorboard import SummaryWriter
with SummaryWriter("runs/a") as board:
    for step in range(4):
        board.add_scalar("loss/train", 1.0 / (step + 1), step)
        board.add_scalar("accuracy", step / 4, step)
"""
TRAINER = """
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments
torch.manual_seed(0)
config = LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
                     num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=16)
data = [{"input_ids": row, "labels": row} for row in torch.randint(0, 32, (32, 8))]
arguments = TrainingArguments(output_dir="out", num_train_epochs=2, per_device_train_batch_size=4, logging_steps=3,
                              eval_strategy="epoch", save_strategy="no", report_to="none", use_cpu=True)
Trainer(model=LlamaForCausalLM(config), args=arguments, train_dataset=data, eval_dataset=data[:8]).train()
"""
RANKS = """
import os, sys
import torch, torch.distributed as dist
dist.init_process_group("gloo")
total = torch.ones(()) * (dist.get_rank() + 1)
dist.all_reduce(total)
if dist.get_rank() == 0:
    with open("log.csv", "w") as file:
        file.write(f"step,total,start\\n1,{float(total)},{sys.argv[sys.argv.index('--start') + 1]}\\n")
if "--fail" in sys.argv and dist.get_rank() == 1:
    raise ValueError("rank one saw a bad sample")
dist.barrier()
dist.destroy_process_group()
"""
ACCELERATE = """
from accelerate import Accelerator
accelerator = Accelerator()
if accelerator.is_main_process:
    with open("log.csv", "w") as file:
        file.write(f"step,processes,is_cpu\\n1,{accelerator.num_processes},{int(accelerator.device.type == 'cpu')}\\n")
accelerator.wait_for_everyone()
accelerator.end_training()
"""
PATIENT = """
import pathlib, signal, sys, time
def end(*_):
    pathlib.Path("ended").write_text("politely")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
pathlib.Path("started").write_text("")
while True:
    time.sleep(0.05)
"""


class Desk:
    """A lab and a project folder with one script."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.folder = folder
        folder.mkdir()

    def launch(self, source: str, **fields: object) -> RunId:
        script = self.folder / "train.py"
        script.write_text(source)
        spec = decode_spec({"kind": "train.script", "script": str(script), "launch": {"threads": 1}, **fields})
        run_id = self.lab.launcher.launch(spec)
        self.lab.launched.append(run_id)
        return run_id

    def succeeded(self, source: str, **fields: object) -> RunId:
        run_id = self.launch(source, **fields)
        standing = self.lab.ended(run_id, LIMIT_S)
        assert standing.state is RunState.SUCCEEDED, (standing.message, self.output(run_id))
        return run_id

    def output(self, run_id: RunId) -> str:
        return self.lab.layout(run_id).stdout().read_text()

    def curves(self, run_id: RunId) -> dict[str, list[tuple[int, float]]]:
        found: dict[str, list[tuple[int, float]]] = {}
        for event in self.events(run_id):
            if isinstance(event, MetricEvent):
                for key, value in event.values.items():
                    found.setdefault(key, []).append((event.step, float(value)))
        return found

    def events(self, run_id: RunId) -> list[object]:
        batch = read_batch(self.lab.home.run_dir(run_id), {}, 64 << 20)
        return [event for file in batch.files for event in file.events]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with opened_lab(Home(tmp_path / "home")) as lab:
        yield Desk(lab, tmp_path / "project with spaces")


def test_a_csv_log_becomes_curves_and_arguments_arrive_as_they_are(desk: Desk) -> None:
    arguments = ["--x", "a b", "$HOME", "*"]
    run_id = desk.succeeded(CSV, args=arguments)
    assert desk.curves(run_id) == {"loss": [(step, 1 / (step + 1)) for step in range(5)]}
    assert f"arguments {arguments}" in desk.output(run_id)


def test_the_emitter_reports_while_the_users_own_core_package_is_imported(desk: Desk) -> None:
    (desk.folder / "core").mkdir()
    (desk.folder / "core" / "__init__.py").write_text("MINE = True\n")
    run_id = desk.succeeded(EMITTER)
    assert desk.curves(run_id) == {"loss": [(0, 2.0), (1, 1.0), (2, 0.0)]}
    warnings = [event.message for event in desk.events(run_id) if isinstance(event, LogEvent) and event.level != "info"]
    assert warnings == []
    assert {"score": 0.75} in [event.values for event in desk.events(run_id) if isinstance(event, ResultEvent)]


def test_tensorboard_scalars_written_by_torch_become_curves(desk: Desk) -> None:
    curves = desk.curves(desk.succeeded(BOARD))
    assert curves["loss/train"] == [(step, pytest.approx(1.0 / (step + 1))) for step in range(4)]
    assert curves["accuracy"] == [(step, step / 4) for step in range(4)]


def test_a_hugging_face_trainer_reports_with_its_exact_steps(desk: Desk) -> None:
    run_id = desk.succeeded(TRAINER)
    curves = desk.curves(run_id)
    assert [step for step, _ in curves["train/loss"]] == [3, 6, 9, 12, 15]
    assert [step for step, _ in curves["eval/loss"]] == [8, 16]
    assert all(2.0 < value < 5.0 for _, value in curves["train/loss"] + curves["eval/loss"])
    results = [event.values for event in desk.events(run_id) if isinstance(event, ResultEvent)]
    assert results[-1]["train/runtime"] > 0


def test_a_script_that_reports_nothing_is_said_to(desk: Desk) -> None:
    run_id = desk.succeeded("print('nothing to see')")
    warnings = [event.message for event in desk.events(run_id) if isinstance(event, LogEvent) and event.level != "info"]
    assert warnings == ["The script reported no metrics that were recognised."]


def test_torchrun_starts_two_ranks_and_keeps_arguments_that_look_like_its_own(desk: Desk) -> None:
    run_id = desk.succeeded(RANKS, launcher="torchrun", processes=2, args=["--start", "6"])
    assert desk.curves(run_id) == {"total": [(1, 3.0)], "start": [(1, 6.0)]}


def test_the_rank_that_failed_first_is_quoted_and_no_process_is_left(desk: Desk) -> None:
    run_id = desk.launch(RANKS, launcher="torchrun", processes=2, args=["--start", "6", "--fail"])
    standing = desk.lab.ended(run_id, LIMIT_S)
    assert standing.state is RunState.FAILED
    # Whether gloo's teardown after the exception exits or aborts is a race inside torch, so the exit status is left open.
    assert standing.message.startswith("Rank 1 of the script ")
    assert standing.message.endswith(": ValueError: rank one saw a bad sample.")
    wait_for(lambda: not marked_processes(run_id), "no process of the run")


@pytest.mark.parametrize("processes", [1, 2])
def test_accelerate_starts_as_many_cpu_processes_as_asked(desk: Desk, processes: int) -> None:
    curves = desk.curves(desk.succeeded(ACCELERATE, launcher="accelerate", processes=processes, device="cpu"))
    assert curves == {"processes": [(1, float(processes))], "is_cpu": [(1, 1.0)]}


@pytest.mark.parametrize(
    ("source", "message", "hint"),
    [
        ("import no_such_package_x", "No module named 'no_such_package_x'", "Install 'no_such_package_x'"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "was ended by SIGKILL", "memory"),
        ("import sys; sys.exit('no data folder given')", "exit code 1: no data folder given", "log shows"),
    ],
)
def test_a_failing_script_ends_in_one_sentence(desk: Desk, source: str, message: str, hint: str) -> None:
    standing = desk.lab.ended(desk.launch(source), LIMIT_S)
    assert standing.state is RunState.FAILED
    assert message in standing.message
    assert hint in standing.hint


def test_an_interpreter_that_cannot_start_is_named(desk: Desk) -> None:
    broken = desk.folder / "python"
    broken.write_text("not a program")
    broken.chmod(0o755)
    standing = desk.lab.ended(desk.launch(CSV, interpreter=str(broken)), LIMIT_S)
    assert standing.state is RunState.FAILED
    assert str(broken) in standing.message


def test_stop_reaches_the_script_and_is_no_failure(desk: Desk) -> None:
    run_id = desk.launch(PATIENT)
    wait_for((desk.folder / "started").exists, "the script to start")
    desk.lab.launcher.stop(run_id)
    assert desk.lab.ended(run_id, LIMIT_S).state is RunState.STOPPED
    assert (desk.folder / "ended").read_text() == "politely"
    wait_for(lambda: not marked_processes(run_id), "no process of the run")


def test_a_script_that_ignores_the_stop_is_killed_after_the_grace(desk: Desk) -> None:
    stubborn = PATIENT.replace("sys.exit(0)", "return")
    run_id = desk.launch(stubborn, launch={"threads": 1, "stop_grace_s": 1.0})
    wait_for((desk.folder / "started").exists, "the script to start")
    desk.lab.launcher.stop(run_id)
    assert desk.lab.ended(run_id, LIMIT_S).state is RunState.STOPPED
    wait_for(lambda: not marked_processes(run_id), "no process of the run")


def test_metrics_arrive_while_the_script_still_runs(desk: Desk) -> None:
    waiting = CSV.replace('print("arguments"', 'while not os.path.exists("go"): time.sleep(0.02)\nprint("arguments"')
    run_id = desk.launch("import os" + waiting)
    wait_for(lambda: len(desk.curves(run_id).get("loss", [])) == 5, "all points while the script waits")
    assert marked_processes(run_id)
    (desk.folder / "go").write_text("")
    assert desk.lab.ended(run_id, LIMIT_S).state is RunState.SUCCEEDED


def test_the_shipped_example_trains_and_lists_what_it_made(desk: Desk) -> None:
    run_id = desk.lab.launcher.launch(read_spec(examples_dir() / "script.toml"))
    desk.lab.launched.append(run_id)
    standing = desk.lab.ended(run_id, LIMIT_S)
    assert standing.state is RunState.SUCCEEDED, desk.output(run_id)
    curves = desk.curves(run_id)
    assert len(curves["train/loss"]) == 12 * 43
    assert curves["test/accuracy"][-1][1] > 0.93
    made = {event.name for event in desk.events(run_id) if isinstance(event, ArtifactEvent)}
    assert made == {"digits.pt", "metrics.csv"}


def test_another_python_runs_the_script(desk: Desk) -> None:
    bare = desk.folder / "bare-python"
    bare.symlink_to(Path(sys.executable).resolve())
    run_id = desk.succeeded("import sys; print('executable', sys.executable)", interpreter=str(bare))
    assert f"executable {bare}" in desk.output(run_id)
