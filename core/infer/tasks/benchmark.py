"""``infer.benchmark``: measures models on inference backends under a protocol that another lab would accept.

Fixed threads, warm-up until settled, bursts interleaved over all variants, wall and CPU time, percentiles with their n
and intervals, accuracy on the whole test set, an A/A control, and a flag when the machine was too busy to quote.
"""

from __future__ import annotations

import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from core.contracts.errors import Cancelled, UserError
from core.contracts.events import Cell
from core.contracts.kinds import RunKind
from core.contracts.worker import RunContext
from core.infer.protocol import Outcome, Protocol
from core.infer.records import BenchmarkReport, VariantResult
from core.infer.spec import BenchmarkSpec
from core.infer.summary import compare_control, judge_quiet, summarize
from core.infer.variants import check_variants, find_variants
from core.runlog.arrays import read_arrays

REPORT_KIND = "benchmark"
_PACKAGES = ("torch", "onnxruntime", "openvino", "onnx", "numpy")
_COLUMNS = ("variant", "accuracy", "accuracy 95 % low", "accuracy 95 % high", "p50 (ms)", "p90 (ms)", "p99 (ms)",
            "n", "CPU (ms)", "throughput (samples/s)", "size (bytes)", "load (s)", "peak memory (bytes)",
            "INT8 layers")  # fmt: skip


def _row(v: VariantResult) -> list[Cell]:
    accuracies: list[Cell] = [round(x, 5) for x in (v.accuracy, v.accuracy_low, v.accuracy_high)]
    times: list[Cell] = [round(x, 4) for x in (v.p50_ms, v.p90_ms, v.p99_ms)]
    rest: list[Cell] = [v.queries, round(v.cpu_ms, 4), round(v.throughput, 1), v.size_bytes, round(v.load_s, 3)]
    return [v.name, *accuracies, *times, *rest, v.peak_rss_bytes, f"{v.int8_layers} of {v.layers}"]


def _versions() -> dict[str, str]:
    found: dict[str, str] = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _report(spec: BenchmarkSpec, outcome: Outcome, test_samples: int) -> BenchmarkReport:
    variants = [summarize(one, spec.throughput_batch) for one in outcome.measured]
    control = compare_control(outcome.measured, outcome.control)
    is_contended, verdict = judge_quiet(variants, control, spec.threads)
    return BenchmarkReport(
        variants=variants,
        skipped=outcome.skipped,
        control=control,
        is_contended=is_contended,
        verdict=verdict,
        threads=spec.threads,
        seed=spec.seed,
        rounds=spec.rounds,
        test_samples=test_samples,
        packages=_versions(),
        machine=f"{platform.system()} {platform.release()} {platform.machine()}",
        ended=time.time(),
    )


def _publish(report: BenchmarkReport, context: RunContext) -> None:
    context.table("benchmark", _COLUMNS, [_row(variant) for variant in report.variants])
    written = context.artifacts_dir / "benchmark.json"
    written.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2))
    context.artifact(written, kind=REPORT_KIND, meta={"is_contended": report.is_contended, "verdict": report.verdict})
    results: dict[str, float] = {"contended": float(report.is_contended)}
    for v in report.variants:
        prefix = v.name.replace(" ", "/")
        results |= {f"{prefix}/p50_ms": v.p50_ms, f"{prefix}/p99_ms": v.p99_ms, f"{prefix}/accuracy": v.accuracy}
    context.result(results)
    context.log(report.verdict, "warning" if report.is_contended else "info")


def run(spec: BenchmarkSpec, context: RunContext) -> None:
    """Measure all variants and publish the result; see ``core.contracts.worker`` for the context.

    Raises:
        UserError: Nothing to measure, unreadable data, or no variant that runs.
    """
    import numpy as np

    context.started_from(None)
    context.progress(0.0, "Looking for models")
    variants, test_data = find_variants(spec, context.home)
    test_samples = len(read_arrays(test_data))
    sample = int(np.random.default_rng(spec.seed).integers(test_samples))
    try:
        outcome = Protocol(spec, test_data, sample, context).run(variants)
    except Cancelled:
        return
    if not outcome.measured:
        raise UserError("No variant could be measured.", outcome.skipped[0].reason)
    _publish(_report(spec, outcome, test_samples), context)
    context.progress(1.0, "Done")


def read_report(path: Path) -> BenchmarkReport:
    """Read a ``benchmark.json``.

    Raises:
        UserError: Missing or not a benchmark of this version's form.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=BenchmarkReport)
    except (OSError, msgspec.MsgspecError) as error:
        raise UserError(f"The benchmark {str(path)!r} cannot be read: {error}.", "Run the benchmark again.") from error


KIND = RunKind(
    spec=BenchmarkSpec,
    title="Benchmark",
    summary="Measures latency, throughput, accuracy, size and memory of models on PyTorch, ONNX Runtime and OpenVINO.",
    group="benchmark",
    icon="benchmark",
    run=run,
    check=check_variants,
    examples=("benchmark.toml",),
)
