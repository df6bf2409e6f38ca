"""``train.text-classifier``: trains or fine-tunes a model that puts texts into classes.

Fields and checks stand here and import no torch; learning is ``core.train.classify_learning``, models are
``core.train.models.text_classifier``, data ``core.train.data.labelled_text``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta

from core.contracts.errors import FieldProblem, PilothouseError
from core.contracts.estimates import MemoryEstimate
from core.contracts.kinds import RunKind
from core.contracts.worker import RunContext
from core.settings.home import default_home
from core.train.checking import (
    check_distillation,
    check_parallel,
    check_space_of,
    estimate_of,
    ranks_of,
    room_of,
    train_on_ranks,
)
from core.train.data.checks import check_stream, check_table_data
from core.train.fields import extra
from core.train.models.huggingface import check_weights, count_parameters, find_folder, read_config, token_count
from core.train.models.shape import ModelShape, shape_of_config
from core.train.specs.encoder import EncoderSpec
from core.train.specs.model import PARENT
from core.train.specs.optimizer import OptimizerSpec
from core.train.specs.table_data import TableDataSpec
from core.train.specs.training import Epochs, TrainingSpec, micro_batch_of

_TRAINING = "Training"
_MATRICES_PER_LAYER = 4


class ClassifierOptimizerSpec(OptimizerSpec, frozen=True, kw_only=True):
    """The optimizer of text classification: a lower rate, as fine-tuning needs."""

    lr: Annotated[
        float,
        Meta(
            title="Learning rate",
            gt=0,
            le=10,
            description="Highest learning rate; 1e-3 for a small new model, 2e-5 to 5e-5 for a published one.",
            extra_json_schema=extra("Optimizer"),
        ),
    ] = 1e-3


class TextClassifierSpec(TrainingSpec, frozen=True, kw_only=True, tag="train.text-classifier"):
    """Train a classifier of texts."""

    data: Annotated[TableDataSpec, Meta(title="Data")]
    model: Annotated[EncoderSpec, Meta(title="Model")] = EncoderSpec()
    epochs: Epochs = 3.0
    micro_batch: Annotated[int, micro_batch_of("texts")] = 16
    optimizer: Annotated[ClassifierOptimizerSpec, Meta(title="Optimizer")] = ClassifierOptimizerSpec()


def _folder_here(spec: TextClassifierSpec) -> Path:
    """Return the folder of the model's files where they are on this machine; asks nobody else."""
    return find_folder(
        spec.model.source,
        runs_dir=default_home() / "runs",
        parent=spec.parent,
        revision=spec.model.revision,
        download=False,
    )


def shape_of(spec: TextClassifierSpec) -> ModelShape | None:
    """Return the measures of the model; None where its files are not on this machine or not readable."""
    model = spec.model
    if not model.is_new:
        try:
            folder = _folder_here(spec)
            return shape_of_config(read_config(folder), parameters=count_parameters(folder))
        except PilothouseError:
            return None
    each = _MATRICES_PER_LAYER * model.hidden**2 + 2 * model.hidden * model.mlp_width
    count = (model.vocabulary + model.length) * model.hidden + model.layers * each
    return ModelShape(
        family="bert",
        parameters=count,
        trained_parameters=count,
        layers=model.layers,
        hidden=model.hidden,
        heads=model.heads,
        key_value_heads=model.heads,
        intermediate=model.mlp_width,
        vocabulary=model.vocabulary,
        context=model.length,
    )


def room_bytes(spec: TextClassifierSpec) -> int | None:
    """Return the room that the checkpoints take; None where the model's size is not known yet."""
    shape = shape_of(spec)
    return None if shape is None else room_of(spec, shape)


def estimate(spec: TextClassifierSpec) -> MemoryEstimate | None:
    """Return what the fullest rank needs of its device's memory; None where the model's size is not known yet."""
    shape = shape_of(spec)
    return None if shape is None else estimate_of(spec, shape, sequence_length=spec.model.length)


def _is_for_later(spec: TextClassifierSpec) -> bool:
    """A model of the Hub may be fetched when the run begins, one of a parent run may be on another machine."""
    return not spec.model.source.startswith((".", "/", "~")) and spec.model.source != PARENT


def _check_model(spec: TextClassifierSpec) -> list[FieldProblem]:
    model = spec.model
    if model.is_new:
        if model.hidden % model.heads == 0:
            return []
        message = f"{model.hidden} is no multiple of the {model.heads} heads."
        return [FieldProblem(field="model.hidden", message=message, hint="Choose a multiple of the attention heads.")]
    try:
        folder = _folder_here(spec)
    except PilothouseError as error:
        if _is_for_later(spec):
            return []
        return [FieldProblem(field="model.source", message=error.message, hint=error.hint)]
    try:
        config = read_config(folder)
        check_weights(folder, config)
        tokens = token_count(folder)
    except PilothouseError as error:
        return [FieldProblem(field="model.source", message=error.message, hint=error.hint)]
    shape = shape_of_config(config)
    problems: list[FieldProblem] = []
    if shape.vocabulary and tokens > shape.vocabulary:
        message = f"the tokenizer has {tokens:,} tokens, the model embeddings for {shape.vocabulary:,}."
        hint = "Use the tokenizer that the model was made with."
        problems.append(FieldProblem(field="model.source", message=message, hint=hint))
    if shape.context and model.length > shape.context:
        message = f"{model.length} tokens are more than the {shape.context} that the model looks at."
        problems.append(FieldProblem(field="model.length", message=message, hint="Lower the length."))
    return problems


def check(spec: TextClassifierSpec) -> tuple[FieldProblem, ...]:
    """Look at the table, the model, the layout, the teacher and the disk, and at how the fields fit together."""
    shape = shape_of(spec)
    return (
        *check_table_data(spec.data),
        *check_stream(spec.loading, spec.steps, can_stream=False),
        *_check_model(spec),
        *check_parallel(spec, shape or ModelShape(family="encoder"), sequence_length=spec.model.length),
        *check_distillation(spec),
        *check_space_of(spec, shape),
    )


def _rank_run(spec: TextClassifierSpec, context: RunContext) -> None:
    from core.train.classify_learning import train_texts

    train_texts(spec, context)


KIND = RunKind(
    spec=TextClassifierSpec,
    title="Text classifier",
    summary="Trains a model, new or published, to put texts into classes, and measures it on a held-out part.",
    group="train",
    icon="text",
    run=train_on_ranks,
    rank_run=_rank_run,
    ranks=ranks_of,
    spans_nodes=True,
    check=check,
    checkpoint_bytes=room_bytes,
    estimate=estimate,
    examples=("reviews.toml",),
)
