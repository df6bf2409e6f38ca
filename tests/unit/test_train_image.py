"""``train.image`` in this process, small: what it leaves behind, resume bit for bit, models by name, faults."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file

from core.contracts.errors import EnvironmentProblem, UserError
from core.train.image_network import ImageNetworkConfig
from core.train.models.vision import build_network, load_torch_model, load_weights
from core.train.models.vision_weights import read_weights
from core.train.tasks.image import KIND, ImageTrainingSpec
from tests.helpers.recording_context import RecordingContext
from tests.unit.test_train_image_data import make_folder

pytestmark = pytest.mark.timeout(240)  # exporting takes seconds, and many times that on a busy machine
SMALL = {
    "kind": "train.image",
    "image_size": 8,
    "width": 4,
    "stages": 2,
    "epochs": 2,
    "micro_batch": 64,
    "dropout": 0.2,
    "device": "cpu",
}
STEPS_PER_EPOCH = -(-1131 // 64)
LAST_STEP = 2 * STEPS_PER_EPOCH


def small(**fields: object) -> ImageTrainingSpec:
    return msgspec.convert({**SMALL, **fields}, ImageTrainingSpec)


def run(spec: ImageTrainingSpec, context: RecordingContext) -> None:
    assert KIND.rank_run is not None
    KIND.rank_run(spec, context)


@pytest.fixture
def context(tmp_path: Path) -> RecordingContext:
    return RecordingContext(tmp_path / "home")


def artifact(context: RecordingContext, kind: str) -> Path:
    return Path(context.artifacts[kind].path)


def check_forms(context: RecordingContext, channels: int, size: int) -> None:
    """Compare the three exported forms with the network that is read back, and the network with the result."""
    test = np.load(artifact(context, "data.test"))
    pixels, labels = test["x"], test["y"]
    assert (pixels.dtype, pixels.shape[1:], labels.dtype) == (np.float32, (channels, size, size), np.int64)
    assert 0.0 <= pixels.min() < pixels.max() <= 1.0
    model = load_torch_model(context.artifacts_dir / "model.json", artifact(context, "model.torch"))
    with torch.no_grad():
        expected = model(torch.from_numpy(pixels)).numpy()
    assert (expected.argmax(1) == labels).mean() == pytest.approx(context.results["test/accuracy"])
    session = onnxruntime.InferenceSession(artifact(context, "model.onnx"), providers=["CPUExecutionProvider"])
    exported = torch.export.load(artifact(context, "model.torch_export")).module()
    for count in (1, 3, len(pixels)):
        batch = pixels[:count]
        np.testing.assert_allclose(session.run(None, {"input": batch})[0], expected[:count], atol=1e-4)
        np.testing.assert_allclose(exported(torch.from_numpy(batch)).detach(), expected[:count], atol=1e-4)


def test_a_run_leaves_a_model_in_three_forms_that_agree_with_its_result(context: RecordingContext) -> None:
    run(small(), context)
    check_forms(context, channels=1, size=8)
    steps = [step for step, _ in context.curve("train/loss")]
    assert steps == list(range(1, LAST_STEP + 1))
    for key in ("train/lr", "train/grad_norm", "train/samples_per_s", "train/step_time_s"):
        assert all(value > 0 for _, value in context.curve(key)), key
        assert len(context.curve(key)) == len(steps)
    for key in ("val/loss", "val/accuracy"):
        assert [step for step, _ in context.curve(key)] == [STEPS_PER_EPOCH, LAST_STEP]
    losses = [value for _, value in context.curve("train/loss")]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    (table,) = context.tables.values()
    assert sum(sum(row[1:]) for row in table.rows) == 450
    trace = sum(row[index + 1] for index, row in enumerate(table.rows))
    assert trace / 450 == pytest.approx(context.results["test/accuracy"])
    assert context.results["train_seconds"] > 0
    seen = {row.tobytes() for row in np.load(artifact(context, "data.test"))["x"]}
    calibration = np.load(artifact(context, "data.calibration"))["x"]
    assert len(calibration) == 256
    assert not any(row.tobytes() in seen for row in calibration)


def test_a_stopped_run_resumes_with_the_losses_of_an_uninterrupted_one(
    context: RecordingContext, tmp_path: Path
) -> None:
    stop_step = 7
    spec = small(optimizer={"ema_decay": 0.9, "grad_accum_steps": 2}, micro_batch=32)
    whole = RecordingContext(tmp_path / "other")
    whole.stop_after(LAST_STEP, "val/loss")
    run(spec, whole)
    context.stop_after(stop_step)
    run(spec, context)
    stopped_at = context.curve("train/loss")[-1][0]
    assert context.checkpoints[-1].step == stopped_at < LAST_STEP
    torch.manual_seed(99)
    resumed = context.next_attempt()
    resumed.stop_after(LAST_STEP, "val/loss")
    run(spec, resumed)
    assert resumed.resumed_from == [stopped_at]
    for key in ("train/loss", "val/loss", "train/grad_norm"):
        assert context.curve(key) + resumed.curve(key) == whole.curve(key), key


def test_the_same_seed_gives_the_same_run_and_another_seed_another(tmp_path: Path) -> None:
    curves = []
    for number, (seed, processes) in enumerate(((3, 0), (3, 1), (4, 0))):
        context = RecordingContext(tmp_path / str(number))
        context.stop_after(3)
        run(small(seed=seed, loading={"loading_processes": processes}), context)
        curves.append(context.curve("train/loss"))
    assert curves[0] == curves[1] != curves[2]


def test_a_loss_that_explodes_ends_the_run_with_a_remedy(context: RecordingContext) -> None:
    wild = {"lr": 10.0, "max_grad_norm": 0, "warmup_fraction": 0, "beta1": 0.0, "eps": 1e-12, "weight_decay": 10}
    with pytest.raises(UserError, match="became") as caught:
        run(small(optimizer=wild, epochs=60, stability={"guard": False}), context)
    assert "learning rate" in caught.value.hint


def test_an_image_folder_trains_to_tell_its_classes_apart(context: RecordingContext, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "images", {"dark": 30, "light": 30})
    run(small(data=str(folder), micro_batch=8, epochs=6), context)
    assert context.results["test/accuracy"] == 1.0
    assert json.loads((context.artifacts_dir / "model.json").read_text())["classes"] == ["dark", "light"]
    assert np.load(artifact(context, "data.test"))["x"].shape == (15, 3, 8, 8)


def test_a_model_of_a_library_trains_from_a_weights_file_and_is_exported(
    context: RecordingContext, tmp_path: Path
) -> None:
    name = "timm:test_resnet"
    other = build_network(config_of(name, classes=("cat", "dog"), channels=3))
    weights = tmp_path / "published.safetensors"
    save_file({k.removeprefix("backbone."): v for k, v in other.state_dict().items() if "backbone" in k}, weights)
    run(small(model=name, weights=str(weights), image_size=32, steps=2, evaluate_every=1), context)
    check_forms(context, channels=1, size=32)
    assert json.loads((context.artifacts_dir / "model.json").read_text())["architecture"] == name


def config_of(name: str, classes: tuple[str, ...], channels: int, size: int = 32) -> ImageNetworkConfig:
    return ImageNetworkConfig(
        architecture=name,
        channels=channels,
        image_size=size,
        widths=(4, 8),
        classes=classes,
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
    )


@pytest.mark.parametrize("name", ["small", "torchvision:resnet18", "timm:test_resnet"])
def test_weights_are_taken_but_for_a_last_layer_of_other_classes(name: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    trained = build_network(config_of(name, ("a", "b", "c"), 3))
    save_file(trained.state_dict(), tmp_path / "model.safetensors")
    config = config_of(name, ("x", "y"), 3)
    fresh = build_network(config)
    before = {key: tensor.clone() for key, tensor in fresh.state_dict().items()}
    load_weights(fresh, config, str(tmp_path))
    kept = [key for key, tensor in fresh.state_dict().items() if torch.equal(tensor, before[key])]
    changed = {key for key, tensor in trained.state_dict().items() if torch.equal(tensor, fresh.state_dict()[key])}
    assert {key for key in before if before[key].shape != trained.state_dict()[key].shape} <= set(kept)
    assert len(before) - len(changed) == 2  # the last layer's matrix and bias
    same = build_network(config_of(name, ("a", "b", "c"), 3))
    load_weights(same, config_of(name, ("a", "b", "c"), 3), str(tmp_path))
    assert all(torch.equal(tensor, trained.state_dict()[key]) for key, tensor in same.state_dict().items())


def test_weights_that_are_foreign_damaged_or_unsafe_are_refused(tmp_path: Path) -> None:
    config = config_of("torchvision:resnet18", ("x", "y"), 3)
    network = build_network(config)
    foreign = tmp_path / "foreign.pt"
    torch.save({"state_dict": build_network(config_of("small", ("x", "y"), 3)).state_dict()}, foreign)
    with pytest.raises(UserError, match="another model"):
        load_weights(network, config, str(foreign))
    unsafe = tmp_path / "unsafe.pth"
    torch.save({"weight": torch.zeros(2), "hook": print}, unsafe)
    with pytest.raises(UserError, match="holds code"):
        read_weights(unsafe)
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"\x10\x00")
    with pytest.raises(UserError, match=r"damaged\.safetensors"):
        read_weights(damaged)
    with pytest.raises(UserError, match="no weights"):
        read_weights(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "size", "words"),
    [
        ("torchvision:no_such_net", 32, "no classifier named"),
        ("timm:no_such_net", 32, "no classifier named"),
        ("torchvision:alexnet", 16, "cannot take images of 16 px"),
        ("keras:resnet", 32, "no image model named"),
    ],
)
def test_a_model_that_is_not_there_or_too_deep_is_refused(name: str, size: int, words: str) -> None:
    with pytest.raises(UserError, match=words):
        build_network(config_of(name, ("x", "y"), 3, size))


def test_published_weights_that_cannot_be_fetched_are_said_plainly(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    config = config_of("torchvision:resnet18", ("x", "y"), 3)
    with pytest.raises(EnvironmentProblem, match="could not be fetched: Connection refused"):
        load_weights(build_network(config), config, "pretrained")


def test_check_names_the_problems_of_model_and_weights_at_once() -> None:
    problems = KIND.check(small(model="resnet18", weights="/nowhere/model.safetensors"))
    assert [problem.field for problem in problems] == ["model", "weights"]
    (problem,) = KIND.check(small(weights="pretrained"))
    assert problem.field == "weights"
