"""What a sweep is asked: which spec, which of its fields over which ranges, what to seek, and how."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from core.contracts.specs import RunSpec, Seed
from core.contracts.sweeps import SWEEP_KIND, Goal

Sampler = Literal["tpe", "random", "grid"]
Pruner = Literal["asha", "median", "none"]
Aggregate = Literal["best", "last"]


def _extra(section: str, unit: str = "", *, advanced: bool = False) -> dict[str, object]:
    return {"section": section, "unit": unit, "advanced": advanced}


_SPEC = "What is tried"
_SEARCH = "Search"
_PRUNING = "Ending trials early"


class SweepSpec(RunSpec, frozen=True, kw_only=True, tag=SWEEP_KIND):
    """Try values of a spec's fields and find the best; every trial is a run of its own."""

    spec: Annotated[
        str,
        Meta(
            title="Spec",
            description="TOML spec whose fields are varied; give this or a base run. Where trials run is said there.",
            extra_json_schema={"path": "file", **_extra(_SPEC)},
        ),
    ] = ""
    base: Annotated[
        str,
        Meta(
            title="Base run",
            description="Id of a run whose spec is varied, in place of a spec file.",
            extra_json_schema=_extra(_SPEC),
        ),
    ] = ""
    parameters: Annotated[
        dict[str, str],
        Meta(
            title="Parameters",
            description=(
                "Field of the spec and its range: 1e-4..1e-2 log, 16..64 step 8, 0.1..0.9 in 5 (five values), "
                "or choices: adamw|muon."
            ),
            extra_json_schema=_extra(_SPEC),
        ),
    ] = {}
    metric: Annotated[
        str,
        Meta(
            title="Metric",
            min_length=1,
            description="What to seek: a metric that the trials record, such as val/loss or test/accuracy.",
            extra_json_schema=_extra(_SEARCH),
        ),
    ] = "val/loss"
    goal: Annotated[
        Goal,
        Meta(title="Goal", description="Seek small or large values.", extra_json_schema=_extra(_SEARCH)),
    ] = "minimize"
    aggregate: Annotated[
        Aggregate,
        Meta(
            title="Value of a trial",
            description="The best value that its metric reached, or the last one.",
            extra_json_schema=_extra(_SEARCH, advanced=True),
        ),
    ] = "best"
    sampler: Annotated[
        Sampler,
        Meta(
            title="Sampler",
            description=(
                "tpe learns from the trials before (Tree-structured Parzen Estimator), random does not, "
                "grid tries every combination."
            ),
            extra_json_schema=_extra(_SEARCH),
        ),
    ] = "tpe"
    trials: Annotated[
        int,
        Meta(
            title="Trials",
            ge=1,
            le=10_000,
            description="How many to run; a grid runs all its combinations instead. 20 to 100 are usual.",
            extra_json_schema=_extra(_SEARCH),
        ),
    ] = 20
    parallel_trials: Annotated[
        int,
        Meta(
            title="Trials at once",
            ge=1,
            le=256,
            description="How many may run or wait at the same time. Let the spec wait for free devices to share GPUs.",
            extra_json_schema=_extra(_SEARCH),
        ),
    ] = 1
    seed: Annotated[
        Seed,
        Meta(title="Seed", description="Fixes the choice of values.", extra_json_schema=_extra(_SEARCH, advanced=True)),
    ] = 0
    startup_trials: Annotated[
        int,
        Meta(
            title="Random trials first",
            ge=1,
            le=10_000,
            description="tpe chooses at random until this many trials have ended.",
            extra_json_schema=_extra(_SEARCH, advanced=True),
        ),
    ] = 10
    timeout_minutes: Annotated[
        float,
        Meta(
            title="Time limit",
            ge=0,
            le=1_000_000,
            description="No new trial begins after this long, those that run end normally; 0: no limit.",
            extra_json_schema=_extra(_SEARCH, "min"),
        ),
    ] = 0.0
    stop_after_failures: Annotated[
        int,
        Meta(
            title="Failures in a row",
            ge=0,
            le=10_000,
            description="The sweep fails when this many trials in a row have failed; 0: never.",
            extra_json_schema=_extra(_SEARCH, advanced=True),
        ),
    ] = 5
    pruner: Annotated[
        Pruner,
        Meta(
            title="Pruner",
            description=(
                "asha keeps the best share of the trials at steps that grow geometrically (asynchronous successive "
                "halving); median ends those worse than the median of the earlier ones; none lets all finish."
            ),
            extra_json_schema=_extra(_PRUNING),
        ),
    ] = "none"
    min_steps: Annotated[
        int,
        Meta(
            title="Never before step",
            ge=1,
            le=10**9,
            description="No trial is ended before this step of its metric; asha decides there first.",
            extra_json_schema=_extra(_PRUNING, "steps"),
        ),
    ] = 1
    reduction_factor: Annotated[
        int,
        Meta(
            title="Reduction factor",
            ge=2,
            le=16,
            description="asha: one in so many goes on at each of its steps, and each is so many times the one before.",
            extra_json_schema=_extra(_PRUNING, advanced=True),
        ),
    ] = 3
    median_trials: Annotated[
        int,
        Meta(
            title="Trials before pruning",
            ge=1,
            le=10_000,
            description="median: nothing is ended until this many trials have finished.",
            extra_json_schema=_extra(_PRUNING, "trials", advanced=True),
        ),
    ] = 5
