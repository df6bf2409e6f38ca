"""What a language training leaves: a whole model in Hugging Face layout, or its adapters.

Importing this module imports torch and transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import GenerationConfig

from core.contracts.events import Cell
from core.contracts.worker import RunContext
from core.train.models.adapters import add_adapters, is_adapter, merged_weights, save_adapters
from core.train.models.causal import load_causal
from core.train.models.export_hf import model_around, save_model
from core.train.models.generate import generation_settings, stop_tokens
from core.train.models.huggingface import MODEL_KIND
from core.train.specs.adapter import AdapterSpec

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

ADAPTER_KIND = "model.adapter"
_PLAIN_PREFIX = "causal."
_GENERATION = "generation_config.json"


@dataclass(frozen=True, slots=True)
class LanguageExport:
    """Writes the end of a language training.

    Attributes:
        adapter: What was trained.
        folder: The model that training began with; None for a new one.
        config: The model's configuration.
        tokenizer: Its tokenizer.
        seed: The spec's.
        is_chat: It was trained on chats.
    """

    adapter: AdapterSpec
    folder: Path | None
    config: PreTrainedConfig
    tokenizer: PreTrainedTokenizerBase
    seed: int
    is_chat: bool

    def write(
        self, weights: Mapping[str, torch.Tensor], context: RunContext, meta: Mapping[str, Cell]
    ) -> PreTrainedModel:
        """Write and register the result; return the whole model that it stands for, in evaluation mode.

        Args:
            weights: All weights on the CPU, by the names of the engine's model.
            context: The run.
            meta: Goes with the artifact.
        """
        plain = {name.removeprefix(_PLAIN_PREFIX): tensor for name, tensor in weights.items()}
        if not self.adapter.has_adapters:
            return self._write_whole(plain, context, meta)
        adapted, config = self._adapted(plain)
        if self.adapter.merge:
            return self._write_whole(merged_weights(adapted), context, meta)
        path = context.artifacts_dir / "adapter"
        save_adapters(path, plain, config, str(self.folder))
        self.tokenizer.save_pretrained(path)
        context.artifact(path, kind=ADAPTER_KIND, meta=meta)
        return adapted.eval()

    def _write_whole(
        self, weights: Mapping[str, torch.Tensor], context: RunContext, meta: Mapping[str, Cell]
    ) -> PreTrainedModel:
        model = model_around(self.config, weights)
        path = context.artifacts_dir / "model"
        save_model(path, model, self.tokenizer, self._generation())
        context.artifact(path, kind=MODEL_KIND, meta=meta)
        return model

    def _generation(self) -> GenerationConfig:
        """Return the settings for generation: those that came with the model, and what ends a text or a turn."""
        stops = stop_tokens(self.tokenizer, is_chat=self.is_chat)
        if self.folder is None or not (self.folder / _GENERATION).is_file():
            return generation_settings(self.tokenizer, stops)
        settings = GenerationConfig.from_pretrained(self.folder, local_files_only=True)
        own = settings.eos_token_id
        ends = own if isinstance(own, list) else [] if own is None else [own]
        if self.is_chat and not set(stops) <= set(ends):
            settings.eos_token_id = [*ends, *(number for number in stops if number not in ends)]
        return settings

    def _adapted(self, weights: Mapping[str, torch.Tensor]) -> tuple[PreTrainedModel, LoraConfig]:
        """Return the float32 model with the trained adapters, also where training kept it in 4 bits."""
        assert self.folder is not None, "adapters are trained beside the weights of a model that exists"
        model = load_causal(self.folder)
        config = add_adapters(model, self.adapter, self.seed)
        model.load_state_dict({name: tensor for name, tensor in weights.items() if is_adapter(name)}, strict=False)
        return model, config
