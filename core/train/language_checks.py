"""What can be refused of a language training before it starts: model, tokenizer, adapters; every problem at once.

Reads JSON and file headers of models that are on this machine; asks no network, imports no torch, never raises.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from core.contracts.errors import EnvironmentProblem, FieldProblem, UserError
from core.train.models.huggingface import (
    check_generates,
    check_weights,
    count_parameters,
    find_folder,
    read_config,
    token_count,
)
from core.train.models.shape import (
    ADAPTED_LAYERS,
    BYTE_TOKENS,
    SPLITTABLE_FAMILIES,
    ModelShape,
    config_of_new,
    shape_of_config,
    with_adapters,
)
from core.train.specs.model import BPE, BYTES, ModelSpec

if TYPE_CHECKING:
    from core.train.tasks.language import LanguageTrainingSpec

_LONGEST_ROW = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownModel:
    """What is known of a spec's model without a library.

    Attributes:
        shape: Its measures, adapters included; None when its files are not on this machine yet.
        tokens: Tokens of its tokenizer; 0 when not known.
        problems: Why its files cannot be used.
    """

    shape: ModelShape | None
    tokens: int = 0
    problems: tuple[FieldProblem, ...] = ()


def row_length(spec: LanguageTrainingSpec, shape: ModelShape | None) -> int:
    """Return the tokens of a row: as asked, or the model's context, at most 2048."""
    context = shape.context if shape is not None else 0
    return spec.sequence_length or min(context or _LONGEST_ROW, _LONGEST_ROW)


def describe_model(spec: LanguageTrainingSpec, runs_dir: Path) -> KnownModel:
    """Find out what there is to know of a spec's model."""
    try:
        return _described(spec, runs_dir)
    except UserError as error:
        return KnownModel(shape=None, problems=(_problem("model.source", error.message, error.hint),))
    except EnvironmentProblem as error:
        if not os.environ.get("HF_HUB_OFFLINE"):
            return KnownModel(shape=None)
        return KnownModel(shape=None, problems=(_problem("model.source", error.message, error.hint),))
    except OSError as error:
        message = f"its files cannot be read: {error.strerror}."
        return KnownModel(shape=None, problems=(_problem("model.source", message, "Check the disk."),))


def _described(spec: LanguageTrainingSpec, runs_dir: Path) -> KnownModel:
    model = spec.model
    if model.is_new:
        tokens = _tokens_of(model, runs_dir, spec.parent)
        config = config_of_new(model, tokens or model.vocabulary)
        parameters = 0
    else:
        folder = find_folder(
            model.source, runs_dir=runs_dir, parent=spec.parent, revision=model.revision, download=False
        )
        config = read_config(folder)
        check_generates(folder, config)
        check_weights(folder, config)
        parameters = count_parameters(folder)
        tokens = _tokens_of(model, runs_dir, spec.parent) if model.tokenizer else token_count(folder)
    shape = shape_of_config(config, parameters=parameters)
    return KnownModel(shape=with_adapters(shape, config, spec.adapter), tokens=tokens)


def _tokens_of(model: ModelSpec, runs_dir: Path, parent: str) -> int:
    named = {BYTES: BYTE_TOKENS, BPE: model.vocabulary}
    source = model.tokenizer_source
    if source in named:
        return named[source]
    return token_count(find_folder(source, runs_dir=runs_dir, parent=parent, download=False))


def check_model(spec: LanguageTrainingSpec, known: KnownModel) -> tuple[FieldProblem, ...]:
    """Return what is wrong with model, tokenizer and sequence length."""
    problems = [*known.problems, *(_check_measures(spec.model) if spec.model.is_new else ())]
    problems += _check_tokenizer(spec, known)
    context = known.shape.context if known.shape is not None else 0
    if context and spec.sequence_length > context:
        message = f"rows of {spec.sequence_length} tokens are longer than the {context} that the model looks at."
        problems.append(_problem("sequence_length", message, f"Use at most {context}."))
    return tuple(problems)


def _check_measures(model: ModelSpec) -> Iterator[FieldProblem]:
    if model.hidden % (2 * model.heads) != 0:
        message = f"{model.hidden} cannot be shared among {model.heads} heads of even width."
        yield _problem("model.hidden", message, f"Use a multiple of {2 * model.heads}.")
    if model.key_value_heads and model.heads % model.key_value_heads != 0:
        message = f"{model.heads} heads cannot share {model.key_value_heads} key-value heads evenly."
        yield _problem("model.key_value_heads", message, "Use a divisor of the heads.")


def _check_tokenizer(spec: LanguageTrainingSpec, known: KnownModel) -> Iterator[FieldProblem]:
    model = spec.model
    if not model.is_new and model.tokenizer in (BYTES, BPE):
        message = "a model that exists has learned the tokens of its own tokenizer."
        yield _problem("model.tokenizer", message, "Leave it empty, or build a new model.")
        return
    rows = known.shape.vocabulary if known.shape is not None else 0
    if rows and known.tokens > rows:
        message = f"the tokenizer has {known.tokens:,} tokens, the model embeddings for {rows:,} only."
        yield _problem("model.tokenizer", message, "Use the tokenizer that the model was made with.")


def check_adapters(spec: LanguageTrainingSpec, known: KnownModel) -> tuple[FieldProblem, ...]:
    """Return what is wrong with the adapters; nothing without."""
    return tuple(_adapter_problems(spec, known)) if spec.adapter.has_adapters else ()


def _adapter_problems(spec: LanguageTrainingSpec, known: KnownModel) -> Iterator[FieldProblem]:
    if spec.model.is_new:
        message = "a new model has nothing that adapters could build on: all its weights are random."
        yield _problem("adapter.mode", message, "Choose 'full', or a model that was trained.")
    if spec.parallel.model_ranks > 1:
        message = "adapters cannot be split by tensor, pipeline or context parallel."
        yield _problem("adapter.mode", message, "Set these degrees to 1; data ranks work.")
    if spec.adapter.mode == "qlora" and spec.parallel.sharding != "none":
        message = "4-bit weights cannot be sharded."
        yield _problem("parallel.sharding", message, "Set sharding to none, or use lora.")
    named = [name.strip() for name in spec.adapter.targets.split(",")]
    unknown = [name for name in named if name not in ADAPTED_LAYERS]
    is_named = spec.adapter.targets not in ("auto", "all-linear")
    if is_named and unknown and known.shape is not None and known.shape.family in SPLITTABLE_FAMILIES:
        message = f"the model has no layer {unknown[0]}."
        yield _problem("adapter.targets", message, f"Choose from {', '.join(ADAPTED_LAYERS)}.")


def _problem(field: str, message: str, hint: str) -> FieldProblem:
    return FieldProblem(field=field, message=message, hint=hint)
