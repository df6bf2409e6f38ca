"""What a benchmark run is asked: which models on which backends, on what data, and under what protocol."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from core.contracts.specs import RunSpec, Seed


def _protocol(unit: str = "", *, advanced: bool = False) -> dict[str, object]:
    return {"section": "Protocol", "unit": unit, "advanced": advanced}


class BenchmarkSpec(RunSpec, frozen=True, kw_only=True, tag="infer.benchmark"):
    """Measure latency, throughput, accuracy, size and memory of models on inference backends."""

    variants: Annotated[
        tuple[str, ...],
        Meta(
            title="Variants",
            description=(
                "Each as backend:precision:path, such as openvino:int8:/data/model.xml; backends pytorch, onnxruntime and "
                "openvino, precisions fp32, bf16 and int8. Empty: every model of the run this builds on, and of its parents."
            ),
            extra_json_schema={"section": "Models and data"},
        ),
    ] = ()
    test_data: Annotated[
        str,
        Meta(
            title="Test data",
            description="An .npz with x and y, scored as a whole. Empty: that of the run this builds on.",
            extra_json_schema={"path": "file", "section": "Models and data"},
        ),
    ] = ""
    threads: Annotated[
        int,
        Meta(
            title="Threads",
            ge=1,
            le=1024,
            description="CPU threads for one inference. 1 gives the steadiest figures.",
            extra_json_schema=_protocol(),
        ),
    ] = 1
    queries: Annotated[
        int,
        Meta(
            title="Timed inferences",
            ge=20,
            le=10_000_000,
            description="Per variant at batch 1. From 299 on, a bound of the true p99 can be quoted; 1000 or more are usual.",
            extra_json_schema=_protocol(),
        ),
    ] = 1000
    rounds: Annotated[
        int,
        Meta(
            title="Rounds",
            ge=2,
            le=10_000,
            description="The timed inferences are split into this many bursts, interleaved over the variants.",
            extra_json_schema=_protocol(advanced=True),
        ),
    ] = 10
    throughput_batch: Annotated[
        int,
        Meta(
            title="Throughput batch",
            ge=1,
            le=65_536,
            description="Samples per call when throughput is measured.",
            extra_json_schema=_protocol("samples"),
        ),
    ] = 32
    warmup_limit_s: Annotated[
        float,
        Meta(
            title="Warm-up limit",
            gt=0,
            le=600,
            description="Each variant is warmed up until its times settle, at most this long.",
            extra_json_schema=_protocol("s", advanced=True),
        ),
    ] = 3.0
    burst_limit_s: Annotated[
        float,
        Meta(
            title="Burst limit",
            gt=0,
            le=600,
            description="No burst lasts longer than about this; a slow variant then gets fewer timed inferences.",
            extra_json_schema=_protocol("s", advanced=True),
        ),
    ] = 1.0
    control: Annotated[
        bool,
        Meta(
            title="A/A control",
            description="Measures one variant twice, in two processes: what differs between equals is noise.",
            extra_json_schema=_protocol(advanced=True),
        ),
    ] = True
    seed: Annotated[
        Seed,
        Meta(title="Seed", description="Fixes which sample is timed.", extra_json_schema=_protocol(advanced=True)),
    ] = 0
