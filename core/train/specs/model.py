"""Where a language model comes from: built from these measures, a folder, an earlier run, or the Hugging Face Hub."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from core.train.fields import extra

_SECTION = "Model"
_IS_NEW: dict[str, object] = {"field": "model.source", "in": ["new"]}

NEW = "new"
PARENT = "parent"
BYTES = "bytes"
BPE = "bpe"

Architecture = Literal["llama", "mistral", "qwen2", "qwen3"]


def _shape(unit: str = "", *, advanced: bool = False) -> dict[str, object]:
    return {**extra(_SECTION, unit, advanced=advanced), "shown_if": _IS_NEW}


class ModelSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A causal language model and its tokenizer. The measures count for a new model only."""

    source: Annotated[
        str,
        Meta(
            title="Model",
            min_length=1,
            description=(
                "'new' builds one from the measures below; 'parent' takes that of the run this one builds on; else a folder "
                "in Hugging Face layout (beginning with / or ./), or a name on the Hub such as owner/model."
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
    tokenizer: Annotated[
        str,
        Meta(
            title="Tokenizer",
            description=(
                "Empty: the model's own (a new model reads bytes). 'bytes': one token a byte. 'bpe': byte-pair encoding "
                "trained on the data. Else a folder or a name on the Hub."
            ),
            extra_json_schema={**extra(_SECTION), "names": [BYTES, BPE]},
        ),
    ] = ""
    vocabulary: Annotated[
        int,
        Meta(
            title="Vocabulary",
            ge=512,
            le=1_000_000,
            description="Tokens of a 'bpe' tokenizer, special ones included.",
            extra_json_schema=extra(_SECTION, "tokens", advanced=True),
        ),
    ] = 4096
    architecture: Annotated[
        Architecture,
        Meta(
            title="Architecture",
            description="Llama: RMSNorm, rotary positions, SwiGLU; qwen2 adds biases to queries, keys and values, qwen3 norms.",
            extra_json_schema=_shape(advanced=True),
        ),
    ] = "llama"
    layers: Annotated[
        int, Meta(title="Layers", ge=1, le=512, description="Transformer layers.", extra_json_schema=_shape())
    ] = 4
    hidden: Annotated[
        int,
        Meta(
            title="Hidden size",
            ge=8,
            le=32_768,
            description="Width of the model, a multiple of twice the heads; 128 to 256 trains in minutes on a CPU.",
            extra_json_schema=_shape(),
        ),
    ] = 128
    heads: Annotated[
        int,
        Meta(title="Attention heads", ge=1, le=512, description="Heads per layer.", extra_json_schema=_shape()),
    ] = 4
    key_value_heads: Annotated[
        int,
        Meta(
            title="Key-value heads",
            ge=0,
            le=512,
            description="Fewer than the heads: grouped queries, a smaller cache; must divide them. 0: as many as heads.",
            extra_json_schema=_shape(advanced=True),
        ),
    ] = 0
    intermediate: Annotated[
        int,
        Meta(
            title="MLP width",
            ge=0,
            le=262_144,
            description="Width of the SwiGLU layers; 0: 8/3 of the hidden size, rounded to a multiple of 64.",
            extra_json_schema=_shape(advanced=True),
        ),
    ] = 0
    context: Annotated[
        int,
        Meta(
            title="Context",
            ge=8,
            le=10_000_000,
            description="Most tokens that the model looks at.",
            extra_json_schema=_shape("tokens"),
        ),
    ] = 128
    tied: Annotated[
        bool,
        Meta(
            title="Tied embeddings",
            description="Input and output embedding are one matrix; saves weights in small models.",
            extra_json_schema=_shape(advanced=True),
        ),
    ] = True
    rope_theta: Annotated[
        float,
        Meta(
            title="Rotary base",
            ge=100,
            le=1e9,
            description="Base of the rotary position embedding; larger for longer contexts.",
            extra_json_schema=_shape(advanced=True),
        ),
    ] = 10_000.0

    @property
    def is_new(self) -> bool:
        """It is built from the measures here."""
        return self.source == NEW

    @property
    def tokenizer_source(self) -> str:
        """What makes the tokenizer, the default of a new model filled in; empty: the model's own."""
        return self.tokenizer or (BYTES if self.is_new else "")
