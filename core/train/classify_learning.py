"""Text classification as a task of the training engine: cross entropy, accuracy, macro F1, the exported model.

Reading texts is ``core.train.data.labelled_text``; models are ``core.train.models.text_classifier``. Importing this module
imports transformers.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from core.contracts.errors import UserError
from core.contracts.events import Cell
from core.contracts.worker import RunContext
from core.train.data.batches import validation_batches
from core.train.data.labelled_text import labelled_text_parts
from core.train.data.rows import TABLE_SUFFIXES, read_rows
from core.train.data.sources import list_sources
from core.train.data.tokens import Made, key_of, made_once
from core.train.engine.contracts import Batch, DataPart, Evaluation, Mesh, Outcome
from core.train.engine.train import train
from core.train.models.huggingface import find_folder, read_config
from core.train.models.text_classifier import (
    classifier_of,
    encoder_tokenizer,
    load_classifier,
    new_config,
)
from core.train.models.text_export import write_text_model
from core.train.models.tokenizer import check_fits, load_tokenizer
from core.train.results import publish_confusion

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from core.train.tasks.classify import TextClassifierSpec

_CACHE = "cache/tokens"
_PROBED_TEXTS = 8


def macro_f1(right: list[float], taken: list[float], true: list[float]) -> float:
    """Return the mean F1 of the classes that occur or were predicted (van Rijsbergen, 1979), 0 to 1.

    Args:
        right: Samples of each class that were recognised.
        taken: Samples that were taken for each class.
        true: Samples of each class.
    """
    scores = [2.0 * r / (t + n) for r, t, n in zip(right, taken, true, strict=True) if t + n > 0]
    return sum(scores) / len(scores) if scores else 0.0


def _embedding(model: PreTrainedModel) -> torch.Tensor:
    """Return the weights of the input embedding, shape (tokens, width)."""
    return cast("nn.Embedding", model.get_input_embeddings()).weight


class TextClassifierTask:
    """The task of ``train.text-classifier``; see ``core.train.engine.contracts.TrainingTask``.

    Args:
        spec: What was asked.
        context: The run.
        tokenizer: Of the model.
        classes: Names in the order of the labels.
        parts: Training and validation part.
        folder: Of the published model; None for a new one.
        device: Of this rank, for the last measurement.
    """

    unit = "samples"

    def __init__(  # noqa: PLR0913 - what the data and the model's files gave
        self,
        spec: TextClassifierSpec,
        context: RunContext,
        *,
        tokenizer: PreTrainedTokenizerBase,
        classes: tuple[str, ...],
        parts: tuple[DataPart, DataPart | None],
        folder: Path | None,
        device: torch.device,
    ) -> None:
        self._spec = spec
        self._context = context
        self._tokenizer = tokenizer
        self.classes = classes
        self._parts = parts
        self._folder = folder
        self._device = device
        self._weights = 0
        self._model: PreTrainedModel | None = None

    def _build(self) -> PreTrainedModel:
        spec = self._spec
        if self._folder is None:
            return classifier_of(new_config(spec.model, self._tokenizer, self.classes), spec.seed)
        pad = self._tokenizer.pad_token_id
        pad = pad if isinstance(pad, int) else None
        model = load_classifier(self._folder, seed=spec.seed, classes=self.classes, pad_token=pad)
        check_fits(self._tokenizer, len(_embedding(model)), str(self._folder))
        return model

    def build_model(self) -> nn.Module:
        """Return the model: new weights from the seed, or those of the folder."""
        model = self._build()
        self._weights = sum(weight.numel() for weight in model.parameters()) - _embedding(model).numel()
        return model

    def training(self) -> DataPart:
        """Return the training part."""
        return self._parts[0]

    def validation(self) -> DataPart | None:
        """Return the validation part; None without one."""
        return self._parts[1]

    def count(self, batch: Batch) -> int:
        """Return the number of texts."""
        return len(batch["labels"])

    def forward(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return logits, shape (batch, classes)."""
        return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits

    def loss(self, output: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the summed cross entropy in nats."""
        return functional.cross_entropy(output.float(), batch["labels"], reduction="sum")

    def score(self, output: torch.Tensor, batch: Batch) -> dict[str, float]:
        """Return the sums behind loss, accuracy and F1: for each class the right, the taken and the true ones."""
        labels, taken = batch["labels"], output.argmax(1)
        size = len(self.classes)
        counts = {
            "right": torch.bincount(labels[taken == labels], minlength=size),
            "taken": torch.bincount(taken, minlength=size),
            "true": torch.bincount(labels, minlength=size),
        }
        sums = {f"{name}/{number}": float(n) for name, each in counts.items() for number, n in enumerate(each.tolist())}
        return {**sums, "loss": float(self.loss(output, batch))}

    def evaluation(self, sums: Mapping[str, float]) -> Evaluation:
        """Return loss, accuracy and macro F1; the best is the most accurate, then the one with the lowest loss."""
        numbers = range(len(self.classes))
        right, taken, true = ([sums[f"{name}/{number}"] for number in numbers] for name in ("right", "taken", "true"))
        samples = sum(true)
        accuracy, loss = sum(right) / samples, sums["loss"] / samples
        values = {"val/loss": loss, "val/accuracy": accuracy, "val/macro_f1": macro_f1(right, taken, true)}
        return Evaluation(values=values, score=(accuracy, -loss))

    def training_flops(self, units: int) -> float:
        """Return 6 FLOPs per weight and token at full length (Kaplan et al., 2020): forward 2, backward 4."""
        return 6.0 * self._weights * self._spec.model.length * units

    def after_validation(self, model: nn.Module, step: int) -> None:
        """Show nothing: a classifier has its curves."""
        del model, step

    def load_teacher(self, folder: Path) -> nn.Module:
        """Return a text classifier to learn from; see ``core.train.teachers``.

        Raises:
            UserError: It cannot be loaded, or reads other tokens or knows other classes.
        """
        read_config(folder)  # says plainly that a folder is of another kind
        if load_tokenizer(folder).get_vocab() != self._tokenizer.get_vocab():
            raise UserError(
                f"The tokenizer of the teacher {folder} is another one than this model's.",
                "Begin with the model of the same family, or with 'parent' set to the teacher's run.",
            )
        teacher = load_classifier(folder, seed=self._spec.seed)
        theirs = tuple(str(name) for _, name in sorted((teacher.config.id2label or {}).items()))
        if theirs != self.classes:
            raise UserError(
                f"The teacher's classes ({', '.join(theirs[:10])}) are not those of the data ({', '.join(self.classes[:10])}).",
                "Choose a teacher of the same classes, or give data.classes in its order.",
            )
        return teacher

    def finish(self, weights: Mapping[str, torch.Tensor], outcome: Outcome) -> None:
        """Write the best weights as a model of transformers and as ONNX, and what is taken for what."""
        model = self._build()
        model.load_state_dict(dict(weights))
        model.eval()
        part = self.validation()
        if part is not None:
            self._publish_confusion(model, part)
        values = {name.replace("val/", "best/", 1): value for name, value in outcome.best_values.items()}
        self._context.result({**values, "train_seconds": outcome.train_seconds})
        meta: dict[str, Cell] = {
            "num_classes": len(self.classes),
            "classes": ", ".join(self.classes[:50]),
            "parameters": sum(weight.numel() for weight in model.parameters()),
            **{name.removeprefix("val/"): value for name, value in outcome.best_values.items()},
        }
        cast("nn.Module", model).cpu()
        write_text_model(self._context, model, self._tokenizer, self._probe(), meta)
        self._context.progress(1.0, "Done")
        told = ", ".join(f"{name.removeprefix('val/')} {value:.4g}" for name, value in outcome.best_values.items())
        self._context.log(
            f"Wrote the weights of step {outcome.best_step} ({told or 'not validated'}); "
            f"trained for {outcome.train_seconds:.1f} s."
        )

    def _batches(self, part: DataPart) -> list[Batch]:
        alone = Mesh(device=self._device)
        return [batch for batch, _ in validation_batches(part, alone, self._spec.micro_batch)]

    def _probe(self) -> Batch:
        part = self.validation() or self.training()
        found = next(iter(validation_batches(part, Mesh(device=self._device), _PROBED_TEXTS)))[0]
        return found if len(found["labels"]) > 1 else {name: tensor.repeat(2, 1) for name, tensor in found.items()}

    @torch.inference_mode()
    def _publish_confusion(self, model: PreTrainedModel, part: DataPart) -> None:
        self._context.progress(0.0, "Measuring the validation part")
        cast("nn.Module", model).to(self._device)
        labels: list[int] = []
        taken: list[int] = []
        for batch in itertools.takewhile(lambda _: not self._context.should_stop(), self._batches(part)):
            there = {name: tensor.to(self._device) for name, tensor in batch.items()}
            labels += batch["labels"].tolist()
            taken += self.forward(model, there).argmax(1).tolist()
        publish_confusion(
            self._context, self.classes, np.array(labels, dtype=np.int64), np.array(taken, dtype=np.int64)
        )


def train_texts(spec: TextClassifierSpec, context: RunContext) -> None:
    """Train as one rank; see ``core.train.engine.train``.

    Raises:
        UserError: Model, tokenizer or data cannot be used as asked.
        EnvironmentProblem: Something of this machine is missing.
    """

    def make_task(mesh: Mesh, own: RunContext) -> TextClassifierTask:
        return _make_task(spec, mesh, own)

    train(spec, context, make_task)


def _make_task(spec: TextClassifierSpec, mesh: Mesh, context: RunContext) -> TextClassifierTask:
    folder = None
    if not spec.model.is_new:
        if mesh.is_main:
            context.progress(0.0, "Fetching the model")
        runs_dir = context.home / "runs"
        folder = find_folder(spec.model.source, runs_dir=runs_dir, parent=spec.parent, revision=spec.model.revision)
    tokenizer = _trained_tokenizer(spec, context) if folder is None else load_tokenizer(folder)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    parts = labelled_text_parts(
        spec.data, tokenizer, length=spec.model.length, cache=context.home / _CACHE, mesh=mesh, context=context
    )
    return TextClassifierTask(
        spec,
        context,
        tokenizer=tokenizer,
        classes=parts.classes,
        parts=(parts.training, parts.validation),
        folder=folder,
        device=mesh.device,
    )


def _trained_tokenizer(spec: TextClassifierSpec, context: RunContext) -> PreTrainedTokenizerBase:
    """Return the tokenizer made from the texts of the spec's table: by whoever comes first on this machine, and kept."""
    data, model = spec.data, spec.model
    sources = list_sources(data.data, TABLE_SUFFIXES)
    versions = [(source.name, source.version) for source in sources]
    key = key_of("encoder", model.vocabulary, model.length, versions, [data.text_field, data.max_documents])

    def texts() -> Iterator[str]:
        rows = (row for source in sources for _, row in read_rows(source, (data.text_field,)))
        return (str(row[data.text_field]) for row in itertools.islice(rows, data.max_documents or None))

    def make(temporary: Path) -> Made:
        context.progress(0.0, "Making the tokenizer")
        encoder_tokenizer(texts(), model.vocabulary, model.length).save_pretrained(temporary)
        return Made(names=(), dtype="uint8", is_counted=False)

    folder = context.home / _CACHE / key
    made_once(folder, make, context.should_stop)
    return load_tokenizer(folder)
