"""Which weights of a model are trained: all of them, or low-rank adapters beside frozen ones."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from core.train.fields import extra

_SECTION = "Trained weights"
_WITH_ADAPTERS: dict[str, object] = {"field": "adapter.mode", "in": ["lora", "qlora"]}


def _lora(unit: str = "", *, advanced: bool = False) -> dict[str, object]:
    return {**extra(_SECTION, unit, advanced=advanced), "shown_if": _WITH_ADAPTERS}


class AdapterSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Full training, LoRA (Hu et al., 2021) or QLoRA (Dettmers et al., 2023)."""

    mode: Annotated[
        Literal["full", "lora", "qlora"],
        Meta(
            title="Trained weights",
            description=(
                "full: every weight. lora: small matrices beside frozen weights, for little memory. qlora: the frozen "
                "weights are kept in 4 bits besides."
            ),
            extra_json_schema=extra(_SECTION),
        ),
    ] = "full"
    rank: Annotated[
        int,
        Meta(
            title="Adapter rank",
            ge=1,
            le=1024,
            description="Inner width of the adapters; usually 8 to 64.",
            extra_json_schema=_lora(),
        ),
    ] = 8
    alpha: Annotated[
        float,
        Meta(
            title="Adapter alpha",
            gt=0,
            le=4096,
            description="The adapters' output is scaled by alpha / rank; usually one or two times the rank.",
            extra_json_schema=_lora(),
        ),
    ] = 16.0
    dropout: Annotated[
        float,
        Meta(
            title="Adapter dropout",
            ge=0,
            lt=1,
            description="Share of the adapters' inputs that is dropped in training; 0 to 0.1.",
            extra_json_schema=_lora(advanced=True),
        ),
    ] = 0.0
    targets: Annotated[
        str,
        Meta(
            title="Adapted layers",
            min_length=1,
            description=(
                "auto: queries and values, or what is usual for the architecture; all-linear: every linear layer but the "
                "output; or names separated by commas, such as q_proj,v_proj."
            ),
            extra_json_schema=_lora(advanced=True),
        ),
    ] = "auto"
    merge: Annotated[
        bool,
        Meta(
            title="Merge",
            description="Adds the trained adapters into the weights and writes a whole model instead of the adapters.",
            extra_json_schema=_lora(),
        ),
    ] = False

    @property
    def has_adapters(self) -> bool:
        """Weights of the model stay frozen, adapters are trained."""
        return self.mode != "full"
