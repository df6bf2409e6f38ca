"""Arithmetic and memory of the passes: loss scaling, recomputation, compilation."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from core.train.fields import extra

_SECTION = "Precision and memory"
_FP16 = {"field": "precision", "in": ["fp16"]}

Precision = Annotated[
    Literal["fp32", "tf32", "bf16", "fp16", "fp8"],
    Meta(
        title="Precision",
        description=(
            "Arithmetic of the passes; weights stay float32. tf32 and fp8 need a GPU that has them; fp16 scales the loss."
        ),
        extra_json_schema=extra(_SECTION, advanced=True),
    ),
]


class ComputeSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the passes are computed."""

    activation_checkpointing: Annotated[
        Literal["none", "selective", "full"],
        Meta(
            title="Activation checkpointing",
            description=(
                "Recomputes activations in the backward pass instead of keeping them: full for every layer (about a "
                "third more time), selective keeps the outputs of matrix products."
            ),
            extra_json_schema=extra(_SECTION, advanced=True),
        ),
    ] = "none"
    compile: Annotated[
        bool,
        Meta(
            title="Compile",
            description="torch.compile of each layer; where it fails the run goes on without it and says so.",
            extra_json_schema=extra(_SECTION, advanced=True),
        ),
    ] = False
    initial_loss_scale: Annotated[
        float,
        Meta(
            title="First loss scale",
            ge=1,
            le=2.0**32,
            description="fp16 only: the loss is multiplied by this; halved at an overflow.",
            extra_json_schema=extra(_SECTION, advanced=True, shown_if=_FP16),
        ),
    ] = 65536.0
    loss_scale_growth_steps: Annotated[
        int,
        Meta(
            title="Loss scale growth",
            ge=1,
            le=10**9,
            description="fp16 only: steps without overflow after which the loss scale is doubled.",
            extra_json_schema=extra(_SECTION, "steps", advanced=True, shown_if=_FP16),
        ),
    ] = 2000
