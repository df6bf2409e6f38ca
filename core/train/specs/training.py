"""The fields of every kind that trains with our own engine; a kind adds its model and its data."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from core.contracts.specs import Device, RunSpec, Seed
from core.train.fields import extra
from core.train.specs.checkpoints import CheckpointSpec
from core.train.specs.compute import ComputeSpec, Precision
from core.train.specs.distillation import DistillationSpec
from core.train.specs.loading import LoadingSpec
from core.train.specs.optimizer import OptimizerSpec
from core.train.specs.parallel import ParallelSpec
from core.train.specs.stability import StabilitySpec
from core.train.specs.tuning import TuningSpec

_TRAINING = "Training"

Epochs = Annotated[
    float,
    Meta(
        title="Epochs",
        gt=0,
        le=100_000,
        description="Passes over the training part; not looked at where steps are given.",
        extra_json_schema=extra(_TRAINING),
    ),
]


def micro_batch_of(samples: str) -> Meta:
    """Return what is said of the field ``micro_batch`` of a kind whose samples are called so, such as ``images``."""
    return Meta(
        title="Micro-batch",
        ge=1,
        le=65_536,
        description=f"{samples.capitalize()} per forward pass of a rank; halve it when memory runs out.",
        extra_json_schema=extra(_TRAINING, samples),
    )


class TrainingSpec(RunSpec, frozen=True, kw_only=True):
    """What the engine needs to know. Samples per optimizer step = micro_batch x grad_accum_steps x data ranks."""

    steps: Annotated[
        int,
        Meta(
            title="Steps",
            ge=0,
            le=10**9,
            description="Optimizer steps; 0: as many as the epochs need.",
            extra_json_schema=extra(_TRAINING, "steps"),
        ),
    ] = 0
    epochs: Epochs = 1.0
    micro_batch: Annotated[int, micro_batch_of("samples")] = 8
    global_batch: Annotated[
        int,
        Meta(
            title="Global batch",
            ge=0,
            le=10**9,
            description=(
                "Samples per optimizer step over all ranks; must equal micro-batch x accumulation x data ranks. "
                "0: whatever these give."
            ),
            extra_json_schema=extra(_TRAINING, "samples", advanced=True),
        ),
    ] = 0
    evaluate_every: Annotated[
        int,
        Meta(
            title="Validate every",
            ge=0,
            le=10**9,
            description="Optimizer steps between two validations; 0: once an epoch, or ten times where steps are given.",
            extra_json_schema=extra(_TRAINING, "steps", advanced=True),
        ),
    ] = 0
    seed: Annotated[Seed, Meta(extra_json_schema=extra(_TRAINING, advanced=True))] = 0
    device: Annotated[
        Device,
        Meta(
            title="Device",
            description="'auto' takes the fastest there is.",
            extra_json_schema=extra(_TRAINING, advanced=True),
        ),
    ] = "auto"
    precision: Precision = "fp32"
    optimizer: Annotated[OptimizerSpec, Meta(title="Optimizer")] = OptimizerSpec()
    compute: Annotated[ComputeSpec, Meta(title="Precision and memory")] = ComputeSpec()
    parallel: Annotated[ParallelSpec, Meta(title="Parallel layout")] = ParallelSpec()
    checkpoints: Annotated[CheckpointSpec, Meta(title="Checkpoints")] = CheckpointSpec()
    stability: Annotated[StabilitySpec, Meta(title="Stability guard")] = StabilitySpec()
    loading: Annotated[LoadingSpec, Meta(title="Loading")] = LoadingSpec()
    distillation: Annotated[DistillationSpec, Meta(title="Distillation and penalties")] = DistillationSpec()
    tuning: Annotated[TuningSpec, Meta(title="Found by trying")] = TuningSpec()
