"""The measures of a network that layouts, estimates and checks need, without loading any library or weight.

A new model's come from its spec, a published one's from its ``config.json``. What a config does not tell is 0 or empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from core.train.specs.adapter import AdapterSpec
from core.train.specs.model import ModelSpec

SPLITTABLE_FAMILIES = frozenset({"llama", "mistral", "qwen2", "qwen3"})
ADAPTED_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Linear layers of the splittable families."""
SPECIAL_TOKENS = ("<|end|>", "<|pad|>", "<|im_start|>", "<|im_end|>")
"""Of our own tokenizers: end of text, padding, and the marks of a chat's turns."""
BYTE_TOKENS = 256 + len(SPECIAL_TOKENS)
_AUTO_TARGETS = ("q_proj", "v_proj")
_ROUNDING = 8


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


def embedding_rows(tokens: int) -> int:
    """Return the rows of a new model's embedding: a multiple of 8, so that tensor-parallel ranks can share them."""
    return -(-tokens // _ROUNDING) * _ROUNDING


def mlp_width(spec: ModelSpec) -> int:
    """Return the MLP width of a new model: as given, or 8/3 of the hidden size (Touvron et al., 2023)."""
    return spec.intermediate or 64 * max(1, round(spec.hidden * 8 / 3 / 64))


def config_of_new(spec: ModelSpec, tokens: int) -> dict[str, Any]:
    """Return a new model's measures under the names of ``config.json``.

    Args:
        spec: Its measures.
        tokens: Tokens of its tokenizer.
    """
    return {
        "model_type": spec.architecture,
        "vocab_size": embedding_rows(tokens),
        "hidden_size": spec.hidden,
        "intermediate_size": mlp_width(spec),
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "num_key_value_heads": spec.key_value_heads or spec.heads,
        "head_dim": max(1, spec.hidden // spec.heads),
        "max_position_embeddings": spec.context,
        "tie_word_embeddings": spec.tied,
    }


def _integer(config: Mapping[str, Any], *names: str) -> int:
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return 0


def _linear_layers(config: Mapping[str, Any], shape: ModelShape) -> dict[str, tuple[int, int]]:
    """Return input and output width of the linear layers of one layer, by name."""
    head = _integer(config, "head_dim") or shape.hidden // max(shape.heads, 1)
    wide, narrow = shape.heads * head, shape.key_value_heads * head
    return {
        "q_proj": (shape.hidden, wide),
        "k_proj": (shape.hidden, narrow),
        "v_proj": (shape.hidden, narrow),
        "o_proj": (wide, shape.hidden),
        "gate_proj": (shape.hidden, shape.intermediate),
        "up_proj": (shape.hidden, shape.intermediate),
        "down_proj": (shape.intermediate, shape.hidden),
    }


def _parameters(config: Mapping[str, Any], shape: ModelShape) -> int:
    """Count the weights of a Llama-family model."""
    head = _integer(config, "head_dim") or shape.hidden // max(shape.heads, 1)
    layers = _linear_layers(config, shape)
    each = sum(inputs * outputs for inputs, outputs in layers.values()) + 2 * shape.hidden
    has_bias = bool(config.get("attention_bias"))
    if has_bias or shape.family == "qwen2":
        each += sum(layers[name][1] for name in ("q_proj", "k_proj", "v_proj"))
    if has_bias and shape.family != "qwen2":
        each += shape.hidden
    if config.get("mlp_bias"):
        each += 2 * shape.intermediate + shape.hidden
    if shape.family == "qwen3":
        each += 2 * head
    embeddings = shape.vocabulary * shape.hidden * (1 if shape.tied else 2)
    return embeddings + shape.layers * each + shape.hidden


def shape_of_config(config: Mapping[str, Any], *, parameters: int = 0) -> ModelShape:
    """Return the measures that a ``config.json`` tells.

    Args:
        config: Its content; also the older names (``n_embd``, ...) are understood.
        parameters: Weights counted elsewhere, such as in the headers of the weight files; used for other families.
    """
    family = str(config.get("model_type", ""))
    heads = _integer(config, "num_attention_heads", "n_head", "num_heads")
    shape = ModelShape(
        family=family,
        parameters=parameters,
        trained_parameters=parameters,
        layers=_integer(config, "num_hidden_layers", "n_layer", "num_layers"),
        hidden=_integer(config, "hidden_size", "n_embd", "d_model"),
        heads=heads,
        key_value_heads=_integer(config, "num_key_value_heads") or heads,
        intermediate=_integer(config, "intermediate_size", "n_inner", "ffn_dim"),
        vocabulary=_integer(config, "vocab_size"),
        tied=bool(config.get("tie_word_embeddings", family not in SPLITTABLE_FAMILIES)),
        context=_integer(config, "max_position_embeddings", "n_positions"),
        is_splittable=family in SPLITTABLE_FAMILIES,
    )
    if not shape.is_splittable:
        return shape
    counted = _parameters(config, shape)
    return replace(shape, parameters=counted, trained_parameters=counted)


def with_adapters(shape: ModelShape, config: Mapping[str, Any], adapter: AdapterSpec) -> ModelShape:
    """Return the measures with adapters added: a rank-r pair beside a layer has r x (inputs + outputs) weights."""
    if not adapter.has_adapters:
        return shape
    if not shape.is_splittable:
        return replace(shape, trained_parameters=0)
    layers = _linear_layers(config, shape)
    named = {"auto": _AUTO_TARGETS, "all-linear": tuple(layers)}
    targets = named.get(adapter.targets) or tuple(name.strip() for name in adapter.targets.split(","))
    each = sum(adapter.rank * sum(layers[name]) for name in targets if name in layers)
    trained = each * shape.layers
    return replace(shape, trained_parameters=trained, parameters=shape.parameters + trained)
