"""Where a text classifier's model comes from: a new small encoder, a folder, an earlier run, or the Hugging Face Hub."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from core.train.fields import extra
from core.train.specs.model import NEW

_SECTION = "Model"
_IS_NEW: dict[str, object] = {"field": "model.source", "in": [NEW]}


def _shape(unit: str = "", *, advanced: bool = False) -> dict[str, object]:
    return extra(_SECTION, unit, advanced=advanced, shown_if=_IS_NEW)


class EncoderSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A text encoder with a classifying last layer. The measures count for a new one only."""

    source: Annotated[
        str,
        Meta(
            title="Model",
            min_length=1,
            description=(
                "'new' builds a small BERT-like one from the measures below; 'parent' takes that of the run this one builds "
                "on; else a folder in Hugging Face layout (beginning with / or ./), or a name on the Hub."
            ),
            extra_json_schema={**extra(_SECTION), "path": "folder", "or_name": True},
        ),
    ] = NEW
    revision: Annotated[
        str,
        Meta(
            title="Revision",
            description="Branch, tag or commit on the Hub; empty: its main branch.",
            extra_json_schema=extra(_SECTION, advanced=True),
        ),
    ] = ""
    length: Annotated[
        int,
        Meta(
            title="Length",
            ge=4,
            le=131_072,
            description="Longer texts are cut to this many tokens.",
            extra_json_schema=extra(_SECTION, "tokens"),
        ),
    ] = 128
    vocabulary: Annotated[
        int,
        Meta(
            title="Vocabulary",
            ge=512,
            le=1_000_000,
            description="Most tokens of the byte-pair encoding that is made from the training texts.",
            extra_json_schema=_shape("tokens", advanced=True),
        ),
    ] = 4096
    layers: Annotated[
        int, Meta(title="Layers", ge=1, le=128, description="Transformer layers.", extra_json_schema=_shape())
    ] = 2
    hidden: Annotated[
        int,
        Meta(
            title="Hidden size",
            ge=8,
            le=16_384,
            description="Width of the model, a multiple of the heads; 64 to 256 trains in minutes on a CPU.",
            extra_json_schema=_shape(),
        ),
    ] = 64
    heads: Annotated[
        int,
        Meta(title="Attention heads", ge=1, le=256, description="Heads per layer.", extra_json_schema=_shape()),
    ] = 4
    intermediate: Annotated[
        int,
        Meta(
            title="MLP width",
            ge=0,
            le=131_072,
            description="Width of the layers' MLP; 0: four times the hidden size.",
            extra_json_schema=_shape(advanced=True),
        ),
    ] = 0
    dropout: Annotated[
        float,
        Meta(
            title="Dropout",
            ge=0,
            le=0.9,
            description="Share of values dropped while training.",
            extra_json_schema=_shape(advanced=True),
        ),
    ] = 0.1

    @property
    def is_new(self) -> bool:
        """It is built from the measures here."""
        return self.source == NEW

    @property
    def mlp_width(self) -> int:
        """Width of the MLP of a new model."""
        return self.intermediate or 4 * self.hidden
