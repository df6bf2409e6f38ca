"""Distillation and L1: the loss against its formula, kept answers, teachers that do not fit, what runs leave behind."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import save_model
from torch import nn
from torch.nn import functional

from core.compress.methods.int8 import KIND as INT8
from core.compress.spec import Int8Spec
from core.contracts.errors import EnvironmentProblem, UserError
from core.plugins.registry import registry
from core.runlog.layout import RunLayout
from core.train import teacher_cache
from core.train.distill import NOT_COUNTED, DistillingTask, distillation_loss, distilling
from core.train.engine.contracts import Batch, DataPart, Mesh, SampleKey
from core.train.image_network import ImageNetworkConfig
from core.train.models.vision import build_network
from core.train.penalty import add_l1_gradients, near_zero_share
from core.train.specs.distillation import DistillationSpec
from core.train.tasks.image import KIND, ImageTrainingSpec
from core.train.teacher_cache import NUMBERS, TeacherCache
from core.train.teachers import find_teacher
from tests.helpers.recording_context import RecordingContext

pytestmark = pytest.mark.timeout(240)
COMPRESSED = {"model": "model.onnx", "calibration_data": "data.calibration", "test_data": "data.test"}
PLAIN = {"rotation_deg": 0, "translate_fraction": 0, "scale_fraction": 0, "shear_deg": 0}
SMALL: dict[str, Any] = {
    "kind": "train.image",
    "image_size": 8,
    "width": 4,
    "stages": 2,
    "steps": 6,
    "micro_batch": 32,
    "evaluate_every": 6,
    "device": "cpu",
    "augmentation": PLAIN,
}


def spec_of(**fields: object) -> ImageTrainingSpec:
    return msgspec.convert({**SMALL, **fields}, ImageTrainingSpec)


def run(spec: ImageTrainingSpec, context: RecordingContext) -> None:
    assert KIND.rank_run is not None
    KIND.rank_run(spec, context)


def test_the_distance_is_the_formula_of_hinton_et_al() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(5, 7), torch.randn(5, 7)
    temperature = 3.0
    p, q = (teacher / temperature).softmax(1), (student / temperature).softmax(1)
    expected = temperature**2 * float((p * (p.log() - q.log())).sum())
    found = distillation_loss(student.requires_grad_(), teacher, temperature)
    assert float(found.detach()) == pytest.approx(expected, rel=1e-5)
    found.backward()
    # Its gradient is T * (q - p): for large T that of half the squared distance of centred logits (section 2.1).
    assert student.grad is not None
    torch.testing.assert_close(student.grad, temperature * (q - p), rtol=1e-4, atol=1e-6)
    same = distillation_loss(teacher, teacher, temperature)
    assert float(same) == pytest.approx(0.0, abs=1e-6)


class Words:
    """A task over rows of tokens, some of which do not count, in the shape of a language model's."""

    unit = "tokens"

    def __init__(self, samples: int = 6, classes: int = 5) -> None:
        generator = torch.Generator().manual_seed(1)
        self.ids = torch.randint(0, classes, (samples, 4), generator=generator)
        self.labels = torch.randint(0, classes, (samples, 4), generator=generator)
        self.labels[:, 0] = NOT_COUNTED
        self.classes = classes
        self.is_changing = False

    def build_model(self) -> nn.Module:
        return nn.Embedding(self.classes, self.classes)

    def training(self) -> DataPart:
        return DataPart(samples=self, collate=lambda samples: torch.utils.data.default_collate(list(samples)))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, key: SampleKey) -> Batch:
        shift = key.epoch if self.is_changing else 0
        return {"input_ids": (self.ids[key.number] + shift) % self.classes, "labels": self.labels[key.number]}

    def validation(self) -> None:
        return None

    def count(self, batch: Batch) -> int:
        return int((batch["labels"] != NOT_COUNTED).sum())

    def forward(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        return model(batch["input_ids"])

    def loss(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        return functional.cross_entropy(output.flatten(0, 1), batch["labels"].flatten(), reduction="sum")

    def score(self, output: torch.Tensor, batch: Batch) -> dict[str, float]:
        return {"loss": float(self.loss(output, batch))}

    def evaluation(self, sums: Any) -> Any:
        raise NotImplementedError

    def training_flops(self, units: int) -> float:
        return float(units)

    def after_validation(self, model: nn.Module, step: int) -> None:
        raise NotImplementedError

    def finish(self, weights: Any, outcome: Any) -> None:
        raise NotImplementedError

    def load_teacher(self, folder: Path) -> nn.Module:
        torch.manual_seed(9)
        return nn.Sequential(nn.Embedding(self.classes, self.classes), nn.Dropout(0.5))


def whole_batch(part: DataPart) -> Batch:
    return part.collate([part.samples[SampleKey(number, 0)] for number in range(len(part.samples))])


def test_the_mixed_loss_counts_only_units_with_a_label_and_no_gradient_reaches_the_teacher(tmp_path: Path) -> None:
    task = Words()
    spec = DistillationSpec(teacher=str(tmp_path), temperature=2.0, weight=0.3)
    teacher, student = task.load_teacher(tmp_path), task.build_model()
    mixed = DistillingTask(task, teacher, spec)
    batch = whole_batch(mixed.training())
    output = mixed.forward(student, batch)
    found = mixed.loss(output, batch)
    counted = batch["labels"] != NOT_COUNTED
    answers = teacher(batch["input_ids"])  # in evaluation mode: no dropout
    distance = distillation_loss(output[counted], answers[counted], 2.0)
    torch.testing.assert_close(found, 0.7 * task.loss(output, batch) + 0.3 * distance)
    found.backward()
    assert all(weight.grad is None and not weight.requires_grad for weight in teacher.parameters())
    units = int(counted.sum())
    assert mixed.step_values() == {"train/distillation_loss": pytest.approx(float(distance.detach()) / units)}
    assert mixed.step_values() == {}


def test_a_teacher_of_other_classes_is_refused(tmp_path: Path) -> None:
    task = Words()
    mixed = DistillingTask(task, nn.Embedding(5, 8), DistillationSpec(teacher=str(tmp_path)))
    batch = whole_batch(task.training())
    with pytest.raises(UserError, match="8 classes apart, this model 5"):
        mixed.loss(task.forward(task.build_model(), batch), batch)


def make_cached(task: Words, context: RecordingContext) -> Any:
    spec = spec_of(distillation={"teacher": str(context.home), "cache_logits": True})
    return distilling(task, spec, Mesh(device=torch.device("cpu")), context)


def test_kept_answers_are_the_teachers_and_it_is_asked_once_for_each_sample(tmp_path: Path) -> None:
    task, context = Words(), RecordingContext(tmp_path / "home")
    mixed = make_cached(task, context)
    asked: list[int] = []
    plain = task.forward

    def counting(model: nn.Module, batch: Batch) -> torch.Tensor:
        asked.append(len(batch["labels"]))
        return plain(model, batch)

    task.forward = counting  # type: ignore[method-assign]
    part = mixed.training()
    teacher = mixed._teacher
    for numbers in ([0, 1, 2], [3, 4, 5], [5, 0, 3], [2, 1, 4]):
        batch = part.collate([part.samples[SampleKey(number, 1)] for number in numbers])
        assert batch[NUMBERS].tolist() == numbers
        found = mixed._teacher_logits(batch)
        torch.testing.assert_close(found, teacher(batch["input_ids"]), rtol=1e-3, atol=1e-3)
    assert asked == [3, 3]
    resumed = make_cached(Words(), context)
    batch = whole_batch(resumed.training())
    first = {name: tensor[:1] for name, tensor in batch.items()}
    resumed._teacher_logits(first)  # tells the shape of what is kept
    resumed._teacher = None  # all others need no teacher
    torch.testing.assert_close(resumed._teacher_logits(batch), teacher(batch["input_ids"]), rtol=1e-3, atol=1e-3)


def test_rows_of_another_length_are_answered_anew(tmp_path: Path) -> None:
    cache = TeacherCache(tmp_path, 4)
    first = {NUMBERS: torch.tensor([0, 1]), "labels": torch.zeros(2, 3, dtype=torch.int64)}
    shorter = {NUMBERS: torch.tensor([0, 1]), "labels": torch.zeros(2, 2, dtype=torch.int64)}
    answers = [torch.full((2, 3, 5), -math.inf), torch.full((2, 2, 5), 1e9)]
    assert torch.equal(cache.get(first, lambda _: answers[0]), answers[0])
    assert torch.equal(cache.get(shorter, lambda _: answers[1]), answers[1])
    assert torch.equal(cache.get(first, lambda _: answers[1]), answers[0])


def test_answers_are_not_kept_for_changing_samples_nor_without_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = RecordingContext(tmp_path / "home")
    task = Words()
    task.is_changing = True
    with pytest.raises(UserError, match="change from epoch to epoch"):
        make_cached(task, context)
    (problem,) = KIND.check(
        spec_of(
            augmentation={"rotation_deg": 5.0},
            distillation={"teacher": str(saved_model_folder(tmp_path)), "cache_logits": True},
        )
    )
    assert problem.field == "distillation.cache_logits"
    usage = type("Usage", (), {"free": 1000})()
    monkeypatch.setattr(teacher_cache.shutil, "disk_usage", lambda _: usage)
    mixed = make_cached(Words(), RecordingContext(tmp_path / "full"))
    batch = whole_batch(mixed.training())
    with pytest.raises(EnvironmentProblem, match="MiB free"):
        mixed._teacher_logits(batch)


def saved_model_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "teacher"
    folder.mkdir(exist_ok=True)
    (folder / "model.json").write_text("{}")
    return folder


def test_answers_to_a_stream_cannot_be_kept(tmp_path: Path) -> None:
    language = registry().get("train.language")
    (tmp_path / "text.txt").write_text("one\n\ntwo\n")
    given = {
        "kind": "train.language",
        "data": {"data": str(tmp_path / "text.txt")},
        "steps": 1,
        "loading": {"stream": True},
        "distillation": {"teacher": str(saved_model_folder(tmp_path)), "cache_logits": True},
    }
    (problem,) = language.check(msgspec.convert(given, language.spec))
    assert problem.field == "distillation.cache_logits"
    assert "a stream has none" in problem.message


def test_check_names_a_missing_teacher_and_a_layout_without_whole_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PILOTHOUSE_HOME", str(tmp_path))
    fields = [p.field for p in KIND.check(spec_of(distillation={"teacher": "20200101-000000-none-ffffff"}))]
    assert fields == ["distillation.teacher"]
    (problem,) = KIND.check(spec_of(distillation={"teacher": str(tmp_path)}))
    assert "holds no model" in problem.message
    with pytest.raises(UserError, match="neither a folder nor a run"):
        find_teacher("20200101-000000-none-ffffff", tmp_path / "runs")
    empty = RunLayout(tmp_path / "runs" / "20200101-000000-empty-ffffff")
    empty.run_dir.mkdir(parents=True)
    with pytest.raises(UserError, match="left no model"):
        find_teacher(empty.run_dir.name, tmp_path / "runs")


def saved_teacher(folder: Path) -> Path:
    """Write an image network as a run leaves it."""
    folder.mkdir()
    config = ImageNetworkConfig(
        channels=1, image_size=8, widths=(8, 16), classes=tuple("0123456789"), mean=(0.3,), std=(0.4,)
    )
    torch.manual_seed(3)
    save_model(build_network(config), str(folder / "model.safetensors"))
    (folder / "model.json").write_bytes(msgspec.json.encode(config))
    return folder


def test_a_student_learns_from_the_folder_of_an_earlier_run_and_leaves_the_same_kinds(tmp_path: Path) -> None:
    teacher, student = saved_teacher(tmp_path / "teacher"), RecordingContext(tmp_path / "student")
    told = {"teacher": str(teacher), "weight": 1.0, "temperature": 4.0, "cache_logits": True, "l1": 1e-2}
    run(spec_of(steps=20, optimizer={"lr": 1e-2}, distillation=told), student)
    forms = {"data.test", "data.calibration", "model.torch", "model.config", "model.torch_export", "model.onnx"}
    assert set(student.artifacts) == forms
    distances = [value for _, value in student.curve("train/distillation_loss")]
    assert len(distances) == 20
    assert np.mean(distances[-4:]) < 0.7 * np.mean(distances[:4])
    assert 0.0 < student.results["near_zero_weights"] < 1.0
    compressed = RecordingContext(tmp_path / "compressed")
    files = {name: student.artifacts[kind].path for name, kind in COMPRESSED.items()}
    INT8.run(Int8Spec(method="onnxruntime", calibration_samples=64, max_accuracy_drop_points=50, **files), compressed)
    assert compressed.results["onnxruntime/size_bytes"] > 0
    other = RecordingContext(tmp_path / "other")
    with pytest.raises(UserError, match=r"size in pixels\): 8, not 16"):
        run(spec_of(image_size=16, distillation={"teacher": str(teacher)}), other)


def test_l1_adds_its_subgradient_to_matrices_only_and_makes_weights_small() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8))
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    network[0].weight.data[0, 0] = 0.0
    add_l1_gradients([network, network], 0.5)
    linear, norm = network[0], network[1]
    assert torch.equal(linear.weight.grad, 0.5 * linear.weight.sign())
    assert not linear.bias.grad.any()
    assert not norm.weight.grad.any()
    optimizer = torch.optim.SGD([linear.weight], lr=9e-4)
    before = near_zero_share(network.state_dict())
    for _ in range(450):
        optimizer.zero_grad(set_to_none=False)
        add_l1_gradients([network], 1.0)
        optimizer.step()
    assert before < 0.1
    assert near_zero_share(network.state_dict()) > 0.95


