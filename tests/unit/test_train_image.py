"""``train.image`` in this process, small: what it leaves behind, resume bit for bit, faults."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState

from core.contracts.errors import EnvironmentProblem, UserError
from core.train.checkpoint import FILE_NAME
from core.train.image_network import load_torch_model
from core.train.tasks.image import ImageTrainingSpec, run
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
STEPS_PER_EPOCH = 1131 // 64


def small(**fields: object) -> ImageTrainingSpec:
    return msgspec.convert({**SMALL, **fields}, ImageTrainingSpec)


@pytest.fixture(autouse=True)
def fresh_accelerate() -> Iterator[None]:
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.fixture
def context(tmp_path: Path) -> RecordingContext:
    return RecordingContext(tmp_path / "home")


LAST_STEP = 2 * STEPS_PER_EPOCH


def artifact(context: RecordingContext, kind: str) -> Path:
    return Path(context.artifacts[kind].path)


def test_a_run_leaves_a_model_in_three_forms_that_agree_with_its_result(context: RecordingContext) -> None:
    run(small(), context)
    test = np.load(artifact(context, "data.test"))
    pixels, labels = test["x"], test["y"]
    assert (pixels.dtype, pixels.shape, labels.dtype) == (np.float32, (450, 1, 8, 8), np.int64)
    assert 0.0 <= pixels.min() < pixels.max() <= 1.0
    model = load_torch_model(context.artifacts_dir / "model.json", artifact(context, "model.torch"))
    with torch.no_grad():
        expected = model(torch.from_numpy(pixels)).numpy()
    assert (expected.argmax(1) == labels).mean() == pytest.approx(context.results["test/accuracy"])
    session = onnxruntime.InferenceSession(artifact(context, "model.onnx"), providers=["CPUExecutionProvider"])
    exported = torch.export.load(artifact(context, "model.torch_export")).module()
    for count in (1, 3, 450):
        batch = pixels[:count]
        np.testing.assert_allclose(session.run(None, {"input": batch})[0], expected[:count], atol=1e-4)
        np.testing.assert_allclose(exported(torch.from_numpy(batch)).detach(), expected[:count], atol=1e-4)
    (table,) = context.tables.values()
    assert sum(sum(row[1:]) for row in table.rows) == 450
    trace = sum(row[index + 1] for index, row in enumerate(table.rows))
    assert trace / 450 == pytest.approx(context.results["test/accuracy"])
    assert context.results["train_seconds"] > 0
    seen = {row.tobytes() for row in pixels}
    calibration = np.load(artifact(context, "data.calibration"))["x"]
    assert len(calibration) == 256
    assert not any(row.tobytes() in seen for row in calibration)


def test_every_step_and_epoch_reports_its_metrics(context: RecordingContext) -> None:
    context.stop_after(LAST_STEP, "val/loss")
    run(small(), context)
    steps = [step for step, _ in context.curve("train/loss")]
    assert steps == list(range(1, LAST_STEP + 1))
    assert "test/accuracy" not in context.results
    for key in ("train/lr", "train/grad_norm", "train/samples_per_s", "train/step_time_s"):
        assert all(value > 0 for _, value in context.curve(key)), key
        assert len(context.curve(key)) == len(steps)
    for key in ("val/loss", "val/accuracy"):
        assert [step for step, _ in context.curve(key)] == [STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH]
    losses = [value for _, value in context.curve("train/loss")]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


@pytest.mark.parametrize("stop_step", [7, STEPS_PER_EPOCH])
def test_a_stopped_run_resumes_with_the_losses_of_an_uninterrupted_one(
    context: RecordingContext, tmp_path: Path, stop_step: int
) -> None:
    spec = small(optimizer={"ema_decay": 0.9, "grad_accum_steps": 2}, micro_batch=32)
    whole = RecordingContext(tmp_path / "other")
    whole.stop_after(LAST_STEP, "val/loss")
    run(spec, whole)
    context.stop_after(stop_step)
    run(spec, context)
    assert context.curve("train/loss")[-1][0] == stop_step
    assert context.checkpoints[-1].step == stop_step
    torch.manual_seed(99)
    resumed = context.next_attempt()
    resumed.stop_after(LAST_STEP, "val/loss")
    run(spec, resumed)
    assert resumed.resumed_from == [stop_step]
    joined = context.curve("train/loss") + resumed.curve("train/loss")
    assert joined == whole.curve("train/loss")
    for key in ("val/loss", "train/grad_norm"):
        assert context.curve(key) + resumed.curve(key) == whole.curve(key)
    last, expected = (torch.load(Path(found.checkpoints[-1].path) / FILE_NAME) for found in (resumed, whole))
    for name, value in expected["position"]["best_weights"].items():
        assert torch.equal(last["position"]["best_weights"][name], value), name


def test_the_same_seed_gives_the_same_run_and_another_seed_another(tmp_path: Path) -> None:
    curves = []
    for number, seed in enumerate((3, 3, 4)):
        context = RecordingContext(tmp_path / str(number))
        context.stop_after(5)
        run(small(seed=seed), context)
        curves.append(context.curve("train/loss"))
    assert curves[0] == curves[1] != curves[2]


def test_loading_processes_change_no_pixel(tmp_path: Path) -> None:
    curves = []
    for processes in (0, 1):
        context = RecordingContext(tmp_path / str(processes))
        context.stop_after(3)
        run(small(loading_processes=processes), context)
        curves.append(context.curve("train/loss"))
    assert curves[0] == curves[1]


def test_accumulated_micro_batches_give_the_gradient_of_the_whole_batch(tmp_path: Path) -> None:
    norms = []
    for micro_batch, accum in ((64, 1), (16, 4)):
        context = RecordingContext(tmp_path / str(accum))
        context.stop_after(1)
        spec = small(micro_batch=micro_batch, dropout=0.0, optimizer={"grad_accum_steps": accum})
        run(spec, context)
        norms.append(context.metrics[0][1])
    # Batch normalization sees smaller batches, so that the two are close but not equal.
    assert norms[0]["train/loss"] == pytest.approx(norms[1]["train/loss"], rel=0.05)
    assert norms[0]["train/grad_norm"] == pytest.approx(norms[1]["train/grad_norm"], rel=0.35)


def test_a_full_disk_is_said_plainly_and_the_older_checkpoint_stays_whole(context: RecordingContext) -> None:
    spec = small(checkpoints={"every_steps": 4})
    context.stop_after(4)
    run(spec, context)
    first = Path(context.checkpoints[-1].path) / FILE_NAME
    before = first.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resumed = context.next_attempt()
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(EnvironmentProblem, match="disk is full") as caught:
            run(spec, resumed)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "step 8" in caught.value.message
    assert first.read_bytes() == before
    assert resumed.checkpoints[-1].step == 4


def test_a_damaged_checkpoint_is_passed_over(context: RecordingContext) -> None:
    spec = small(checkpoints={"every_steps": 4})
    context.stop_after(6)
    run(spec, context)
    newest = Path(context.checkpoints[-1].path) / FILE_NAME
    newest.write_bytes(newest.read_bytes()[:-9])
    resumed = context.next_attempt()
    resumed.stop_after(5)
    run(spec, resumed)
    assert resumed.resumed_from == [4]


def test_a_loss_that_explodes_ends_the_run_with_a_remedy(context: RecordingContext) -> None:
    with pytest.raises(UserError, match="loss became") as caught:
        run(
            small(
                optimizer={
                    "lr": 10.0,
                    "max_grad_norm": 0,
                    "warmup_fraction": 0,
                    "beta1": 0.0,
                    "eps": 1e-12,
                    "weight_decay": 10,
                },
                epochs=60,
            ),
            context,
        )
    assert "learning rate" in caught.value.hint


def test_a_device_that_is_not_there_and_fp16_on_a_cpu_are_refused(context: RecordingContext) -> None:
    if not torch.backends.mps.is_available():
        with pytest.raises(EnvironmentProblem, match="mps"):
            run(small(device="mps"), context)
    with pytest.raises(UserError, match="fp16"):
        run(small(precision="fp16"), context)


def test_bf16_really_computes_in_bf16(context: RecordingContext, tmp_path: Path) -> None:
    context.stop_after(2)
    run(small(precision="bf16"), context)
    AcceleratorState._reset_state(reset_partial_state=True)
    exact = RecordingContext(tmp_path / "exact")
    exact.stop_after(2)
    run(small(), exact)
    first, second = (found.curve("train/loss") for found in (context, exact))
    assert first != second
    assert first[0][1] == pytest.approx(second[0][1], rel=0.02)


def test_an_image_folder_trains_to_tell_its_classes_apart(context: RecordingContext, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "images", {"dark": 30, "light": 30})
    run(small(data=str(folder), micro_batch=8, epochs=6), context)
    assert context.results["test/accuracy"] == 1.0
    assert json.loads((context.artifacts_dir / "model.json").read_text())["classes"] == ["dark", "light"]
    assert np.load(artifact(context, "data.test"))["x"].shape == (15, 3, 8, 8)


def test_a_training_part_smaller_than_a_step_is_refused(context: RecordingContext) -> None:
    with pytest.raises(UserError, match="fewer than one step"):
        run(small(micro_batch=2000), context)
