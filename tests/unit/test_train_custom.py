"""``train.custom``: what a user's file may return, what it leaves behind, and how its errors are told."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file
from torch import distributed as dist

from core.contracts.errors import EnvironmentProblem, UserError
from core.plugins.decode import read_spec
from core.settings.resources import examples_dir
from core.train.custom_file import as_settings, check_file
from core.train.models.custom_module import told_as_users
from core.train.tasks.custom import KIND, CustomTrainingSpec
from tests.helpers.recording_context import RecordingContext

pytestmark = pytest.mark.timeout(120)
FILE = """
import torch
from torch import nn
import helper

def model(settings):
    return nn.Linear(3, settings.get("width", 1))

class Points:
    def __init__(self, count):
        self.points = torch.randn(count, 3, generator=torch.Generator().manual_seed(count))
    def __len__(self):
        return len(self.points)
    def __getitem__(self, index):
        point = self.points[index]
        return {sample}

def data(settings):
    return Points(48), Points(10)

{loss}
"""
ROW = "point, helper.target(point)"
ROW_LOSS = "def loss(outputs, batch):\n    return ((outputs - batch[1]) ** 2).mean()"
NAMED_LOSS = """
def forward(model, batch):
    return model(batch["x"])

def count(batch):
    return int(batch["weight"].sum())

def loss(outputs, batch):
    return (((outputs - batch["y"]) ** 2)[:, 0] * batch["weight"]).sum()

def collate(samples):
    named = torch.utils.data.default_collate(samples)
    return {**named, "weight": torch.arange(len(samples)) % 3}

def evaluate(outputs, batch):
    return {"largest": float(outputs.max())}

def score(values):
    return values["largest"]
