"""The text of a language model's run as micro-batches: token files, rows, labels that never cross a document.

``labels[t]`` is the token that follows ``input_ids[t]``, within its document; -100 where there is none, where it does not
count, and in padding. Positions begin at 0 with each piece of a row, and ``segment_ids`` numbers the pieces (padding is one
of its own). Without packing a row is one document and ``segment_ids`` is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from core.contracts.errors import Cancelled, UserError
from core.contracts.worker import RunContext
from core.train.data.documents import Document, DocumentFiles, document_files
from core.train.data.packing import Rows, make_rows
from core.train.data.streams import StreamedSamples
from core.train.data.tokens import (
    Made,
    TokenFile,
    Tokens,
    key_of,
    made_once,
    open_token_file,
    tokenizer_key,
    write_token_files,
)
from core.train.engine.contracts import Batch, DataPart, Mesh, SampleKey
from core.train.specs.loading import LoadingSpec
from core.train.specs.text_data import TextDataSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

NOT_COUNTED = -100
_FEWEST_TO_HOLD_OUT = 3
_NAMES = ("train", "validation")

Row = dict[str, "NDArray[np.int64]"]


def make_row(file: TokenFile, pieces: Sequence[tuple[int, int]]) -> Row:
    """Return a row's arrays, int64, shape (tokens,): input_ids, labels, position_ids, segment_ids."""
    stops = file.starts[np.searchsorted(file.starts, [first for first, _ in pieces], side="right")]
    labels: list[NDArray[np.int64]] = []
    for (first, last), stop in zip(pieces, stops.tolist(), strict=True):
        following = np.full(last - first, NOT_COUNTED, dtype=np.int64)
        end = min(last + 1, stop)
        following[: end - first - 1] = file.tokens[first + 1 : end]
        if file.counted is not None:
            following[: end - first - 1][file.counted[first + 1 : end] == 0] = NOT_COUNTED
        labels.append(following)
    lengths = [last - first for first, last in pieces]
    return {
        "input_ids": np.concatenate([file.tokens[first:last] for first, last in pieces]).astype(np.int64),
        "labels": np.concatenate(labels),
        "position_ids": np.concatenate([np.arange(length, dtype=np.int64) for length in lengths]),
        "segment_ids": np.repeat(np.arange(len(pieces), dtype=np.int64), lengths),
    }


@dataclass(frozen=True, slots=True, eq=False)
class TextRows:
    """Rows of a token file as samples; ``chosen`` are the rows that count, in order."""

    file: TokenFile
    rows: Rows
    chosen: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, key: SampleKey) -> Row:
        return make_row(self.file, self.rows.pieces(int(self.chosen[key.number])))


@dataclass(frozen=True, slots=True, kw_only=True)
class RowCollate:
    """Makes a micro-batch of rows.

    Attributes:
        pad: Token that fills rows up.
        length: Rows are filled up to this; 0: to the longest of the micro-batch.
        is_packed: Rows hold several documents, so ``segment_ids`` is given.
    """

    pad: int
    length: int
    is_packed: bool

    def __call__(self, rows: Sequence[Row]) -> Batch:
        """Return int64 tensors, shape (rows, length)."""
        length = self.length or max(len(row["input_ids"]) for row in rows)
        names = ("input_ids", "labels", "position_ids", *(["segment_ids"] if self.is_packed else []))
        return {name: torch.from_numpy(np.stack([self._filled(row, name, length) for row in rows])) for name in names}

    def _filled(self, row: Row, name: str, length: int) -> NDArray[np.int64]:
        values = row[name]
        missing = length - len(values)
        if not missing:
            return values
        if name == "position_ids":
            # Of an unpacked row the padding is the document's tail, which no counted token looks at.
            begin = 0 if self.is_packed else len(values)
            return np.concatenate([values, np.arange(begin, begin + missing, dtype=np.int64)])
        fill = {"input_ids": self.pad, "labels": NOT_COUNTED, "segment_ids": int(row["segment_ids"][-1]) + 1}
        return np.concatenate([values, np.full(missing, fill[name], dtype=np.int64)])