def test_a_tied_weight_counts_once_among_those_near_zero() -> None:
    tied = torch.zeros(4, 4)
    assert near_zero_share({"in": tied, "out": tied, "other": torch.ones(2, 8)}) == 0.5


def test_a_language_model_learns_from_another_one_with_answers_kept_by_row(tmp_path: Path) -> None:
    language = registry().get("train.language")
    text = tmp_path / "text.txt"
    text.write_text("".join(f"{number} and {number} are {2 * number}.\n" for number in range(300)))
    model = {"layers": 1, "hidden": 16, "heads": 2, "context": 32}
    given: dict[str, Any] = {
        "kind": "train.language",
        "data": {"data": str(text), "validation_rows": 8},
        "steps": 60,
        "evaluate_every": 60,
        "micro_batch": 4,
        "device": "cpu",
        "model": model,
        "generation": {"new_tokens": 0},
    }
    teacher = RecordingContext(tmp_path / "teacher")
    assert language.rank_run is not None
    language.rank_run(msgspec.convert(given, language.spec), teacher)
    folder = teacher.artifacts["model.huggingface"].path
    curves: list[list[float]] = []
    for name, keeps in (("kept", True), ("asked", False)):
        context = RecordingContext(tmp_path / name)
        told = {"teacher": folder, "cache_logits": keeps, "weight": 1.0}
        spec = {**given, "model": {**model, "hidden": 8}, "distillation": told}
        language.rank_run(msgspec.convert(spec, language.spec), context)
        curves.append([value for _, value in context.curve("train/distillation_loss")])
        assert (context.layout.scratch / "teacher").is_dir() == keeps
    kept, asked = curves
    assert kept == pytest.approx(asked, rel=2e-2)
    assert np.mean(kept[-10:]) < np.mean(kept[:10])
