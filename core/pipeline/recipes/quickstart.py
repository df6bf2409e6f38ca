"""``quickstart``: trains, compresses and benchmarks as three runs of one lineage, and ends with a report.

This worker computes nothing itself and loads no machine-learning library: it launches the stages in the same home,
follows them, stops them when it is stopped, and their supervisors stop them when it is gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.contracts.errors import Cancelled
from core.contracts.events import Cell
from core.contracts.ids import RunId
from core.contracts.kinds import RunKind
from core.contracts.specs import LaunchSpec, RunSpec
from core.contracts.worker import RunContext
from core.pipeline.result import BENCHMARK, COMPRESS, REPORT_KIND, TRAIN
from core.pipeline.spec import QuickstartSpec
from core.pipeline.stages import Stage, StageRunner

if TYPE_CHECKING:
    from core.infer.records import BenchmarkReport
    from core.pipeline.report import ReportContent

TAG = "quickstart"
_COLUMNS = ("backend", "precision", "accuracy", "p50 (ms)", "p99 (ms)", "throughput (samples/s)", "size (bytes)")


def _stages(spec: QuickstartSpec) -> tuple[Stage, ...]:
    launch = LaunchSpec(threads=spec.threads)

    def train(_: dict[str, RunId]) -> RunSpec:
        from core.train.tasks.image import ImageTrainingSpec

        return ImageTrainingSpec(
            name="Quick start: digits", tags=(TAG,), epochs=spec.epochs, seed=spec.seed, device="cpu", launch=launch
        )

    def compress(runs: dict[str, RunId]) -> RunSpec:
        from core.compress.spec import Int8Spec

        return Int8Spec(
            name="Quick start: INT8",
            tags=(TAG,),
            parent=runs[TRAIN],
            calibration_samples=spec.calibration_samples,
            max_accuracy_drop_points=spec.max_accuracy_drop_points,
            seed=spec.seed,
            launch=launch,
        )

    def benchmark(runs: dict[str, RunId]) -> RunSpec:
        from core.infer.spec import BenchmarkSpec

        return BenchmarkSpec(
            name="Quick start: benchmark",
            tags=(TAG,),
            parent=runs[COMPRESS],
            queries=spec.queries,
            threads=spec.benchmark_threads,
            seed=spec.seed,
        )

    return (
        Stage(role=TRAIN, title="Training", share=0.59, goes_on=True, spec=train),
        Stage(role=COMPRESS, title="Compressing", share=0.15, goes_on=False, spec=compress),
        Stage(role=BENCHMARK, title="Benchmarking", share=0.25, goes_on=False, spec=benchmark),
    )


def _rows(report: BenchmarkReport) -> list[list[Cell]]:
    return [
        [
            v.backend,
            v.precision,
            v.accuracy,
            round(v.p50_ms, 4),
            round(v.p99_ms, 4),
            round(v.throughput, 1),
            v.size_bytes,
        ]
        for v in report.variants
    ]


def _publish(content: ReportContent, context: RunContext) -> None:
    from core.pipeline.report import render

    context.table("quick start", _COLUMNS, _rows(content.benchmark))
    context.result({"test/accuracy": content.accuracy, "train_seconds": content.train_seconds})
    written = context.artifacts_dir / "report.html"
    written.write_text(render(content), encoding="utf-8")
    context.artifact(written, kind=REPORT_KIND, name="Report")
    context.log(content.headline)
    context.log(content.benchmark.verdict, "warning" if content.benchmark.is_contended else "info")


def run(spec: QuickstartSpec, context: RunContext) -> None:
    """Run the three stages and write the report; see ``core.contracts.worker`` for the context.

    Raises:
        UserError: A stage failed; its sentence is passed on.
        EnvironmentProblem: A stage could not be launched.
    """
    from core.pipeline.report import gather
    from core.workspace.workspace import Workspace

    context.started_from(None)
    workspace = Workspace.open(context.home)
    try:
        runs = StageRunner(workspace, context).run(_stages(spec))
        context.progress(0.99, "Writing the report")
        _publish(gather(workspace, context.run_id, runs), context)
        context.progress(1.0, "Done")
    except Cancelled:
        context.log("Stopped; a resume goes on with the stages that were done.")
    finally:
        workspace.close()


KIND = RunKind(
    spec=QuickstartSpec,
    title="Quick start",
    summary="Trains a digit classifier, compresses it to INT8 and benchmarks both on three backends, in about two minutes.",
    group="pipeline",
    icon="rocket",
    run=run,
    examples=("quickstart.toml",),
)
