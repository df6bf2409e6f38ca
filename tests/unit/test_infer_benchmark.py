"""The benchmark with real models in real measuring processes: what it reports, and what goes wrong."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest

from core.contracts.errors import UserError
from core.infer.measuring.handle import MeasuringProcess
from core.infer.measuring.messages import (
    Burst,
    BurstRequest,
    Loaded,
    LoadRequest,
    Scored,
    ScoreRequest,
    Warmed,
    WarmRequest,
)
from core.infer.measuring.process import peak_rss_bytes
from core.infer.records import Control, VariantResult
from core.infer.spec import BenchmarkSpec
from core.infer.summary import judge_quiet
from core.infer.tasks.benchmark import KIND, read_report
from core.infer.variants import find_variants, parse_variant
from core.runlog.arrays import read_arrays
from core.runlog.emit import EventWriter
from core.runlog.layout import RunLayout
from tests.helpers.recording_context import RecordingContext
from tests.helpers.small_models import SmallModel, make_small_model

pytestmark = [pytest.mark.timeout(180), pytest.mark.filterwarnings("ignore:::torch.*")]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SmallModel:
    return make_small_model(tmp_path_factory.mktemp("small"))


def spec_of(small: SmallModel, *variants: str, **changes: object) -> BenchmarkSpec:
    fields: dict[str, object] = {
        "variants": variants or (f"onnxruntime:fp32:{small.onnx}", f"openvino:fp32:{small.onnx}"),
        "test_data": str(small.test),
        "queries": 300,
        "rounds": 3,
        "throughput_batch": 8,
        "warmup_limit_s": 0.2,
        "control": False,
    }
    return BenchmarkSpec(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.fixture
def context(tmp_path: Path) -> RecordingContext:
    return RecordingContext(tmp_path)


def test_it_reports_every_figure_of_every_variant(small: SmallModel, context: RecordingContext) -> None:
    KIND.run(
        spec_of(
            small,
            f"pytorch:fp32:{small.pt2}",
            f"onnxruntime:fp32:{small.onnx}",
            f"openvino:fp32:{small.onnx}",
            control=True,
        ),
        context,
    )
    report = read_report(Path(context.artifacts["benchmark"].path))
    correct = int((small.scores.argmax(1) == read_arrays(small.test).y).sum())
    assert [v.name for v in report.variants] == ["pytorch fp32", "onnxruntime fp32", "openvino fp32"]
    for v in report.variants:
        assert (v.correct, v.samples) == (correct, 397)
        assert v.accuracy_low < v.accuracy < v.accuracy_high
        assert v.queries == 300
        assert 0 < v.min_ms <= v.p50_low_ms <= v.p50_ms <= v.p50_high_ms <= v.p99_ms <= v.max_ms
        assert v.p90_ms <= v.p99_ms
        assert v.p99_bound_ms is not None
        assert v.cpu_ms > 0
        assert v.throughput > 0
        assert v.executed == "fp32"
        assert v.peak_rss_bytes is not None
        assert v.peak_rss_bytes > 20 << 20
    assert report.variants[0].size_bytes == small.pt2.stat().st_size
    assert report.control is not None
    assert report.control.name == "onnxruntime fp32"
    assert report.verdict
    assert [row[0] for row in context.tables["benchmark"].rows] == [v.name for v in report.variants]
    assert context.results["openvino/fp32/p50_ms"] == report.variants[2].p50_ms
    assert not leftovers()


def leftovers() -> list[psutil.Process]:
    """Return measuring processes that this test left behind."""
    return [
        child
        for child in psutil.Process().children(recursive=True)
        if "core.infer.measuring.process" in child.cmdline()
    ]


def test_a_variant_that_cannot_load_is_left_out_and_named(
    small: SmallModel, context: RecordingContext, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    KIND.run(spec_of(small, f"onnxruntime:int8:{broken}", f"onnxruntime:fp32:{small.onnx}"), context)
    report = read_report(Path(context.artifacts["benchmark"].path))
    assert [v.name for v in report.variants] == ["onnxruntime fp32"]
    assert [s.name for s in report.skipped] == ["onnxruntime int8"]
    assert "cannot load" in report.skipped[0].reason


def test_a_float_file_measured_as_int8_is_found_out(small: SmallModel, context: RecordingContext) -> None:
    KIND.run(spec_of(small, f"openvino:int8:{small.onnx}", queries=20, rounds=2), context)
    report = read_report(Path(context.artifacts["benchmark"].path))
    assert (report.variants[0].precision, report.variants[0].executed) == ("int8", "fp32")
    assert any("most layers run in fp32" in message for _, message in context.logs)


def test_with_nothing_that_runs_it_fails_with_the_reason(
    small: SmallModel, context: RecordingContext, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    with pytest.raises(UserError, match="No variant") as caught:
        KIND.run(spec_of(small, f"openvino:fp32:{broken}"), context)
    assert "cannot load" in caught.value.hint


def test_a_stop_ends_it_within_a_second_and_leaves_no_process(small: SmallModel, context: RecordingContext) -> None:
    stopped_at: list[float] = []

    def stop() -> bool:
        if not stopped_at and any(stage.startswith("Measuring") for _, stage in context.progresses):
            stopped_at.append(time.monotonic())
        return bool(stopped_at)

    context.stop_when = stop
    KIND.run(spec_of(small, queries=10_000_000, rounds=10_000), context)
    assert time.monotonic() - stopped_at[0] < 5
    assert "benchmark" not in context.artifacts
    assert not leftovers()


def load_request(small: SmallModel) -> LoadRequest:
    return LoadRequest(
        backend="onnxruntime", precision="fp32", model=str(small.onnx), threads=1, test_data=str(small.test), sample=3
    )


def test_a_measuring_process_that_dies_is_a_sentence(small: SmallModel, context: RecordingContext) -> None:
    with MeasuringProcess("the victim", 1, context) as process:
        process.ask(load_request(small), Loaded)
        victim = leftovers()[0].pid
        killer = threading.Timer(0.3, os.kill, (victim, signal.SIGKILL))
        killer.start()
        with pytest.raises(UserError, match=r"the victim ended unexpectedly \(signal 9\)"):
            process.ask(BurstRequest(batch=1, calls=10**9, limit_s=60), Burst)
        killer.join()


def test_a_burst_ends_at_its_limit_and_times_every_call(small: SmallModel, context: RecordingContext) -> None:
    with MeasuringProcess("one", 1, context) as process:
        process.ask(load_request(small), Loaded)
        scored = process.ask(ScoreRequest(batch=64), Scored)
        burst = process.ask(BurstRequest(batch=4, calls=10_000_000, limit_s=0.1), Burst)
        assert scored.samples == 397
        assert burst.total_ns >= 0.1e9
        assert 1 <= len(burst.wall_ns) < 10_000_000
        assert sum(burst.wall_ns) <= burst.total_ns
        assert burst.cpu_ns > 0


def test_a_refusal_leaves_the_process_usable(small: SmallModel, context: RecordingContext) -> None:
    with MeasuringProcess("one", 1, context) as process:
        with pytest.raises(UserError, match="no model file"):
            process.ask(
                LoadRequest(
                    backend="onnxruntime",
                    precision="fp32",
                    model=str(small.onnx.with_name("missing.onnx")),
                    threads=1,
                    test_data=str(small.test),
                    sample=0,
                ),
                Loaded,
            )
        assert process.ask(load_request(small), Loaded).executed == "fp32"


def test_variants_come_from_the_lineage(small: SmallModel, tmp_path: Path) -> None:
    home = tmp_path
    train, int8 = "20260101-000000-train-aaaaaa", "20260101-000000-int8-bbbbbb"
    for run_id, parent, kinds in (
        (train, "", {"model.onnx": small.onnx, "model.torch_export": small.pt2, "data.test": small.test}),
        (int8, train, {"model.onnx.int8": small.onnx}),
    ):
        layout = RunLayout(home / "runs" / run_id)
        layout.artifacts.mkdir(parents=True)
        layout.spec.write_text(f'kind = "x"\nparent = "{parent}"\n')
        writer = EventWriter(layout.events("worker"))
        for kind, path in kinds.items():
            copy = layout.artifacts / f"{kind}{path.suffix}"
            shutil.copy(path, copy)
            writer.write("artifact", name=copy.name, path=f"artifacts/{copy.name}", kind=kind, size_bytes=1, sha256="")
        writer.close()
    variants, test = find_variants(BenchmarkSpec(parent=int8), home)
    assert [named.name for named in variants] == [
        "pytorch fp32",
        "onnxruntime fp32",
        "onnxruntime int8",
        "openvino fp32",
    ]
    assert test.name == "data.test.npz"
    with pytest.raises(UserError, match="left no model"):
        find_variants(BenchmarkSpec(parent="20260101-000000-nobody-cccccc"), home)


def test_equal_variants_get_names_of_their_own(small: SmallModel, tmp_path: Path) -> None:
    text = f"onnxruntime:fp32:{small.onnx}"
    variants, _ = find_variants(spec_of(small, text, text), tmp_path)
    assert len({named.name for named in variants}) == 2


@pytest.mark.parametrize(
    "text", ["", "onnxruntime", "onnxruntime:fp32", "tensorrt:fp32:/m.onnx", "openvino:fp64:/m.xml"]
)
def test_a_malformed_variant_is_a_sentence(text: str) -> None:
    with pytest.raises(UserError, match="is no variant"):
        parse_variant(text)


def test_check_names_every_problem(tmp_path: Path) -> None:
    problems = KIND.check(
        BenchmarkSpec(variants=("nonsense", f"openvino:fp32:{tmp_path / 'no.xml'}"), test_data="/no.npz")
    )
    assert [problem.field for problem in problems] == ["variants", "variants", "test_data"]
    assert [problem.field for problem in KIND.check(BenchmarkSpec())] == ["variants", "test_data"]


def result_with(wall_per_cpu: float) -> VariantResult:
    numbers = dict.fromkeys((f for f in VariantResult.__struct_fields__ if f not in {"wall_per_cpu", "name"}), 1.0)
    return VariantResult(**{**numbers, "name": "one", "wall_per_cpu": wall_per_cpu})  # type: ignore[arg-type]


def test_contention_and_unsteadiness_are_said() -> None:
    steady = Control(name="one", p50_ratio=1.01, cpu_ratio=1.0)
    assert judge_quiet([result_with(1.02)], steady, 1)[0] is False
    is_contended, sentence = judge_quiet([result_with(2.0)], steady, 1)
    assert is_contended
    assert "2.00 times its CPU time" in sentence
    assert judge_quiet([result_with(1.02)], Control(name="one", p50_ratio=0.8, cpu_ratio=1.0), 1)[0] is True
    assert judge_quiet([result_with(0.6)], None, 2)[0] is False


def test_the_warm_up_ends_at_its_limit(small: SmallModel, context: RecordingContext) -> None:
    with MeasuringProcess("one", 1, context) as process:
        process.ask(load_request(small), Loaded)
        warmed = process.ask(WarmRequest(limit_s=0.0), Warmed)
        assert warmed.calls == 20
        assert not warmed.is_settled


def test_peak_memory_is_this_processes_own() -> None:
    peak = peak_rss_bytes()
    assert peak is not None
    assert peak >= psutil.Process().memory_info().rss * 0.5