@dataclass(frozen=True, slots=True, kw_only=True)
class _StreamPacking:
    """Makes rows of the documents of a block of a stream, or of one of them."""

    tokens: Tokens
    packing: str
    length: int

    def rows(self, documents: list[Document]) -> Iterator[Row]:
        file = _in_memory(self.tokens, list(_filled(documents)))
        rows = make_rows(self.packing, file.starts, self.length)
        for row in range(len(rows)):
            yield make_row(file, rows.pieces(row))

    def row(self, document: Document) -> Row:
        file = _in_memory(self.tokens, [document])
        return make_row(file, [(0, min(self.length, len(file.tokens)))])


def _filled(documents: list[Document]) -> Iterator[Document]:
    """Yield the documents that are not empty; a stream's records are counted with the empty ones."""
    yield from (document for document in documents if document.pieces)


def _in_memory(tokens: Tokens, documents: list[Document]) -> TokenFile:
    found = list(tokens.of(documents))
    starts = np.cumsum([0, *(len(ids) for _, ids, _ in found)], dtype=np.int64)
    flat = np.array([token for _, ids, _ in found for token in ids], dtype=np.int64)
    counted = np.array([counts for *_, counted in found for counts in counted], dtype=np.uint8)
    return TokenFile(tokens=flat, starts=starts, counted=counted)


class _Preparation:
    """What the parts of a run are made with."""

    def __init__(self, data: TextDataSpec, tokenizer: PreTrainedTokenizerBase, length: int, mesh: Mesh) -> None:
        self.data = data
        self.tokenizer = tokenizer
        self.length = length
        self.is_main = mesh.is_main
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        is_packed = data.packing != "off"
        # Stages of a pipeline and shares of a sequence want one shape for all micro-batches.
        is_fixed = is_packed or mesh.pipeline_size > 1 or mesh.context_size > 1 or mesh.tensor_size > 1
        self.collate = RowCollate(
            pad=pad if isinstance(pad, int) else 0, length=length if is_fixed else 0, is_packed=is_packed
        )

    def part(self, file: TokenFile, most_rows: int = 0) -> DataPart:
        """Return a token file's rows as a part of the data; at most so many of them, evenly spread."""
        rows = make_rows(self.data.packing, file.starts, self.length)
        number = min(most_rows or len(rows), len(rows))
        chosen = np.arange(number, dtype=np.int64) * len(rows) // max(1, number)
        return DataPart(samples=TextRows(file, rows, chosen), collate=self.collate)


def language_parts(  # noqa: PLR0913 - the engine's parts agreed on these
    data: TextDataSpec,
    tokenizer: PreTrainedTokenizerBase,
    *,
    length: int,
    cache: Path,
    mesh: Mesh,
    context: RunContext,
    seed: int,
    loading: LoadingSpec | None = None,
    vocabulary: int | None = None,
) -> tuple[DataPart, DataPart | None]:
    """Return the training and the validation part of a language model's text; every rank calls it.

    Args:
        data: What is read and how.
        tokenizer: Of the model.
        length: Tokens of a row.
        cache: Folder of this machine where token files are kept.
        mesh: Where this rank stands.
        context: Takes progress and sentences; asked whether to stop.
        seed: Fixes the order of a stream.
        loading: Tells whether to stream, and the stream's buffer.
        vocabulary: Rows of the model's embedding, to refuse other ids.

    Raises:
        UserError: Nothing to read, a document cannot be read or does not fit the model, or a part is empty.
        EnvironmentProblem: The source does not answer, or the cache cannot be written.
        Cancelled: A stop was asked for meanwhile.
    """
    preparation = _Preparation(data, tokenizer, length, mesh)
    tokens = Tokens(tokenizer, vocabulary)
    maker = _TokenMaker(preparation, tokens, cache, context)
    validation = maker.files(data.validation_data, ("validation",))[0] if data.validation_data else None
    if loading is not None and loading.stream:
        training = _stream(preparation, tokens, loading, seed)
        if validation is None and mesh.is_main:
            context.log("Nothing is held out of a stream: give validation_data to validate.", "warning")
    else:
        names = ("train",) if data.validation_data or not data.validation_fraction else _NAMES
        found = maker.files("", names)
        train, held_out = _both_parts(found, data.validation_fraction) if len(found) == 2 else (found[0], validation)
        validation = held_out
        training = preparation.part(train)
        if len(training.samples) == 0:
            what = "chat with an answer" if data.messages_field and data.train_on == "assistant" else "text"
            raise UserError(f"There is no {what} in {data.data}.", "Choose data with at least one document.")
        maker.tell(train, training, validation)
    if validation is None:
        return training, None
    part = preparation.part(validation, data.validation_rows)
    return training, part if len(part.samples) else None


