"""The quick start's report: one HTML file without external parts, for light and dark, printable and mailable.

Gathers what the runs left and fills ``resources/report/quickstart.html``; every value is escaped by the template.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.contracts.ids import RunId
from core.contracts.runs import TableRecord
from core.infer.records import BenchmarkReport, VariantResult
from core.pipeline.chart import LineChart, accuracy_chart
from core.pipeline.result import BENCHMARK, COMPRESS, TRAIN, benchmark_of
from core.runlog.layout import RunLayout
from core.settings.resources import resources_dir

if TYPE_CHECKING:
    from core.workspace.workspace import Workspace

TEMPLATE = "quickstart.html"
_ACCURACY_KEY = "val/accuracy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A variant's bar in the latency chart; ``share`` is its length, 0 to 1."""

    label: str
    precision: str
    p50_ms: float
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportContent:
    """All that the template shows."""

    run_id: RunId
    title: str
    accuracy: float
    train_seconds: float
    headline: str
    chart: LineChart | None
    benchmark: BenchmarkReport
    bars: tuple[Bar, ...]
    int8: TableRecord | None
    stages: tuple[tuple[str, RunId, float | None], ...]
    environment: tuple[tuple[str, str], ...]
    command: str
    made: str


def speed_headline(variants: list[VariantResult]) -> str:
    """Say what INT8 brought on the backend where the INT8 model is fastest; by CPU time, which other work cannot inflate."""
    by_name = {(v.backend, v.precision): v for v in variants}
    pairs = [
        (v, by_name[v.backend, "fp32"]) for v in variants if v.precision == "int8" and (v.backend, "fp32") in by_name
    ]
    if not pairs:
        return "No INT8 model could be compared with its original."
    int8, fp32 = min(pairs, key=lambda pair: pair[0].cpu_ms)
    ratio = fp32.cpu_ms / int8.cpu_ms
    faster = f"{ratio:.1f} times faster" if ratio >= 1 else f"{1 / ratio:.1f} times slower"
    smaller = 100 * (1 - int8.size_bytes / fp32.size_bytes)
    points = 100 * (int8.accuracy - fp32.accuracy)
    return (
        f"INT8 on {int8.backend} is {faster} than fp32 there by CPU time, its file {smaller:.0f} % smaller, "
        f"its accuracy {points:+.2f} points."
    )


def _bars(variants: list[VariantResult]) -> tuple[Bar, ...]:
    longest = max((v.p50_ms for v in variants), default=1.0)
    return tuple(
        Bar(label=v.name, precision=v.precision, p50_ms=v.p50_ms, share=v.p50_ms / longest)
        for v in sorted(variants, key=lambda v: v.p50_ms)
    )


def _flatten(tree: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Return a JSON tree as dotted names and short values."""
    if isinstance(tree, dict):
        return [
            pair for key, value in tree.items() for pair in _flatten(value, f"{prefix}.{key}" if prefix else str(key))
        ]
    if isinstance(tree, list):
        return [(prefix, ", ".join(str(item) for item in tree)[:300])] if tree else []
    return [] if tree in (None, "") else [(prefix, str(tree)[:300])]


def read_environment(run_dir: Path) -> tuple[tuple[str, str], ...]:
    """Return the recorded environment of a run as name and value; empty when none was recorded."""
    try:
        tree = json.loads(RunLayout(run_dir).environment.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ()
    return tuple(_flatten(tree))


def _curve(workspace: Workspace, train: RunId) -> LineChart | None:
    """Return validation accuracy over epochs: it is recorded once at the end of each."""
    curve = workspace.curve(train, _ACCURACY_KEY)
    return accuracy_chart([float(index + 1) for index in range(len(curve.value))], [float(v) for v in curve.value])


def gather(workspace: Workspace, run_id: RunId, runs: dict[str, RunId]) -> ReportContent:
    """Collect what the stages left. Blocks on files and SQLite.

    Raises:
        UserError: A stage left no result.
    """
    benchmark = benchmark_of(workspace.home.runs_dir, runs[BENCHMARK])
    train = workspace.summary(runs[TRAIN])
    tables = {table.name: table for table in workspace.detail(runs[COMPRESS]).tables}
    own_spec = RunLayout(workspace.home.run_dir(run_id)).spec
    return ReportContent(
        run_id=run_id,
        title=workspace.summary(run_id).name or "Quick start",
        accuracy=train.final["test/accuracy"],
        train_seconds=train.final["train_seconds"],
        headline=speed_headline(benchmark.variants),
        chart=_curve(workspace, runs[TRAIN]),
        benchmark=benchmark,
        bars=_bars(benchmark.variants),
        int8=tables.get("int8"),
        stages=tuple((role, stage, workspace.summary(stage).duration_s) for role, stage in runs.items()),
        environment=read_environment(workspace.home.run_dir(runs[TRAIN])),
        command=f'pilothouse run "{own_spec}"',
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )


def render(content: ReportContent) -> str:
    """Return the report as HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(resources_dir() / "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["bytes"] = human_bytes
    return environment.get_template(TEMPLATE).render(c=content)


def human_bytes(size: float | None) -> str:
    """Return a size with three significant digits, in binary units."""
    if size is None:
        return "–"
    amount = float(size)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if amount < 1024 or unit == "TiB":
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.3g} {unit}"
        amount /= 1024
    raise AssertionError
