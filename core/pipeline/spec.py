"""What a quick start is asked: how long to train, how strictly to judge, how much to measure."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from core.contracts.specs import RunSpec, Seed


def _section(name: str, unit: str = "", *, advanced: bool = False) -> dict[str, object]:
    return {"section": name, "unit": unit, "advanced": advanced}


class QuickstartSpec(RunSpec, frozen=True, kw_only=True, tag="quickstart"):
    """Train a digit classifier, compress it to INT8, and benchmark both on every backend."""

    epochs: Annotated[
        int,
        Meta(
            title="Epochs",
            ge=1,
            le=10_000,
            description="Passes over the training part; 20 take about half a minute on two cores.",
            extra_json_schema=_section("Training"),
        ),
    ] = 20
    seed: Annotated[
        Seed,
        Meta(
            title="Seed",
            description="Fixes initial weights, data order, augmentation, calibration samples and the timed sample.",
            extra_json_schema=_section("Training"),
        ),
    ] = 0
    threads: Annotated[
        int,
        Meta(
            title="Training threads",
            ge=0,
            le=1024,
            description=(
                "CPU threads for training and compressing; 0 shares the cores out. A net this small gains little from more "
                "than 1, and on a busy machine threads that wait for each other cost several times as long."
            ),
            extra_json_schema=_section("Training", advanced=True),
        ),
    ] = 1
    max_accuracy_drop_points: Annotated[
        float,
        Meta(
            title="Accuracy gate",
            ge=0,
            le=100,
            description="Largest drop of test accuracy at which an INT8 model is accepted.",
            extra_json_schema=_section("Compression", "points"),
        ),
    ] = 1.0
    calibration_samples: Annotated[
        int,
        Meta(
            title="Calibration samples",
            ge=1,
            le=100_000,
            description="How many training images set the ranges of the activations.",
            extra_json_schema=_section("Compression", "samples", advanced=True),
        ),
    ] = 200
    queries: Annotated[
        int,
        Meta(
            title="Timed inferences",
            ge=20,
            le=10_000_000,
            description="Per variant. From 299 on, a bound of the true p99 can be quoted.",
            extra_json_schema=_section("Benchmark"),
        ),
    ] = 1000
    benchmark_threads: Annotated[
        int,
        Meta(
            title="Benchmark threads",
            ge=1,
            le=1024,
            description="CPU threads for one inference; 1 gives the steadiest figures.",
            extra_json_schema=_section("Benchmark"),
        ),
    ] = 1
