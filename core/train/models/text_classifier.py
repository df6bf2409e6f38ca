"""Text classifiers of the transformers library: a new small encoder with its tokenizer, or a published model.

Weights are float32 on the CPU, the same on every rank. Files are found by ``core.train.models.huggingface``; exporting is
``core.train.models.text_export``. Importing this module imports transformers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import processors
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification
from transformers.utils import logging as transformers_logging

from core.contracts.errors import EnvironmentProblem, UserError
from core.train.models.huggingface import SAFE_LOADING, check_weights, read_config
from core.train.models.tokenizer import bpe_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

    from core.train.specs.encoder import EncoderSpec

_FIRST, _LAST = "[CLS]", "[SEP]"
_ENDS = (_FIRST, _LAST)
_FRESH_PARTS = ("classifier", "score", "pooler", "pre_classifier", "classification_head", "head")


def encoder_tokenizer(texts: Iterable[str], vocabulary: int, length: int) -> PreTrainedTokenizerFast:
    """Return a byte-pair encoding made from texts that puts a first and a last token around each text, as BERT's does.

    Word pieces would be more usual, but their trainer in the tokenizers library breaks ties at random, and every rank must
    make the same tokenizer.

    Args:
        texts: Of the training part.
        vocabulary: Most tokens, the 256 bytes and the special ones included.
        length: Most tokens of a text; kept for those who use the model later.
    """
    tokenizer = bpe_tokenizer(texts, vocabulary - len(_ENDS))
    tokenizer.add_special_tokens({"cls_token": _FIRST, "sep_token": _LAST})
    vocabulary_ids = tokenizer.get_vocab()
    ends = [(token, vocabulary_ids[token]) for token in _ENDS]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{_FIRST} $A {_LAST}", pair=f"{_FIRST} $A {_LAST} $B:1 {_LAST}:1", special_tokens=ends
    )
    tokenizer.chat_template = None
    tokenizer.model_max_length = length
    return tokenizer


def _labels(classes: Sequence[str]) -> dict[str, Any]:
    return {
        "num_labels": len(classes),
        "id2label": dict(enumerate(classes)),
        "label2id": {name: number for number, name in enumerate(classes)},
        "problem_type": "single_label_classification",
    }


def new_config(spec: EncoderSpec, tokenizer: PreTrainedTokenizerBase, classes: Sequence[str]) -> PreTrainedConfig:
    """Return the configuration of a new BERT-like model."""
    return AutoConfig.for_model(
        "bert",
        vocab_size=len(tokenizer),
        hidden_size=spec.hidden,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        intermediate_size=spec.mlp_width,
        max_position_embeddings=spec.length,
        hidden_dropout_prob=spec.dropout,
        attention_probs_dropout_prob=spec.dropout,
        # BERT's 0.02 suits a width of 768; in narrow models it leaves the attention flat for most of a short training.
        initializer_range=1.0 / math.sqrt(spec.hidden),
        pad_token_id=tokenizer.pad_token_id,
        **_labels(classes),
    )


def classifier_of(config: PreTrainedConfig, seed: int) -> PreTrainedModel:
    """Return a model of a configuration with weights drawn from a seed; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return AutoModelForSequenceClassification.from_config(config, dtype=torch.float32, attn_implementation="sdpa")


def load_classifier(
    folder: Path, *, seed: int, classes: Sequence[str] = (), pad_token: int | None = None
) -> PreTrainedModel:
    """Return the model of a folder with a last layer for the classes; one that it lacks is drawn from the seed.

    Args:
        folder: In Hugging Face layout with safetensors weights.
        seed: For what the files lack.
        classes: Names of the classes; none: those that the model has, whose last layer must then be there.
        pad_token: Id that fills rows up, for models whose configuration names none.

    Raises:
        UserError: No weights, damaged or foreign ones, or an architecture that cannot classify texts.
        EnvironmentProblem: A library that it needs is missing.
    """
    content = read_config(folder)
    check_weights(folder, content)
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    options = _labels(classes) if classes else {}
    if pad_token is not None and content.get("pad_token_id") is None:
        options["pad_token_id"] = pad_token
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            model, report = AutoModelForSequenceClassification.from_pretrained(
                folder,
                dtype=torch.float32,
                attn_implementation="sdpa",
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **SAFE_LOADING,
                **options,
            )
    except ImportError as error:
        raise EnvironmentProblem(f"{folder} cannot be loaded: {error}", "Install the library that it names.") from error
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        first = str(error).strip().partition("\n")[0]
        raise UserError(
            f"{folder} cannot be loaded as a text classifier: {first}",
            "Use the folder of an encoder or decoder model in Hugging Face layout, or get its files again.",
        ) from error
    _refuse_incomplete(folder, report, can_be_fresh=bool(classes))
    return model


def _refuse_incomplete(folder: Path, report: Mapping[str, Any], *, can_be_fresh: bool) -> None:
    """Refuse weights that would be drawn at random because the files lack them, the last layers' aside."""
    lacking = sorted({*report.get("missing_keys", ()), *(str(entry[0]) for entry in report.get("mismatched_keys", ()))})
    wrong = [name for name in lacking if not (can_be_fresh and any(part in _FRESH_PARTS for part in name.split(".")))]
    if wrong:
        raise UserError(
            f"The weights in {folder} do not belong to its config.json: {len(wrong)} are missing or of another shape, "
            f"such as {wrong[0]}.",
            "Get the model's files again.",
        )


class TextLogits(nn.Module):
    """A text classifier of transformers as a plain function of two tensors."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return logits, shape (batch, classes), for int64 tensors of shape (batch, length)."""
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits
