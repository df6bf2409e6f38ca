"""Next-token prediction as the engine's task: model, tokenizer, loss, scores, samples, export.

What the engine asks is ``core.train.engine.contracts.TrainingTask``; models and files are in ``core.train.models``, data in
``core.train.data.text``. Importing this module imports torch and transformers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from core.contracts.errors import UserError
from core.contracts.events import Cell
from core.contracts.worker import RunContext
from core.train.engine.contracts import Batch, DataPart, Evaluation, Outcome
from core.train.language_export import LanguageExport
from core.train.models.adapters import add_adapters
from core.train.models.causal import load_causal, new_causal
from core.train.models.causal_flops import training_flops
from core.train.models.family import PlainCausal, check_packing
from core.train.models.generate import continue_text
from core.train.models.huggingface import check_generates, read_config
from core.train.models.losses import count_correct, summed_cross_entropy
from core.train.models.shape import ModelShape
from core.train.models.tokenizer import load_tokenizer, token_bytes
from core.train.parallel.decoder import DecoderLM

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from core.train.tasks.language import LanguageTrainingSpec

_SAMPLES_TABLE = "Samples"
_SHOWN_SAMPLES = 20
_PACKED = "segment_ids"


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageParts:
    """What a language task is made of.

    Attributes:
        folder: Files of the model that training begins with; None for a new one.
        config: Its configuration.
        shape: Its measures, adapters included.
        tokenizer: Its tokenizer.
        training: The training part.
        validation: The validation part, if any.
        length: Tokens of a sample.
    """

    folder: Path | None
    config: PreTrainedConfig
    shape: ModelShape
    tokenizer: PreTrainedTokenizerBase
    training: DataPart
    validation: DataPart | None
    length: int


def as_engine_model(causal: PreTrainedModel) -> nn.Module:
    """Return a transformers model as the engine runs it: logits from tokens, positions and documents."""
    family = causal.config.model_type
    if family in ("llama", "mistral", "qwen2", "qwen3"):
        return DecoderLM(causal)
    return PlainCausal(causal)


class LanguageTask:
    """The task of ``train.language``, the same on every rank."""

    unit = "tokens"

    def __init__(self, spec: LanguageTrainingSpec, context: RunContext, parts: LanguageParts) -> None:
        """Take the parts."""
        self._spec = spec
        self._context = context
        self._parts = parts
        self._token_bytes = torch.from_numpy(token_bytes(parts.tokenizer, int(parts.config.vocab_size)))
        self._is_chat = bool(spec.data.messages_field)
        self._samples: list[tuple[int, str]] = []

    def build_model(self) -> nn.Module:
        """Return the model, with adapters where asked for.

        Raises:
            UserError: It cannot be loaded, adapters do not fit, or packed documents would look at each other.
        """
        spec, parts = self._spec, self._parts
        if parts.folder is None:
            causal = new_causal(parts.config, spec.seed)
        else:
            causal = load_causal(parts.folder, four_bit=spec.adapter.mode == "qlora")
        if spec.adapter.has_adapters:
            add_adapters(causal, spec.adapter, spec.seed)
        model = as_engine_model(causal)
        if isinstance(model, PlainCausal) and spec.data.packing != "off":
            check_packing(model, int(parts.config.vocab_size), causal.config.model_type)
        return model

    def training(self) -> DataPart:
        """Return the training part."""
        return self._parts.training

    def validation(self) -> DataPart | None:
        """Return the validation part."""
        return self._parts.validation

    def count(self, batch: Batch) -> int:
        """Return the tokens that are to be predicted."""
        return int((batch["labels"] != -100).sum())

    def forward(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return the logits, shape (batch, length, vocabulary)."""
        return model(batch["input_ids"], batch.get("position_ids"), batch.get(_PACKED))

    def loss(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the sum of the cross entropies of the next tokens, in nats."""
        return summed_cross_entropy(output, batch["labels"])

    def score(self, output: torch.Tensor, batch: Batch) -> dict[str, float]:
        """Return summed loss, correct predictions, counted tokens and the bytes of text that these stand for."""
        labels = batch["labels"]
        counted = labels[labels != -100].cpu()
        return {
            "loss": float(summed_cross_entropy(output, labels)),
            "correct": float(count_correct(output, labels)),
            "tokens": float(counted.numel()),
            "bytes": float(self._token_bytes[counted].sum()),
        }

    def evaluation(self, sums: Mapping[str, float]) -> Evaluation:
        """Return loss per token (nats), perplexity, accuracy, and bits per byte, which compares any two tokenizers."""
        loss = sums["loss"] / max(sums["tokens"], 1.0)
        values = {
            "val/loss": loss,
            "val/perplexity": math.exp(min(loss, 700.0)),
            "val/token_accuracy": sums["correct"] / max(sums["tokens"], 1.0),
        }
        if sums["bytes"] > 0:
            values["val/bits_per_byte"] = sums["loss"] / math.log(2) / sums["bytes"]
        return Evaluation(values=values, score=(-loss,))

    def training_flops(self, units: int) -> float:
        """Return the model FLOPs of training on tokens; 0 when the number of weights is not known."""
        return training_flops(self._parts.shape, units, self._parts.length)

    def after_validation(self, model: nn.Module, step: int) -> None:
        """Write what the model makes of the prompt into the log and the table of samples."""
        if self._spec.generation.new_tokens == 0:
            return
        causal = cast("Any", model).causal
        was_training = model.training
        model.eval()
        text = self._continued(causal)
        model.train(was_training)
        self._context.log(f"Step {step}, the model continues {self._spec.generation.prompt!r}: {text}")
        self._show(step, text)

    def load_teacher(self, folder: Path) -> nn.Module:
        """Return a model to learn from, as ``forward`` runs it.

        Raises:
            UserError: It cannot be loaded, is no language model, or its tokens are others.
        """
        check_generates(folder, read_config(folder))
        if load_tokenizer(folder).get_vocab() != self._parts.tokenizer.get_vocab():
            raise UserError(
                f"The teacher {folder} has another tokenizer than this model.",
                "Choose a teacher with the same tokenizer, or set model.tokenizer to the teacher's folder.",
            )
        return as_engine_model(load_causal(folder))

    def finish(self, weights: Mapping[str, torch.Tensor], outcome: Outcome) -> None:
        """Write the model in Hugging Face layout and a sample; on rank 0."""
        parts, spec, context = self._parts, self._spec, self._context
        context.progress(0.5, "Writing the model")
        context.result({**outcome.best_values, "train_seconds": outcome.train_seconds})
        meta: dict[str, Cell] = {
            "parameters": parts.shape.parameters,
            "steps": outcome.steps,
            "best_step": outcome.best_step,
        }
        bits = outcome.best_values.get("val/bits_per_byte")
        if bits is not None:
            meta["bits_per_byte"] = bits
        export = LanguageExport(
            adapter=spec.adapter,
            folder=parts.folder,
            config=parts.config,
            tokenizer=parts.tokenizer,
            seed=spec.seed,
            is_chat=self._is_chat,
        )
        causal = export.write(weights, context, meta)
        if spec.generation.new_tokens > 0:
            text = self._continued(causal)
            self._show(outcome.best_step, text)
            sample = context.artifacts_dir / "sample.txt"
            sample.write_text(text, encoding="utf-8")
            context.artifact(sample, kind="text.sample")
            told = "" if bits is None else f"{bits:.3f} bits per byte on held-out text. "
            context.log(f"{told}The model continues {spec.generation.prompt!r}:")
            context.log(text)
        context.progress(1.0, "Done")

    def _continued(self, causal: PreTrainedModel) -> str:
        return continue_text(
            causal,
            self._parts.tokenizer,
            self._spec.generation,
            seed=self._spec.seed,
            is_chat=self._is_chat,
        )

    def _show(self, step: int, text: str) -> None:
        self._samples.append((step, text))
        self._context.table(_SAMPLES_TABLE, ["step", "text"], self._samples[-_SHOWN_SAMPLES:])
