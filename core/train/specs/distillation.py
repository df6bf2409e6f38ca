"""Learning from a larger model, and penalties on the weights."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from core.train.fields import extra

_SECTION = "Distillation and penalties"
_TEACHER = {"field": "distillation.teacher", "filled": True}


class DistillationSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Knowledge distillation (Hinton et al., 2015): loss = (1 - weight) * task + weight * T^2 * KL(teacher || student)."""

    teacher: Annotated[
        str,
        Meta(
            title="Teacher",
            description="Folder (beginning with / or ./) of the model to learn from, or the id of the run that made it; empty: none.",
            extra_json_schema={**extra(_SECTION, advanced=True), "path": "folder", "or_name": True},
        ),
    ] = ""
    temperature: Annotated[
        float,
        Meta(
            title="Temperature",
            ge=0.1,
            le=100,
            description="Softens both distributions; usually 1 to 4.",
            extra_json_schema=extra(_SECTION, advanced=True, shown_if=_TEACHER),
        ),
    ] = 2.0
    weight: Annotated[
        float,
        Meta(
            title="Teacher's weight",
            ge=0,
            le=1,
            description="Share of the loss that comes from the teacher.",
            extra_json_schema=extra(_SECTION, advanced=True, shown_if=_TEACHER),
        ),
    ] = 0.5
    cache_logits: Annotated[
        bool,
        Meta(
            title="Keep the teacher's answers",
            description="Computes the teacher's outputs once and keeps them on disk; for data without augmentation.",
            extra_json_schema=extra(_SECTION, advanced=True, shown_if=_TEACHER),
        ),
    ] = False
    l1: Annotated[
        float,
        Meta(
            title="L1 penalty",
            ge=0,
            le=1,
            description="Added to the loss: this times the sum of absolute weights (matrices and kernels); makes weights sparse. Usually 1e-6 to 1e-4.",
            extra_json_schema=extra(_SECTION, advanced=True),
        ),
    ] = 0.0