def _both_parts(found: list[TokenFile], fraction: float) -> tuple[TokenFile, TokenFile | None]:
    """Return the two parts; where no document was held out, the text's end is."""
    train, validation = found
    if validation.num_documents:
        return train, validation
    total = len(train.tokens)
    cut = total - int(total * fraction)
    return (train.between(0, cut), train.between(cut, total)) if 0 < cut < total else (train, None)


def _stream(preparation: _Preparation, tokens: Tokens, loading: LoadingSpec, seed: int) -> DataPart:
    data = preparation.data
    files = document_files(data, preparation.tokenizer)
    packing = _StreamPacking(tokens=tokens, packing=data.packing, length=preparation.length)
    buffer = loading.shuffle_buffer
    if data.packing == "off":
        samples = StreamedSamples(files, packing.row, seed=seed, buffer=buffer, expand=_filled)
    else:
        samples = StreamedSamples(files, _same, seed=seed, buffer=buffer, expand=packing.rows)
    return DataPart(samples=samples, collate=preparation.collate)


def _same(row: Row) -> Row:
    return row


class _TokenMaker:
    """Makes token files, or finds them in the cache."""

    def __init__(self, preparation: _Preparation, tokens: Tokens, cache: Path, context: RunContext) -> None:
        self._preparation = preparation
        self._tokens = tokens
        self._cache = cache
        self._context = context

    def files(self, where: str, names: tuple[str, ...]) -> list[TokenFile]:
        """Return the token files of data, one for each name."""
        data, tokenizer = self._preparation.data, self._preparation.tokenizer
        documents = document_files(data, tokenizer, where=where)
        key = key_of(
            [(source.name, source.version) for source in documents.sources],
            tokenizer_key(tokenizer),
            [data.text_field, data.messages_field, data.chat_template, data.train_on],
            [data.max_bytes, data.max_documents, data.validation_fraction, names],
        )
        folder = self._cache / key

        def make(temporary: Path) -> Made:
            return write_token_files(
                temporary,
                self._watched(self._tokens.of(documents), documents),
                self._part_of(names),
                names=names,
                dtype=self._tokens.dtype,
                is_counted=bool(data.messages_field) and data.train_on == "assistant",
            )

        made = made_once(folder, make, self._context.should_stop)
        if self._preparation.is_main:
            for note in made.notes:
                self._context.log(note, "warning")
        return [open_token_file(folder, made, name) for name in names]

    def _part_of(self, names: tuple[str, ...]) -> Callable[[int, Document], str]:
        fraction = self._preparation.data.validation_fraction if len(names) == 2 else 0.0

        def part_of(index: int, document: Document) -> str:
            # The first documents are never held out, so that a source of one or two is cut at its end instead.
            is_held_out = index + 1 >= _FEWEST_TO_HOLD_OUT and document.is_held_out(fraction)
            return names[-1] if is_held_out else names[0]

        return part_of

    def _watched(self, tokenised: Iterator[Any], documents: DocumentFiles) -> Iterator[Any]:
        """Yield what is tokenised, tell how far it is, and end when a stop is asked for."""
        total = sum(source.size_bytes for source in documents.sources) or 1
        done = 0
        for found in tokenised:
            done += found[0].num_bytes
            self._context.progress(min(1.0, done / total), "Tokenising")
            if self._context.should_stop():
                raise Cancelled
            yield found

    def tell(self, file: TokenFile, part: DataPart, validation: TokenFile | None) -> None:
        """Log what the training part is."""
        if not self._preparation.is_main:
            return
        lengths = np.diff(file.starts)
        longest = self._preparation.length
        cut = int((lengths > longest).sum())
        rows = len(part.samples)
        told = f"{len(lengths):,} documents, {len(file.tokens):,} tokens in {rows:,} rows of {longest} to train on"
        held = f", {len(validation.tokens):,} tokens to validate" if validation is not None else ""
        self._context.log(f"{told}{held}.")
        if self._preparation.data.packing == "off" and cut:
            lost = int((lengths[lengths > longest] - longest).sum())
            self._context.log(
                f"{cut:,} documents are longer than {longest} tokens and were cut there: {lost:,} tokens are not used.",
                "warning",
            )
