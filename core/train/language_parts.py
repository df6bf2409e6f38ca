"""Puts a language training together on a rank: files, tokenizer, data, task; then trains.

Importing this module imports torch and transformers.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from transformers import AutoConfig, PreTrainedTokenizerFast

from core.contracts.errors import UserError
from core.contracts.worker import RunContext
from core.train.data.documents import document_files
from core.train.data.text import language_parts
from core.train.data.tokens import Made, key_of, made_once
from core.train.engine.contracts import Mesh, TrainingTask
from core.train.engine.train import train
from core.train.language_checks import row_length
from core.train.language_learning import LanguageParts, LanguageTask
from core.train.models.causal import new_config
from core.train.models.huggingface import count_parameters, find_folder, read_config
from core.train.models.shape import config_of_new, shape_of_config, with_adapters
from core.train.models.tokenizer import bpe_tokenizer, byte_tokenizer, check_fits, load_tokenizer
from core.train.specs.model import BPE, BYTES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from core.train.tasks.language import LanguageTrainingSpec

_CACHE = "cache/tokens"


def train_language(spec: LanguageTrainingSpec, context: RunContext) -> None:
    """Train as one rank.

    Raises:
        UserError: Model, tokenizer or data cannot be used as asked.
        EnvironmentProblem: Something of this machine is missing.
    """

    def make_task(mesh: Mesh, context: RunContext) -> TrainingTask:
        return LanguageTask(spec, context, make_parts(spec, mesh, context))

    train(spec, context, make_task)


def make_parts(spec: LanguageTrainingSpec, mesh: Mesh, context: RunContext) -> LanguageParts:
    """Return what the task is made of; files that are not here yet are fetched or made, by one rank of each machine."""
    model = spec.model
    folder = None
    if not model.is_new:
        if mesh.is_main:
            context.progress(0.0, "Fetching the model")
        runs_dir = context.home / "runs"
        folder = find_folder(model.source, runs_dir=runs_dir, parent=spec.parent, revision=model.revision)
    tokenizer = _tokenizer(spec, folder, context)
    if folder is None:
        config, measures, parameters = new_config(model, tokenizer), config_of_new(model, len(tokenizer)), 0
    else:
        config, measures = AutoConfig.from_pretrained(folder, local_files_only=True), read_config(folder)
        parameters = count_parameters(folder)
    check_fits(tokenizer, int(config.vocab_size), "the model")
    shape = with_adapters(shape_of_config(measures, parameters=parameters), measures, spec.adapter)
    length = row_length(spec, shape)
    if shape.context and length > shape.context:
        raise UserError(f"Rows of {length} tokens are longer than the {shape.context} that the model looks at.")
    training, validation = language_parts(
        spec.data,
        tokenizer,
        length=length,
        cache=context.home / _CACHE,
        mesh=mesh,
        context=context,
        seed=spec.seed,
        loading=spec.loading,
        vocabulary=int(config.vocab_size),
    )
    return LanguageParts(
        folder=folder,
        config=config,
        shape=shape,
        tokenizer=tokenizer,
        training=training,
        validation=validation,
        length=length,
    )


def _tokenizer(spec: LanguageTrainingSpec, folder: Path | None, context: RunContext) -> PreTrainedTokenizerBase:
    source = spec.model.tokenizer_source
    if source == BYTES:
        return byte_tokenizer()
    if source == BPE:
        return _trained_bpe(spec, context)
    if source:
        return load_tokenizer(find_folder(source, runs_dir=context.home / "runs", parent=spec.parent))
    assert folder is not None, "a new model has a tokenizer named"
    return load_tokenizer(folder)


def _trained_bpe(spec: LanguageTrainingSpec, context: RunContext) -> PreTrainedTokenizerBase:
    """Return the encoding trained on the spec's text: by whoever comes first on this machine, and kept."""
    documents = document_files(spec.data, byte_tokenizer())
    sources = [(source.name, source.version) for source in documents.sources]
    data = spec.data
    limits = [data.text_field, data.messages_field, data.chat_template, data.max_bytes, data.max_documents]
    key = key_of("bpe", spec.model.vocabulary, sources, limits)

    def make(temporary: Path) -> Made:
        context.progress(0.0, "Training the tokenizer")
        texts = (piece.text for document in documents for piece in document.pieces)
        bpe_tokenizer(texts, spec.model.vocabulary).save_pretrained(temporary)
        return Made(names=(), dtype="uint8", is_counted=False)

    made_once(context.home / _CACHE / key, make, context.should_stop)
    tokenizer = load_tokenizer(context.home / _CACHE / key)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    return tokenizer
