"""Labelled texts of a table as micro-batches: ``input_ids`` and ``attention_mask`` (batch, length), ``labels`` (batch,).

Tokenised once into a token file (``core.train.data.tokens``) beside which the label of each row is kept. Classes are those
of the spec, or those found: numbers in their order, else names sorted. The share held out is taken from each class, by a
hash of the text, so that it does not depend on the order of rows and hardly on which others there are.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from core.contracts.errors import Cancelled, UserError
from core.contracts.worker import RunContext
from core.train.data.documents import Document
from core.train.data.labels import numbered, read_label, sorted_classes
from core.train.data.rows import TABLE_SUFFIXES, read_rows
from core.train.data.sources import Source, list_sources
from core.train.data.tokens import (
    Made,
    TokenFile,
    key_of,
    made_once,
    open_token_file,
    tokenizer_key,
    write_token_files,
)
from core.train.engine.contracts import Batch, DataPart, Mesh, SampleKey
from core.train.specs.table_data import TableDataSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

_BATCH_ROWS = 256
_LABELS = "labels.json"
_HASHES = "hashes.npy"
_FEWEST_CLASSES = 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelledTextParts:
    """Training and validation part, and the names of the classes in the order of the labels."""

    training: DataPart
    validation: DataPart | None
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class LabelledTexts:
    """Rows of a table as samples (token ids, label); ``chosen`` are the rows of the part."""

    file: TokenFile
    labels: NDArray[np.int64]
    chosen: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, key: SampleKey) -> tuple[NDArray[np.int64], int]:
        row = int(self.chosen[key.number])
        first, last = self.file.starts[row : row + 2].tolist()
        return np.asarray(self.file.tokens[first:last], dtype=np.int64), int(self.labels[row])


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledCollate:
    """Makes a micro-batch, filled up with ``pad`` to its longest text."""

    pad: int

    def __call__(self, samples: Sequence[tuple[NDArray[np.int64], int]]) -> Batch:
        """Return int64 tensors."""
        length = max(1, *(len(ids) for ids, _ in samples))
        ids = np.full((len(samples), length), self.pad, dtype=np.int64)
        mask = np.zeros((len(samples), length), dtype=np.int64)
        for row, (tokens, _) in enumerate(samples):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        labels = torch.tensor([label for _, label in samples], dtype=torch.int64)
        return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask), "labels": labels}


def labelled_text_parts(  # noqa: PLR0913 - as language_parts
    data: TableDataSpec,
    tokenizer: PreTrainedTokenizerBase,
    *,
    length: int,
    cache: Path,
    mesh: Mesh,
    context: RunContext,
    vocabulary: int | None = None,
) -> LabelledTextParts:
    """Return the parts of a table of labelled texts; every rank calls it.

    Args:
        data: What is read and how.
        tokenizer: Of the model; texts are cut at its special tokens' account.
        length: Most tokens of a text.
        cache: Folder of this machine where token files are kept.
        mesh: Where this rank stands.
        context: Takes progress and sentences; asked whether to stop.
        vocabulary: Rows of the model's embedding, to refuse other ids.

    Raises:
        UserError: A row cannot be read, a label is missing or unknown, or there are fewer than two classes.
        EnvironmentProblem: The source does not answer, or the cache cannot be written.
        Cancelled: A stop was asked for meanwhile.
    """
    reader = _TableReader(data, tokenizer, length, vocabulary)
    table = reader.table("", cache, context)
    classes = data.classes or sorted_classes(table.names)
    if len(classes) < _FEWEST_CLASSES:
        raise UserError(f"{data.data} has rows of {len(classes)} class only.", "A classifier needs at least two.")
    labels = table.labels(classes)
    pad = tokenizer.pad_token_id
    collate = LabelledCollate(pad=pad if isinstance(pad, int) else 0)
    everything = np.arange(len(labels))
    held_out = np.zeros(len(labels), dtype=bool)
    validation: LabelledTexts | None = None
    if data.validation_data:
        other = reader.table(data.validation_data, cache, context)
        validation = LabelledTexts(other.file, other.labels(classes), np.arange(other.file.num_documents))
    elif data.validation_fraction:
        held_out = _held_out(labels, table.hashes, data.validation_fraction)
        validation = LabelledTexts(table.file, labels, everything[held_out])
    training = LabelledTexts(table.file, labels, everything[~held_out])
    if mesh.is_main:
        _tell(context, training, validation, classes, length)
    has_validation = validation is not None and len(validation) > 0
    return LabelledTextParts(
        training=DataPart(samples=training, collate=collate),
        validation=DataPart(samples=validation, collate=collate) if validation and has_validation else None,
        classes=tuple(classes),
    )


def _held_out(labels: NDArray[np.int64], hashes: NDArray[np.uint64], fraction: float) -> NDArray[np.bool_]:
    """Return which rows are held out: of each class the share with the smallest hashes, at least one row to train on."""
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        number = min(round(len(rows) * fraction), len(rows) - 1)
        chosen[rows[np.argsort(hashes[rows], kind="stable")[:number]]] = True
    return chosen


def _tell(
    context: RunContext, training: LabelledTexts, validation: LabelledTexts | None, classes: Sequence[str], length: int
) -> None:
    counts = np.bincount(training.labels[training.chosen], minlength=len(classes))
    shown = ", ".join(f"{name} {count}" for name, count in list(zip(classes, counts.tolist(), strict=True))[:10])
    more = f" and {len(classes) - 10} more classes" if len(classes) > 10 else ""
    validated = len(validation) if validation is not None else 0
    context.log(f"{len(training):,} texts to train on ({shown}{more}), {validated:,} to validate.")
    full = int((np.diff(training.file.starts) >= length).sum())
    if full:
        context.log(f"{full:,} texts fill {length} tokens; what they have beyond is not read.", "warning")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Table:
    """A table that was tokenised: label and place of each row, as written in it."""

    file: TokenFile
    names: list[str]
    places: list[str]
    hashes: NDArray[np.uint64]

    def labels(self, classes: Sequence[str]) -> NDArray[np.int64]:
        """Return the label of each row; see ``numbered``."""
        return numbered(self.names, self.places, classes)


class _TableReader:
    """Tokenises tables, or finds them in the cache."""

    def __init__(
        self, data: TableDataSpec, tokenizer: PreTrainedTokenizerBase, length: int, vocabulary: int | None
    ) -> None:
        self._data = data
        self._tokenizer = tokenizer
        self._length = length
        self._vocabulary = vocabulary

    def table(self, where: str, cache: Path, context: RunContext) -> _Table:
        """Return a tokenised table."""
        data = self._data
        sources = list_sources(where or data.data, TABLE_SUFFIXES)
        key = key_of(
            "labelled",
            [(source.name, source.version) for source in sources],
            tokenizer_key(self._tokenizer),
            [self._length, self._vocabulary, data.text_field, data.label_field, data.max_documents],
        )
        folder = cache / key
        made = made_once(folder, lambda temporary: self._make(temporary, sources, context), context.should_stop)
        names, places = json.loads((folder / _LABELS).read_text(encoding="utf-8"))
        hashes: NDArray[np.uint64] = np.load(folder / _HASHES)
        file = open_token_file(folder, made, "all")
        return _Table(file=file, names=names, places=places, hashes=hashes)

    def _make(self, folder: Path, sources: list[Source], context: RunContext) -> Made:
        names: list[str] = []
        places: list[str] = []
        hashes: list[int] = []
        total = sum(source.size_bytes for source in sources) or 1

        def tokenised() -> Iterator[tuple[Document, list[int], list[bool]]]:
            rows = self._rows(sources)
            done = 0
            while batch := list(itertools.islice(rows, _BATCH_ROWS)):
                if context.should_stop():
                    raise Cancelled
                done += sum(len(text) for _, text, _ in batch)
                context.progress(min(1.0, done / total), "Tokenising")
                for (place, text, label), ids in zip(batch, self._ids([row[1] for row in batch], batch), strict=True):
                    names.append(label)
                    places.append(place)
                    hashes.append(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big"))
                    yield Document(name=place, pieces=()), ids, []

        dtype = np.uint16 if len(self._tokenizer) <= 1 << 16 else np.uint32
        made = write_token_files(folder, tokenised(), lambda *_: "all", names=("all",), dtype=dtype, is_counted=False)
        if not names:
            raise UserError(f"There are no rows in {sources[0].name}.", "Choose a table with rows.")
        (folder / _LABELS).write_text(json.dumps([names, places]), encoding="utf-8")
        np.save(folder / _HASHES, np.array(hashes, dtype=np.uint64))
        return made

    def _rows(self, sources: list[Source]) -> Iterator[tuple[str, str, str]]:
        """Yield place, text and label of each row."""
        rows = (
            (f"{source.name}, row {number}", row)
            for source in sources
            for number, row in read_rows(source, (self._data.text_field, self._data.label_field))
        )
        for place, row in itertools.islice(rows, self._data.max_documents or None):
            text = row[self._data.text_field]
            if not isinstance(text, str):
                raise UserError(
                    f"{place}: {self._data.text_field!r} is no text.",
                    "Give the row a text, or name another column in text_field.",
                )
            yield place, text, read_label(place, row[self._data.label_field])

    def _ids(self, texts: list[str], batch: list[tuple[str, str, str]]) -> list[list[int]]:
        found = self._tokenizer(
            texts, truncation=True, max_length=self._length, return_attention_mask=False, verbose=False
        )
        ids = [list(one) for one in found["input_ids"]]
        for (place, *_), one in zip(batch, ids, strict=True):
            if self._vocabulary is not None and one and max(one) >= self._vocabulary:
                raise UserError(
                    f"{place}: the tokenizer gives the token {max(one)}, the model knows {self._vocabulary} tokens.",
                    "Use the tokenizer that belongs to the model.",
                )
        return ids