"""
NAMED = '{"x": point, "y": helper.target(point)}'


def write(folder: Path, sample: str = ROW, loss: str = ROW_LOSS) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "helper.py").write_text("def target(point):\n    return point.sum(0, keepdim=True) + 1.0\n")
    path = folder / "mine.py"
    path.write_text(FILE.replace("{sample}", sample).replace("{loss}", loss))
    return path


def spec_of(path: Path, **fields: object) -> CustomTrainingSpec:
    given: dict[str, Any] = {
        "kind": "train.custom",
        "file": str(path),
        "steps": 12,
        "evaluate_every": 6,
        "micro_batch": 8,
        "device": "cpu",
        "optimizer": {"lr": 0.1, "weight_decay": 0.0, "schedule": "constant"},
    }
    return msgspec.convert({**given, **fields}, CustomTrainingSpec)


def run(spec: CustomTrainingSpec, context: RecordingContext) -> RecordingContext:
    assert KIND.rank_run is not None
    KIND.rank_run(spec, context)
    return context


@pytest.fixture(autouse=True)
def forgotten_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run imports in a process of its own; here each test needs its own ``helper``."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "helper", raising=False)


@pytest.fixture
def context(tmp_path: Path) -> RecordingContext:
    return RecordingContext(tmp_path / "home")


def test_rows_of_tensors_train_with_a_mean_loss_and_leave_weights_and_file(
    context: RecordingContext, tmp_path: Path
) -> None:
    path = write(tmp_path / "code")
    run(spec_of(path), context)
    losses = [loss for _, loss in context.curve("train/loss")]
    assert losses[-1] < 0.5 * losses[0]
    assert [step for step, _ in context.curve("val/loss")] == [6, 12]
    weights = load_file(context.artifacts["model.weights"].path)
    network = torch.nn.Linear(3, 1)
    network.load_state_dict(weights)
    points = torch.randn(10, 3, generator=torch.Generator().manual_seed(10))
    found = float(((network(points) - points.sum(1, keepdim=True) - 1.0) ** 2).mean().detach())
    assert found == pytest.approx(min(loss for _, loss in context.curve("val/loss")), rel=1e-5)
    assert context.results["best/loss"] == pytest.approx(found, rel=1e-5)
    assert Path(context.artifacts["model.code"].path).read_text() == path.read_text()


def test_named_tensors_train_with_a_sum_over_what_the_file_counts(context: RecordingContext, tmp_path: Path) -> None:
    run(spec_of(write(tmp_path / "code", NAMED, NAMED_LOSS), steps=2, evaluate_every=1), context)
    (first, _), (second, _) = (context.curve(key) for key in ("val/loss", "val/largest"))
    assert first[0] == second[0] == 1
    seen = dict(context.curve("val/largest"))
    best = max(seen, key=lambda step: seen[step])
    assert context.results["best/largest"] == seen[best]
    network = torch.nn.Linear(3, 1)
    network.load_state_dict(load_file(context.artifacts["model.weights"].path))
    points = torch.randn(10, 3, generator=torch.Generator().manual_seed(10))
    squares = ((network(points) - points.sum(1, keepdim=True) - 1.0) ** 2)[:, 0].detach()
    weight = torch.tensor([number % 3 for number in (*range(8), *range(2))])  # micro-batches of 8 and 2
    assert context.results["best/loss"] == pytest.approx(float((squares * weight).sum() / weight.sum()), rel=1e-5)


def test_what_a_sample_draws_is_repeated_when_a_run_goes_on(tmp_path: Path) -> None:
    path = write(tmp_path / "code", "point + torch.randn(3), helper.target(point)")
    whole, stopped = RecordingContext(tmp_path / "whole"), RecordingContext(tmp_path / "stopped")
    run(spec_of(path), whole)
    stopped.stop_after(4)
    run(spec_of(path), stopped)
    torch.manual_seed(77)
    resumed = run(spec_of(path), stopped.next_attempt())
    assert stopped.curve("train/loss") + resumed.curve("train/loss") == whole.curve("train/loss")
    assert len(resumed.curve("train/loss")) < 12


@pytest.mark.parametrize(
    ("sample", "loss", "words"),
    [
        ("point / helper.nothing, 1", ROW_LOSS, r"Sample \d+ failed in .*mine\.py, line 16: AttributeError"),
        ("helper.target(3), 1", ROW_LOSS, r"failed in .*helper\.py, line 2: AttributeError"),
        (
            ROW,
            "def loss(outputs, batch):\n    return outputs + batch[7]",
            r"loss\(\) failed in .*, line 22: IndexError",
        ),
        (ROW, "def loss(outputs, batch):\n    return outputs", "returned no single number"),
        (ROW, f"{ROW_LOSS}\ndef forward(model, batch):\n    return [1]", "a list instead of a tensor"),
        (ROW, f"{ROW_LOSS}\ndef count(batch):\n    return 'many'", "returned no whole number"),
        ('"text"', ROW_LOSS, "not made of tensors"),
        (ROW, f"{ROW_LOSS}\ndef model(settings):\n    return 3", "returned no torch.nn.Module"),
        (ROW, f"{ROW_LOSS}\ndef data(settings):\n    return [], None", "training part .* is empty"),
        (ROW, f"{ROW_LOSS}\ndef data(settings):\n    return iter([1]), None", "no length or no items"),
        (ROW, f"{ROW_LOSS}\nraise OSError('no disk')", r"Loading the training file failed in .*, line \d+: OSError"),
    ],
)
def test_what_the_users_code_does_wrong_is_one_sentence_with_its_place(
    context: RecordingContext, tmp_path: Path, sample: str, loss: str, words: str
) -> None:
    with pytest.raises(UserError, match=words) as caught:
        run(spec_of(write(tmp_path / "code", sample, loss)), context)
    assert caught.value.hint
    assert "\n" not in caught.value.message


def test_a_file_that_is_gone_is_told(context: RecordingContext, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="no file"):
        run(spec_of(tmp_path / "gone.py"), context)


def test_check_reads_the_file_without_running_it(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    path = tmp_path / "half.py"
    path.write_text(f"from pathlib import Path\nPath({str(marker)!r}).touch()\ndef model(settings): ...\n")
    spec = spec_of(
        path,
        distillation={"teacher": str(tmp_path)},
        loading={"stream": True},
        parallel={"processes": 2, "tensor": 2},
    )
    problems = KIND.check(spec)
    fields = [problem.field for problem in problems]
    assert "no data and no loss" in problems[0].message
    assert {"file", "distillation.teacher", "loading.stream"} < set(fields)
    assert any(field.startswith("parallel") for field in fields)
    assert not marker.exists()
    (tmp_path / "broken.py").write_text("def model(:\n")
    assert "line 1" in check_file(tmp_path / "broken.py", "file")[0].message
    assert "cannot be read" in check_file(tmp_path / "gone.py", "file")[0].message
    assert KIND.check(spec_of(tmp_path, file=""))[0].message == "no file is given."
    (tmp_path / "whole.py").write_text("from helper import model, data\nloss = None\n")
    assert check_file(tmp_path / "whole.py", "file") == ()


def test_settings_arrive_as_what_they_look_like() -> None:
    told = {"a": "32", "b": "0.1", "c": "true", "d": "False", "e": "relu", "f": "1e-3", "g": ""}
    expected = {"a": 32, "b": 0.1, "c": True, "d": False, "e": "relu", "f": 1e-3, "g": ""}
    assert as_settings(told) == expected
    assert type(as_settings(told)["a"]) is int


def test_the_folder_of_the_file_is_what_hosts_get(tmp_path: Path) -> None:
    path = write(tmp_path / "code")
    assert KIND.code_folder(spec_of(path)) == str(tmp_path / "code")


def test_the_example_trains(context: RecordingContext) -> None:
    spec = read_spec(examples_dir() / "custom.toml")
    assert isinstance(spec, CustomTrainingSpec)
    assert KIND.check(spec) == ()
    run(msgspec.structs.replace(spec, epochs=2.0), context)
    losses = [loss for _, loss in context.curve("val/loss")]
    assert losses[1] < losses[0]
    assert context.results["best/absolute_error"] > 0
    assert Path(context.artifacts["model.code"].path).read_text().startswith('"""A custom training')


def test_the_echo_of_another_ranks_failure_is_not_blamed_on_the_users_code(tmp_path: Path) -> None:
    lost = RuntimeError("[pair.cc:547] Connection closed by peer [127.0.0.1]:4711")
    with pytest.raises(UserError, match="Connection closed"), told_as_users(tmp_path / "a.py", "The model"):
        raise lost
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        with pytest.raises(RuntimeError) as caught, told_as_users(tmp_path / "a.py", "The model"):
            raise lost
    finally:
        dist.destroy_process_group()
    assert caught.value is lost
