"""Writes a model as a folder in Hugging Face layout and loads weights into one without copying them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from accelerate import init_empty_weights
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from core.contracts.errors import UserError
from core.train.models.generate import generation_settings, stop_tokens

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_SHARD_SIZE = "4GB"


def model_around(config: PreTrainedConfig, weights: Mapping[str, torch.Tensor]) -> PreTrainedModel:
    """Return a transformers model that uses these very tensors as its weights, in evaluation mode.

    Args:
        config: The model's configuration.
        weights: All weights by their names; a tied output embedding may be left out.

    Raises:
        UserError: Some are missing.
    """
    with init_empty_weights(include_buffers=False):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    missing, _ = model.load_state_dict(dict(weights), strict=False, assign=True)
    model.tie_weights()
    lacking = [name for name, tensor in model.named_parameters() if tensor.is_meta]
    if lacking:
        raise UserError(f"{len(missing)} weights of the model are missing, such as {lacking[0]}.", "Train it again.")
    return model.eval()


def save_model(
    folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, generation: GenerationConfig | None = None
) -> None:
    """Write config, weights (in several files when large), tokenizer and the settings for generation.

    Args:
        folder: Made when it is not there.
        model: With all its weights.
        tokenizer: The model's.
        generation: Settings for generation; None: the tokenizer's end token ends a text.
    """
    transformers_logging.disable_progress_bar()
    folder.mkdir(parents=True, exist_ok=True)
    model.config.architectures = [type(model).__name__]
    model.generation_config = generation or generation_settings(tokenizer, stop_tokens(tokenizer, is_chat=False))
    model.save_pretrained(folder, max_shard_size=_SHARD_SIZE)
    tokenizer.save_pretrained(folder)
