"""Optimizer, learning rate and gradients of a training."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from core.train.fields import extra

_OPTIMIZER = "Optimizer"
_ADAM = {"field": "optimizer.algorithm", "in": ["adamw", "adamw-8bit", "muon"]}

Algorithm = Literal["adamw", "sgd", "adafactor", "muon", "adamw-8bit"]
Schedule = Literal["cosine", "linear", "constant", "wsd"]
WeightDecay = Annotated[
    float,
    Meta(
        title="Weight decay",
        ge=0,
        le=10,
        description="Decoupled decay of matrices and convolutions; norms and biases are left out. Usually 0.01 to 0.1.",
        extra_json_schema=extra(_OPTIMIZER, advanced=True),
    ),
]
Beta2 = Annotated[
    float,
    Meta(
        title="Beta 2",
        ge=0,
        lt=1,
        description="Decay of the running mean of the squared gradient.",
        extra_json_schema=extra(_OPTIMIZER, advanced=True, shown_if=_ADAM),
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
    """Optimizer, learning rate schedule, clipping, accumulation and an average of the weights.

    A kind with other defaults subclasses it: defaults given as an instance would be lost where a spec or a form names
    only some of the fields.
    """

    algorithm: Annotated[
        Algorithm,
        Meta(
            title="Algorithm",
            description=(
                "adamw for nearly everything; adafactor and adamw-8bit need less memory; muon orthogonalizes the updates of "
                "matrices (norms, biases, embeddings and the output layer go to AdamW); sgd has momentum."
            ),
            extra_json_schema=extra(_OPTIMIZER, advanced=True),
        ),
    ] = "adamw"
    schedule: Annotated[
        Schedule,
        Meta(
            title="Schedule",
            description=(
                "Course of the learning rate after the warm-up: cosine or linear down to the final one, constant, or wsd "
                "(constant, then a linear decay at the end)."
            ),
            extra_json_schema=extra(_OPTIMIZER, advanced=True),
        ),
    ] = "cosine"
    decay_fraction: Annotated[
        float,
        Meta(
            title="Decay",
            ge=0,
            le=1,
            description="wsd only: share of all steps, at the end, over which the learning rate falls.",
            extra_json_schema=extra(_OPTIMIZER, advanced=True, shown_if={"field": "optimizer.schedule", "in": ["wsd"]}),
        ),
    ] = 0.2
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
            extra_json_schema=extra(
                _OPTIMIZER, advanced=True, shown_if={"field": "optimizer.schedule", "in": ["cosine", "linear", "wsd"]}
            ),
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
            extra_json_schema=extra(_OPTIMIZER, advanced=True, shown_if=_ADAM),
        ),
    ] = 0.9
    beta2: Beta2 = 0.999
    momentum: Annotated[
        float,
        Meta(
            title="Momentum",
            ge=0,
            lt=1,
            description="sgd and muon only; usually 0.9 to 0.95.",
            extra_json_schema=extra(
                _OPTIMIZER, advanced=True, shown_if={"field": "optimizer.algorithm", "in": ["sgd", "muon"]}
            ),
        ),
    ] = 0.9
    eps: Annotated[
        float,
        Meta(
            title="Epsilon",
            gt=0,
            le=1e-2,
            description="Added to the denominator of AdamW's update.",
            extra_json_schema=extra(_OPTIMIZER, advanced=True, shown_if=_ADAM),
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
            description="Micro-batches per rank and optimizer step; raises the batch without more memory. A pipeline needs at least its ranks.",
            extra_json_schema=extra(_OPTIMIZER, "micro-batches", advanced=True),
        ),
    ] = 1
    ema_decay: EmaDecay = 0.0


NEEDS_WHOLE_MATRICES = frozenset({"adafactor", "muon", "adamw-8bit"})
"""Algorithms that work on whole matrices: no sharding and no tensor parallel with them."""
