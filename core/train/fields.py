"""Field groups that several training kinds share: optimizer, schedule, checkpoints, precision.

Every field carries its title, help, bounds and unit, from which forms, tooltips and the command line's help are made.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Precision = Annotated[
    Literal["fp32", "bf16", "fp16"],
    Meta(
        title="Precision",
        description="Arithmetic of the forward and backward pass. bf16 needs no loss scaling; fp16 works on GPUs only.",
        extra_json_schema={"section": "Training", "advanced": True},
    ),
]


def extra(section: str, unit: str = "", *, advanced: bool = False) -> dict[str, object]:
    """Return the ``extra_json_schema`` of a field: its heading in the form, its unit, and whether it is advanced."""
    return {"section": section, "unit": unit, "advanced": advanced}


_OPTIMIZER = "Optimizer"
_CHECKPOINTS = "Checkpoints"

WeightDecay = Annotated[
    float,
    Meta(
        title="Weight decay",
        ge=0,
        le=10,
        description="Decoupled decay of matrices and convolutions; norms and biases are left out. Usually 0.01 to 0.1.",
        extra_json_schema=extra(_OPTIMIZER),
    ),
]
Beta2 = Annotated[
    float,
    Meta(
        title="Beta 2",
        ge=0,
        lt=1,
        description="Decay of the running mean of the squared gradient.",
        extra_json_schema=extra(_OPTIMIZER, advanced=True),
    ),
]
EmaDecay = Annotated[
    float,
    Meta(
        title="Weight averaging",
        ge=0,
        lt=1,
        description="Decay of the exponential average of the weights that is validated and exported; 0 turns it off.",
        extra_json_schema=extra(_OPTIMIZER, advanced=True),
    ),
]


class OptimizerSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """AdamW with warm-up, cosine decay, clipping and an average of the weights.

    A kind with other defaults subclasses it: defaults given as an instance would be lost where a spec or a form names
    only some of the fields.
    """

    lr: Annotated[
        float,
        Meta(
            title="Learning rate",
            gt=0,
            le=10,
            description="Highest learning rate, reached after the warm-up; usually 1e-4 to 1e-2.",
            extra_json_schema=extra(_OPTIMIZER),
        ),
    ] = 3e-3
    min_lr_fraction: Annotated[
        float,
        Meta(
            title="Final learning rate",
            ge=0,
            le=1,
            description="Learning rate at the last step as a share of the highest one.",
            extra_json_schema=extra(_OPTIMIZER, advanced=True),
        ),
    ] = 0.01
    warmup_fraction: Annotated[
        float,
        Meta(
            title="Warm-up",
            ge=0,
            le=0.5,
            description="Share of all steps over which the learning rate rises from zero; usually 0.02 to 0.1.",
            extra_json_schema=extra(_OPTIMIZER, advanced=True),
        ),
    ] = 0.05
    weight_decay: WeightDecay = 0.05
    beta1: Annotated[
        float,
        Meta(
            title="Beta 1",
            ge=0,
            lt=1,
            description="Decay of the running mean of the gradient.",
            extra_json_schema=extra(_OPTIMIZER, advanced=True),
        ),
    ] = 0.9
    beta2: Beta2 = 0.999
    eps: Annotated[
        float,
        Meta(
            title="Epsilon",
            gt=0,
            le=1e-2,
            description="Added to the denominator of AdamW's update.",
            extra_json_schema=extra(_OPTIMIZER, advanced=True),
        ),
    ] = 1e-8
    max_grad_norm: Annotated[
        float,
        Meta(
            title="Gradient clipping",
            ge=0,
            le=1e6,
            description="The gradient is scaled down to this Euclidean norm; 0 turns clipping off.",
            extra_json_schema=extra(_OPTIMIZER, advanced=True),
        ),
    ] = 1.0
    grad_accum_steps: Annotated[
        int,
        Meta(
            title="Gradient accumulation",
            ge=1,
            le=4096,
            description="Micro-batches per optimizer step; raises the effective batch without more memory.",
            extra_json_schema=extra(_OPTIMIZER, "micro-batches", advanced=True),
        ),
    ] = 1
    ema_decay: EmaDecay = 0.0


class CheckpointSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When checkpoints are written and how many are kept."""

    every_steps: Annotated[
        int,
        Meta(
            title="Checkpoint every",
            ge=0,
            le=10**9,
            description="Optimizer steps between two checkpoints; 0 writes one at each validation.",
            extra_json_schema=extra(_CHECKPOINTS, "steps", advanced=True),
        ),
    ] = 0
    keep_last: Annotated[
        int,
        Meta(
            title="Checkpoints kept",
            ge=1,
            le=1000,
            description="Older checkpoints are removed once a newer one is verified.",
            extra_json_schema=extra(_CHECKPOINTS, advanced=True),
        ),
    ] = 2
