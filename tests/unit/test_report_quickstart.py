"""The quick start's report: self-contained, escaped, complete; and the numbers behind its drawings."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import msgspec
import pytest

from core.contracts.ids import RunId
from core.contracts.runs import TableRecord
from core.infer.records import BenchmarkReport, Control, Skipped, VariantResult
from core.pipeline.chart import accuracy_chart, nice_ticks
from core.pipeline.report import Bar, ReportContent, human_bytes, render, speed_headline
from core.pipeline.result import figures_of

HOSTILE = "<script>alert('x')</script>"


def variant(backend: str, precision: str, **changes: object) -> VariantResult:
    fields: dict[str, object] = dict.fromkeys(VariantResult.__struct_fields__, 1.0)
    fields |= {"name": f"{backend} {precision}", "backend": backend, "precision": precision, "executed": precision}
    fields |= {
        "backend_version": "1.0",
        "model": "m",
        "size_bytes": 1000,
        "queries": 1000,
        "int8_layers": 0,
        "layers": 4,
    }
    fields |= {"correct": 99, "samples": 100, "accuracy": 0.99, "throughput_batch": 32, "is_settled": True, **changes}
    return VariantResult(**fields)  # type: ignore[arg-type]


FP32 = variant("onnxruntime", "fp32", cpu_ms=2.0)
INT8 = variant("onnxruntime", "int8", cpu_ms=0.5, size_bytes=250, accuracy=0.98, int8_layers=4, p99_bound_ms=None)


@pytest.fixture
def content() -> ReportContent:
    benchmark = BenchmarkReport(
        variants=[FP32, INT8],
        skipped=[Skipped(name="pytorch int8", reason=HOSTILE)],
        control=Control(name="onnxruntime fp32", p50_ratio=1.01, cpu_ratio=1.0),
        is_contended=True,
        verdict=HOSTILE,
        threads=1,
        seed=0,
        rounds=10,
        test_samples=450,
        packages={"numpy": HOSTILE},
        machine="Linux",
        ended=0.0,
    )
    row = ("onnxruntime", "reject", 0.99, 0.98, 1.0, 1000.0, 250.0, 0.25, 4.0, 1.0)
    return ReportContent(
        run_id=RunId("20260101-000000-quick-start-abcdef"),
        title=HOSTILE,
        accuracy=0.99,
        train_seconds=24.0,
        headline=speed_headline(benchmark.variants),
        chart=accuracy_chart([1, 2, 3], [0.8, 0.9, 0.99]),
        benchmark=benchmark,
        bars=(Bar(label="onnxruntime int8", precision="int8", p50_ms=0.5, share=0.25),),
        int8=TableRecord(name="int8", columns=("method",), rows=(row,)),
        stages=(("train", RunId("20260101-000000-train-abcdef"), None),),
        environment=((HOSTILE, HOSTILE),),
        command=f'pilothouse run "{HOSTILE}"',
        made="2026-01-01 00:00 UTC",
    )


def test_it_escapes_every_text(content: ReportContent) -> None:
    html = render(content)
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 6


def test_it_needs_no_file_but_itself(content: ReportContent) -> None:
    html = render(content)
    assert not re.search(r"""(?:src|href)\s*=|@import|url\(|https?://""", html)
    assert "prefers-color-scheme: dark" in html


def test_it_shows_every_variant_and_says_what_may_not_be_quoted(content: ReportContent) -> None:
    html = render(content)
    assert html.count("1.0</span></td>") == 2
    assert "n too small" in html
    assert "4 of 4 layers" in html
    assert "note warn" in html
    assert "p50 ratio 1.010" in html


def test_it_does_without_chart_and_int8_table(content: ReportContent) -> None:
    html = render(replace(content, chart=None, int8=None, bars=()))
    assert "<svg" not in html
    assert "What INT8 cost" not in html


def test_the_drawing_is_well_formed_and_inside_its_frame(content: ReportContent) -> None:
    svg = re.search(r"<svg.*?</svg>", render(content), re.DOTALL)
    assert svg is not None
    root = ET.fromstring(svg.group())  # our own text
    line = root.find("polyline")
    assert line is not None
    points = [tuple(float(part) for part in point.split(",")) for point in line.attrib["points"].split()]
    assert len(points) == 3
    assert all(56 <= x <= 704 and 14 <= y <= 222 for x, y in points)
    assert [y for _, y in points] == sorted((y for _, y in points), reverse=True)


@pytest.mark.parametrize(
    ("values", "drawn"),
    [([], False), ([0.5], False), ([0.5, float("nan")], False), ([0.5, 0.5], True), ([1.0, 1.0], True)],
)
def test_a_chart_needs_two_finite_points(values: list[float], drawn: bool) -> None:
    assert (accuracy_chart([float(i) for i in range(len(values))], values) is not None) == drawn


def test_ticks_are_round_and_within_the_range() -> None:
    assert nice_ticks(0.8, 1.0, 5) == [0.8, 0.85, 0.9, 0.95, 1.0] or nice_ticks(0.8, 1.0, 5) == [0.8, 0.9, 1.0]
    assert nice_ticks(1, 20, 8) == [5, 10, 15, 20]
    assert nice_ticks(3, 3) == [3]


def test_the_headline_compares_with_the_same_backends_fp32() -> None:
    assert speed_headline([FP32, INT8]) == (
        "INT8 on onnxruntime is 4.0 times faster than fp32 there by CPU time, its file 75 % smaller, its accuracy -1.00 points."
    )
    assert "2.0 times slower" in speed_headline([FP32, msgspec.structs.replace(INT8, cpu_ms=4.0)])
    assert "No INT8 model" in speed_headline([FP32])


def test_a_variant_that_ran_in_another_precision_is_no_figure(content: ReportContent) -> None:
    pretender = msgspec.structs.replace(INT8, executed="fp32")
    found = figures_of(msgspec.structs.replace(content.benchmark, variants=[FP32, pretender]))
    assert [(one.backend, one.precision) for one in found] == [("onnxruntime", "fp32")]


def test_sizes_read_well() -> None:
    assert [human_bytes(n) for n in (None, 0, 1023, 1024, 1536, 5 << 20, 3 << 40)] == [
        "–", "0 B", "1023 B", "1 KiB", "1.5 KiB", "5 MiB", "3 TiB",
    ]  # fmt: skip
