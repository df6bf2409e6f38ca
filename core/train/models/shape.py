"""The measures of a network that layouts, estimates and checks need, without loading any library or weight."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """Measures of a network.

    Attributes:
        family: Architecture name as Hugging Face writes it (``llama``, ``qwen2``, ...), or our own (``image``, ``custom``).
        parameters: Number of weights, all of them; 0 when not known.
        trained_parameters: Number of weights that are trained (fewer with adapters); 0 when not known.
        layers: Decoder or encoder layers; 0 where there are none.
        hidden: Width of the residual stream.
        heads: Attention heads.
        key_value_heads: Heads of keys and values (fewer than ``heads`` with grouped queries).
        intermediate: Width of the MLP.
        vocabulary: Rows of the embedding.
        tied: Input and output embedding are one weight.
        context: Longest sequence.
        is_splittable: Tensor, pipeline and context parallel layouts know its layers.
    """

    family: str
    parameters: int = 0
    trained_parameters: int = 0
    layers: int = 0
    hidden: int = 0
    heads: int = 0
    key_value_heads: int = 0
    intermediate: int = 0
    vocabulary: int = 0
    tied: bool = False
    context: int = 0
    is_splittable: bool = False
