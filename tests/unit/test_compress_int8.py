"""INT8 compression: real models by every method, the gate, inputs along the lineage, and what goes wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from core.compress.gate import judge
from core.compress.methods.int8 import KIND
from core.compress.quantizer import quantizer_for
from core.compress.spec import METHODS, Int8Spec, Method
from core.contracts.errors import UserError
from core.runlog.arrays import read_arrays
from core.runlog.emit import EventWriter
from core.runlog.layout import RunLayout
from tests.helpers.recording_context import RecordingContext
from tests.helpers.small_models import SmallModel, make_small_model

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.filterwarnings("ignore:::torch.*", "ignore:::torchao.*", "ignore:::nncf.*", "ignore:::onnxruntime.*"),
]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SmallModel:
    return make_small_model(tmp_path_factory.mktemp("small"))


def spec_of(small: SmallModel, **changes: object) -> Int8Spec:
    fields: dict[str, object] = {
        "model": str(small.onnx),
        "torch_model": str(small.pt2),
        "calibration_data": str(small.calibration),
        "test_data": str(small.test),
        "calibration_samples": 64,
        "max_accuracy_drop_points": 3.0,
    }
    return Int8Spec(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def compressed(small: SmallModel, tmp_path_factory: pytest.TempPathFactory) -> RecordingContext:
    context = RecordingContext(tmp_path_factory.mktemp("home"))
    KIND.run(spec_of(small), context)
    return context


def test_every_method_writes_a_smaller_model_that_keeps_its_accuracy(
    small: SmallModel, compressed: RecordingContext
) -> None:
    table = compressed.tables["int8"]
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    before = float((small.scores.argmax(1) == read_arrays(small.test).y).mean())
    assert [row["method"] for row in rows] == list(METHODS)
    for row in rows:
        assert row["verdict"] == "accept", row
        assert row["accuracy before"] == pytest.approx(before, abs=0.005)
        assert abs(float(str(row["drop (points)"]))) <= 3.0
        assert row["INT8 layers"] == 4
    assert {"model.openvino.int8", "model.onnx.int8", "model.torch_export.int8"} <= compressed.artifacts.keys()
    assert compressed.results["accepted"] == 3.0
    assert Path(compressed.artifacts["model.openvino.int8"].path).with_suffix(".bin").is_file()


def test_the_pytorch_file_loads_without_the_quantizers_library(small: SmallModel, compressed: RecordingContext) -> None:
    program = (
        "import sys, torch\n"
        "module = torch.export.load(sys.argv[1]).module()\n"
        "names = [str(node.target) for node in module.graph.nodes]\n"
        "out = module(torch.rand(3, 1, 8, 8))\n"
        "print(sum('qconv2d_pointwise' in n or 'qlinear_pointwise' in n for n in names), tuple(out.shape),"
        " 'torchao' in sys.modules)\n"
    )
    path = compressed.artifacts["model.torch_export.int8"].path
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "4 (3, 10) False"


def test_a_gate_that_is_missed_rejects_and_says_so(small: SmallModel, tmp_path: Path) -> None:
    damaged = tmp_path / "calibration.npz"
    with np.load(small.calibration) as data:
        np.savez(damaged, x=data["x"] * 1e-3, y=data["y"])  # ranges a thousand times too narrow: everything saturates
    context = RecordingContext(tmp_path)
    KIND.run(spec_of(small, method="onnxruntime", calibration_data=str(damaged)), context)
    assert [row[1] for row in context.tables["int8"].rows] == ["reject"]
    assert context.artifacts["model.onnx.int8"].meta["verdict"] == "reject"
    assert context.results["accepted"] == 0.0
    assert any(level == "warning" and "rejected" in message for level, message in context.logs)


def test_accuracy_control_gives_layers_back_when_the_calibration_samples_miss_the_gate(
    small: SmallModel, tmp_path: Path
) -> None:
    data = read_arrays(small.calibration).take(64, 0)
    messages: list[str] = []
    quantizer = quantizer_for("openvino")
    spec = spec_of(small, max_accuracy_drop_points=0.0)
    quantized = quantizer.quantize(small.onnx, data, spec, tmp_path, lambda message, _: messages.append(message))
    before = (quantizer.predict(small.onnx, data.x).argmax(1) == data.y).mean()
    after = (quantizer.predict(quantized.model, data.x).argmax(1) == data.y).mean()
    assert after >= before


def test_inputs_come_from_the_run_it_builds_on(small: SmallModel, tmp_path: Path) -> None:
    parent = RunLayout(tmp_path / "runs" / "20260101-000000-parent-abcdef")
    parent.artifacts.mkdir(parents=True)
    writer = EventWriter(parent.events("worker"))
    for path, kind in ((small.onnx, "model.onnx"), (small.calibration, "data.calibration"), (small.test, "data.test")):
        shutil.copy(path, parent.artifacts)
        writer.write("artifact", name=path.name, path=f"artifacts/{path.name}", kind=kind, size_bytes=1, sha256="")
    writer.close()
    context = RecordingContext(tmp_path)
    KIND.run(Int8Spec(method="onnxruntime", parent=parent.run_dir.name, calibration_samples=32), context)
    assert [row[1] for row in context.tables["int8"].rows] == ["accept"]
    with pytest.raises(UserError, match="left no PyTorch export"):
        KIND.run(Int8Spec(method="pytorch", parent=parent.run_dir.name), context)


def test_one_method_that_fails_does_not_take_the_others_down(small: SmallModel, tmp_path: Path) -> None:
    broken = tmp_path / "broken.pt2"
    broken.write_bytes(b"no archive")
    context = RecordingContext(tmp_path)
    KIND.run(spec_of(small, torch_model=str(broken)), context)
    assert [row[0] for row in context.tables["int8"].rows] == ["openvino", "onnxruntime"]
    assert any(
        "pytorch" in message and "cannot load" in message for level, message in context.logs if level == "warning"
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_damaged_model_is_a_sentence(method: Method, small: SmallModel, tmp_path: Path) -> None:
    onnx, pt2 = tmp_path / "broken.onnx", tmp_path / "broken.pt2"
    for path in (onnx, pt2):
        path.write_bytes(b"\x08\x0bnot a model")
    with pytest.raises(UserError) as caught:
        KIND.run(spec_of(small, method=method, model=str(onnx), torch_model=str(pt2)), RecordingContext(tmp_path))
    assert caught.value.hint
    assert "\n" not in caught.value.message


def test_samples_of_another_shape_are_a_sentence(small: SmallModel, tmp_path: Path) -> None:
    other = tmp_path / "test.npz"
    np.savez(other, x=np.zeros((4, 3, 9, 9), np.float32), y=np.zeros(4, np.int64))
    with pytest.raises(UserError, match=r"\(3, 9, 9\)"):
        KIND.run(spec_of(small, method="onnxruntime", test_data=str(other)), RecordingContext(tmp_path))


def test_a_stop_between_methods_ends_it(small: SmallModel, tmp_path: Path) -> None:
    context = RecordingContext(tmp_path)
    context.stop_when = lambda: True
    KIND.run(spec_of(small), context)
    assert not context.artifacts
    assert not context.results


def test_check_names_every_missing_input() -> None:
    problems = KIND.check(Int8Spec(model="/nowhere/model.onnx"))
    assert {problem.field for problem in problems} == {"model", "torch_model", "calibration_data", "test_data"}
    assert not KIND.check(Int8Spec(parent="20260101-000000-parent-abcdef"))


def test_the_gate_counts_and_compares() -> None:
    labels = np.array([0, 1, 1, 0])
    before = np.eye(2, dtype=np.float32)[[0, 1, 1, 1]]
    after = np.eye(2, dtype=np.float32)[[0, 1, 0, 0]]
    verdict = judge(labels, (before, after), (100, 25), 0.0)
    assert (verdict.correct_before, verdict.correct_after, verdict.fixed, verdict.broken) == (3, 3, 1, 1)
    assert verdict.drop_points == 0.0
    assert verdict.is_accepted
    worse = judge(labels, (before, before[::-1].copy()), (100, 25), 24.9)
    assert worse.word == ("accept" if worse.drop_points <= 24.9 else "reject")
    assert not judge(np.zeros(4, np.int64), (np.eye(2)[[0] * 4], np.eye(2)[[0, 0, 0, 1]]), (1, 1), 24.9).is_accepted


def test_importing_the_kind_loads_no_heavy_library() -> None:
    program = (
        "import json, sys\n"
        "import core.compress.methods.int8, core.infer.tasks.benchmark, core.pipeline.recipes.quickstart\n"
        "print(json.dumps([m for m in ('torch', 'torchao', 'onnxruntime', 'openvino', 'nncf', 'numpy', 'sqlalchemy')"
        " if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
