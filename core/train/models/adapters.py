"""Low-rank adapters (LoRA, QLoRA) by the peft library: put beside frozen weights, written, and merged.

Adapters are injected in place, so that the model's modules keep their names. Importing this module imports peft.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file

from core.contracts.errors import UserError
from core.train.specs.adapter import AdapterSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_NAME = "default"
_WEIGHTS = "adapter_model.safetensors"


def adapter_config(spec: AdapterSpec, base: str = "") -> LoraConfig:
    """Return peft's configuration; ``base`` is where the frozen model is, for who loads the adapters later."""
    targets: str | list[str] | None = [name.strip() for name in spec.targets.split(",") if name.strip()]
    if spec.targets in ("auto", "all-linear"):
        targets = None if spec.targets == "auto" else "all-linear"
    return LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,  # pyright: ignore[reportArgumentType] - a fraction is only ever divided by the rank
        lora_dropout=spec.dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
    )


def add_adapters(model: PreTrainedModel, spec: AdapterSpec, seed: int) -> LoraConfig:
    """Freeze a model and put adapters beside its layers, drawn from a seed; they change nothing until trained.

    Returns:
        The configuration with the target modules filled in.

    Raises:
        UserError: The model has no layer of these names.
    """
    config = adapter_config(spec)
    model.requires_grad_(requires_grad=False)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            inject_adapter_in_model(config, model, _NAME)
    except ValueError as error:
        raise UserError(
            f"No adapters can be put into this model: {str(error).partition(chr(10))[0]}",
            "Set adapter.targets to 'all-linear' or to names of its linear layers.",
        ) from error
    return config


def is_adapter(name: str) -> bool:
    """Tell the weights of adapters by their names."""
    return ".lora_" in name


def adapter_weights(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the adapters among a model's weights, by the names that peft loads them by."""
    return {
        f"base_model.model.{name.replace(f'.{_NAME}.', '.')}": tensor.contiguous()
        for name, tensor in weights.items()
        if is_adapter(name)
    }


def save_adapters(folder: Path, weights: Mapping[str, torch.Tensor], config: LoraConfig, base: str) -> None:
    """Write ``adapter_model.safetensors`` and ``adapter_config.json``, as ``peft.PeftModel.from_pretrained`` reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    config.base_model_name_or_path = base
    config.inference_mode = True
    config.save_pretrained(str(folder))
    save_file(adapter_weights(weights), folder / _WEIGHTS, metadata={"format": "pt"})


@torch.no_grad()
def merged_weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Add the adapters of a float32 model into its weights; return these by the names of the plain model."""
    for module in model.modules():
        if isinstance(module, LoraLayer):
            merge: Any = module.merge
            merge(safe_merge=True)
    return {
        name.replace(".base_layer.", "."): tensor for name, tensor in model.state_dict().items() if not is_adapter(name)
    }
