"""Builds causal language models with the transformers library: new ones from a spec, published ones from a folder.

Weights are float32 on the CPU (under QLoRA the frozen ones are 4-bit), the same on every rank. Layouts over ranks and
training are elsewhere. Importing this module imports transformers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig
from transformers.utils import logging as transformers_logging

from core.contracts.errors import EnvironmentProblem, UserError
from core.train.models.huggingface import SAFE_LOADING, check_generates, check_weights, read_config
from core.train.models.shape import config_of_new
from core.train.specs.model import ModelSpec

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_DEVIATION = 0.02
_RESIDUAL_OUTPUTS = ("o_proj.weight", "down_proj.weight")


def new_config(spec: ModelSpec, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    """Return the configuration of a new model for a tokenizer."""
    measures = config_of_new(spec, len(tokenizer))
    return AutoConfig.for_model(
        measures.pop("model_type"),
        **measures,
        rope_parameters={"rope_type": "default", "rope_theta": spec.rope_theta},
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def new_causal(config: PreTrainedConfig, seed: int) -> PreTrainedModel:
    """Return a model with weights drawn from a seed; the global random state is left as it was.

    Matrices are normal with deviation 0.02, those that write into the residual stream with 0.02 / sqrt(2 x layers), as in
    GPT-2 (Radford et al., 2019).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            config, dtype=torch.float32, attn_implementation="sdpa"
        )
        for name, parameter in model.named_parameters():
            if name.endswith(_RESIDUAL_OUTPUTS):
                nn.init.normal_(parameter, std=_DEVIATION / math.sqrt(2 * config.num_hidden_layers))
    return model


def load_causal(folder: Path, *, four_bit: bool = False) -> PreTrainedModel:
    """Return the model of a folder.

    Args:
        folder: In Hugging Face layout with safetensors weights.
        four_bit: Keep the linear layers in 4-bit NormalFloat, constants quantized too (Dettmers et al., 2023).

    Raises:
        UserError: No weights, damaged or foreign ones, or an architecture that is unknown or no causal language model.
        EnvironmentProblem: 4-bit weights do not work on this machine.
    """
    config = read_config(folder)
    check_generates(folder, config)
    check_weights(folder, config)
    transformers_logging.disable_progress_bar()
    options: dict[str, Any] = {}
    if four_bit:
        options = {"quantization_config": _four_bit_config(), "device_map": {"": "cpu"}}
    try:
        load: Any = AutoModelForCausalLM.from_pretrained
        model, report = load(
            folder,
            dtype=torch.float32,
            attn_implementation="sdpa",
            output_loading_info=True,
            **SAFE_LOADING,
            **options,
        )
    except ImportError as error:
        raise EnvironmentProblem(
            f"{folder} cannot be loaded: {_first_line(error)}", "Install the library that it names."
        ) from error
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(
            f"{folder} cannot be loaded as a causal language model: {_first_line(error)}",
            "Use the folder of a decoder model in Hugging Face layout, or get its files again.",
        ) from error
    _refuse_incomplete(folder, report)
    return model


def _four_bit_config() -> BitsAndBytesConfig:
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32 if not torch.cuda.is_available() else torch.bfloat16,
    )


def _refuse_incomplete(folder: Path, report: Mapping[str, Any]) -> None:
    """Refuse weights that would be drawn at random because the files lack them."""
    missing = sorted(report.get("missing_keys", ()))
    mismatched = sorted(str(entry[0]) for entry in report.get("mismatched_keys", ()))
    wrong = [*missing, *mismatched]
    if wrong:
        raise UserError(
            f"The weights in {folder} do not belong to its config.json: {len(wrong)} are missing or of another shape, "
            f"such as {wrong[0]}.",
            "Get the model's files again.",
        )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
