"""The result of a quick start as one record: what ``pilothouse quickstart --json`` prints and the report shows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from core.contracts.errors import UserError
from core.contracts.ids import RunId
from core.infer.records import BenchmarkReport
from core.infer.tasks.benchmark import REPORT_KIND as BENCHMARK_KIND
from core.infer.tasks.benchmark import read_report
from core.runlog.lineage import artifacts_of, children_of

if TYPE_CHECKING:
    from core.workspace.workspace import Workspace

TRAIN, COMPRESS, BENCHMARK = "train", "compress", "benchmark"
REPORT_KIND = "report"


class VariantFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One model on one backend; times at batch 1, throughput in samples per second, accuracy 0 to 1."""

    backend: str
    precision: str
    accuracy: float
    p50_ms: float
    p99_ms: float
    throughput: float
    size_bytes: int


class QuickstartResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a quick start found.

    Attributes:
        accuracy: Of the trained model on the held-out test part, 0 to 1.
        train_seconds: Time spent training.
        runs: Ids of the pipeline's own run and of its stages, in order.
        variants: One per backend and precision that really ran.
        report: Path of the HTML report.
    """

    accuracy: float
    train_seconds: float
    runs: list[RunId]
    variants: list[VariantFigures]
    report: str


def figures_of(report: BenchmarkReport) -> list[VariantFigures]:
    """Return the variants that ran in the precision they are named after."""
    return [
        VariantFigures(
            backend=v.backend,
            precision=v.precision,
            accuracy=v.accuracy,
            p50_ms=v.p50_ms,
            p99_ms=v.p99_ms,
            throughput=v.throughput,
            size_bytes=v.size_bytes,
        )
        for v in report.variants
        if v.precision == v.executed
    ]


def benchmark_of(runs_dir: Path, run_id: RunId) -> BenchmarkReport:
    """Read the benchmark that a run left; UserError when there is none."""
    path = artifacts_of(runs_dir / run_id).get(BENCHMARK_KIND)
    if path is None:
        raise UserError(f"The run {run_id} left no benchmark.", "Look at its log.")
    return read_report(path)


def quickstart_result(workspace: Workspace, run_id: RunId) -> QuickstartResult:
    """Gather the result of a quick start that succeeded. Blocks on files and SQLite.

    Raises:
        UserError: It is no quick start, or has not finished.
    """
    runs_dir = workspace.home.runs_dir
    children = children_of(runs_dir / run_id)
    report = artifacts_of(runs_dir / run_id).get(REPORT_KIND)
    if not {TRAIN, COMPRESS, BENCHMARK} <= children.keys() or report is None:
        raise UserError(f"The run {run_id} is no finished quick start.", "Wait until it has succeeded.")
    final = workspace.summary(children[TRAIN]).final
    return QuickstartResult(
        accuracy=final["test/accuracy"],
        train_seconds=final["train_seconds"],
        runs=[run_id, children[TRAIN], children[COMPRESS], children[BENCHMARK]],
        variants=figures_of(benchmark_of(runs_dir, children[BENCHMARK])),
        report=str(report),
    )
