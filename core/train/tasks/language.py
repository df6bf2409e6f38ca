"""``train.language``: trains or fine-tunes a causal language model on text or chats.

Fields and checks stand here and import no torch; learning is ``core.train.language_learning``, models and tokenizers
``core.train.models``, data ``core.train.data.text``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta

from core.contracts.errors import FieldProblem
from core.contracts.estimates import MemoryEstimate
from core.contracts.kinds import RunKind
from core.contracts.worker import RunContext
from core.settings.home import default_home
from core.train.checking import (
    check_distillation,
    check_parallel,
    check_space_of,
    ranks_of,
    room_of,
    train_on_ranks,
)
from core.train.data.checks import check_stream, check_text_data
from core.train.fields import extra
from core.train.language_checks import check_adapters, check_model, describe_model, row_length
from core.train.memory import NF4_WIDTH, estimate_memory
from core.train.specs.adapter import AdapterSpec
from core.train.specs.generation import GenerationSpec
from core.train.specs.model import ModelSpec
from core.train.specs.optimizer import Beta2, OptimizerSpec, WeightDecay
from core.train.specs.text_data import TextDataSpec
from core.train.specs.training import TrainingSpec


class LanguageOptimizerSpec(OptimizerSpec, frozen=True, kw_only=True):
    """The optimizer of language training: the faster second moment and stronger decay usual there."""

    beta2: Beta2 = 0.95
    weight_decay: WeightDecay = 0.1


class LanguageTrainingSpec(TrainingSpec, frozen=True, kw_only=True, tag="train.language"):
    """Train or fine-tune a causal language model."""

    data: Annotated[TextDataSpec, Meta(title="Data")] = TextDataSpec()
    model: Annotated[ModelSpec, Meta(title="Model")] = ModelSpec()
    adapter: Annotated[AdapterSpec, Meta(title="Trained weights")] = AdapterSpec()
    sequence_length: Annotated[
        int,
        Meta(
            title="Sequence length",
            ge=0,
            le=10_000_000,
            description="Tokens of a row; 0: what the model looks at, at most 2048.",
            extra_json_schema=extra("Training", "tokens", advanced=True),
        ),
    ] = 0
    generation: Annotated[GenerationSpec, Meta(title="Samples")] = GenerationSpec()
    optimizer: Annotated[LanguageOptimizerSpec, Meta(title="Optimizer")] = LanguageOptimizerSpec()


def _runs_dir() -> Path:
    return default_home() / "runs"


def check(spec: LanguageTrainingSpec) -> tuple[FieldProblem, ...]:
    """Look at text, model, tokenizer, adapters, layout, teacher and disk, and at how the fields fit together."""
    known = describe_model(spec, _runs_dir())
    return (
        *check_text_data(spec.data),
        *check_stream(spec.loading, spec.steps),
        *check_model(spec, known),
        *check_adapters(spec, known),
        *check_parallel(spec, known.shape, sequence_length=row_length(spec, known.shape)),
        *check_distillation(spec),
        *check_space_of(spec, known.shape),
    )


def room_bytes(spec: LanguageTrainingSpec) -> int | None:
    """Return the room that the checkpoints take; None where the model's size is not known yet."""
    shape = describe_model(spec, _runs_dir()).shape
    return None if shape is None else room_of(spec, shape)


def estimate(spec: LanguageTrainingSpec) -> MemoryEstimate | None:
    """Return what the fullest rank needs of its device's memory; None where the model's size is not known yet."""
    shape = describe_model(spec, _runs_dir()).shape
    if shape is None:
        return None
    nodes = max(1, len(spec.launch.hosts))
    length, frozen = row_length(spec, shape), NF4_WIDTH if spec.adapter.mode == "qlora" else 4.0
    return estimate_memory(spec, shape, sequence_length=length, nodes=nodes, frozen_width=frozen)


def _rank_run(spec: LanguageTrainingSpec, context: RunContext) -> None:
    """Train as one rank."""
    from core.train.language_parts import train_language

    train_language(spec, context)


KIND = RunKind(
    spec=LanguageTrainingSpec,
    title="Language model",
    summary="Trains a causal language model on text or chats, from nothing, whole or with adapters (LoRA, QLoRA).",
    group="train",
    icon="language",
    run=train_on_ranks,
    check=check,
    rank_run=_rank_run,
    ranks=ranks_of,
    spans_nodes=True,
    checkpoint_bytes=room_bytes,
    estimate=estimate,
    examples=("stdlib-lm.toml", "lm-2x2.toml", "chat.toml", "lora.toml"),
)
