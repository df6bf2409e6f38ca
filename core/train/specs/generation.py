"""The sample that a language model writes after validations and at the end."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from core.train.fields import extra

_SECTION = "Samples"


class GenerationSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the model is asked to continue."""

    prompt: Annotated[
        str,
        Meta(
            title="Prompt",
            description="The model continues this text after each validation; of a chat model, the user's turn.",
            extra_json_schema=extra(_SECTION),
        ),
    ] = "def "
    new_tokens: Annotated[
        int,
        Meta(
            title="Sample length",
            ge=0,
            le=100_000,
            description="Tokens that are drawn at most; 0 writes no samples.",
            extra_json_schema=extra(_SECTION, "tokens", advanced=True),
        ),
    ] = 200
    temperature: Annotated[
        float,
        Meta(
            title="Sampling temperature",
            ge=0,
            le=5,
            description="Lower is more cautious, 0 takes the likeliest token; 0.7 to 1 is usual.",
            extra_json_schema=extra(_SECTION, advanced=True),
        ),
    ] = 0.7
