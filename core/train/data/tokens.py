"""Text as token ids, made once and kept in memory-mapped files that all ranks and loading processes share.

A *token file* is a folder: ``tokens`` (ids of all documents one after the other, the smallest unsigned type that holds the
vocabulary), ``starts.npy`` (where each document begins), and for chats ``counted`` (one byte a token: counts for the loss).
The folder is written under a temporary name by whoever holds the lock first and renamed when whole; everybody else waits
for the lock and finds it. Its name is a digest of what it was made of.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from array import array
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from core.contracts.errors import Cancelled, EnvironmentProblem, UserError
from core.train.data.documents import Document

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

_FORMAT = "1"
_LONGEST_PIECE = 1 << 20
_BATCH_CHARACTERS = 1 << 20
_UNUSED_AFTER_S = 30 * 86_400.0
_POLL_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenFile:
    """Documents as token ids.

    Attributes:
        tokens: Ids of all documents, shape (tokens,), unsigned; memory-mapped.
        starts: Where each document begins, and the end of the last, int64, shape (documents + 1,).
        counted: Whether each token counts for the loss, uint8, shape (tokens,); None: all do.
    """

    tokens: NDArray[Any]
    starts: NDArray[np.int64]
    counted: NDArray[np.uint8] | None = None

    @property
    def num_documents(self) -> int:
        """Return the number of documents."""
        return len(self.starts) - 1

    def between(self, first: int, last: int) -> TokenFile:
        """Return the tokens from one to before another; documents that they cut are cut."""
        inner = self.starts[(self.starts > first) & (self.starts < last)] - first
        edges = [0, last - first] if last > first else [0]
        starts = np.concatenate([edges[:1], inner, edges[1:]]).astype(np.int64)
        counted = None if self.counted is None else self.counted[first:last]
        return TokenFile(tokens=self.tokens[first:last], starts=starts, counted=counted)


class Tokens:
    """Makes token ids of documents, in batches, which fast tokenizers spread over the cores.

    Args:
        tokenizer: Of the model.
        vocabulary: Rows of the model's embedding; an id beyond is refused. None: whatever the tokenizer has.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocabulary: int | None = None) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        eos = tokenizer.eos_token_id
        self._eos = [int(eos)] if isinstance(eos, int) else []
        # What the tokenizer puts around a text: its beginning is kept, its end is the end-of-text token.
        self._bos = [token for token in self._ids([""], special=True)[0] if [token] != self._eos]

    @property
    def dtype(self) -> type[np.unsignedinteger[Any]]:
        """Return the type that ids are stored in."""
        return np.uint16 if max(len(self._tokenizer), self._vocabulary or 0) <= 1 << 16 else np.uint32

    def _ids(self, texts: list[str], *, special: bool = False) -> list[list[int]]:
        found = self._tokenizer(
            texts, add_special_tokens=special, return_attention_mask=False, return_token_type_ids=False, verbose=False
        )
        return [list(ids) for ids in found["input_ids"]]

    def of(self, documents: Iterable[Document]) -> Iterator[tuple[Document, list[int], list[bool]]]:
        """Yield each document with its ids and whether each counts for the loss.

        Raises:
            UserError: An id lies beyond the vocabulary; the document is named.
        """
        waiting: list[Document] = []
        characters = 0
        for document in documents:
            waiting.append(document)
            characters += sum(len(piece.text) for piece in document.pieces)
            if characters >= _BATCH_CHARACTERS:
                yield from self._batch(waiting)
                waiting, characters = [], 0
        yield from self._batch(waiting)

    def _batch(self, documents: list[Document]) -> Iterator[tuple[Document, list[int], list[bool]]]:
        parts = [(index, piece) for index, one in enumerate(documents) for piece in one.pieces]
        cut = [(index, piece.counts, text) for index, piece in parts for text in _cut(piece.text)]
        ids_of: list[list[int]] = [[] if one.is_chat else list(self._bos) for one in documents]
        counts_of: list[list[bool]] = [[True] * len(ids) for ids in ids_of]
        for (index, counts, _), ids in zip(cut, self._ids([text for *_, text in cut]) if cut else [], strict=True):
            ids_of[index] += ids
            counts_of[index] += [counts] * len(ids)
        for index, document in enumerate(documents):
            end = [] if document.is_chat else self._eos
            ids, counts = ids_of[index] + end, counts_of[index] + [True] * len(end)
            self._check(document, ids)
            yield document, ids, counts

    def _check(self, document: Document, ids: list[int]) -> None:
        if self._vocabulary is not None and ids and max(ids) >= self._vocabulary:
            raise UserError(
                f"{document.name}: the tokenizer gives the token {max(ids)}, the model knows {self._vocabulary} tokens.",
                "Use the tokenizer that belongs to the model.",
            )


def _cut(text: str) -> Iterator[str]:
    """Yield a long text in pieces that end at line ends, so that one huge file is not tokenised as a whole."""
    while len(text) > _LONGEST_PIECE:
        end = text.rfind("\n", 1, _LONGEST_PIECE) + 1 or _LONGEST_PIECE
        yield text[:end]
        text = text[end:]
    if text:
        yield text


class _Writer:
    """Writes a token file; a context manager, so that nothing stays open when a document cannot be read."""

    def __init__(self, folder: Path, dtype: type[np.unsignedinteger[Any]], *, is_counted: bool) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._dtype = dtype
        self._tokens: IO[bytes] = (folder / "tokens").open("wb")
        self._counted: IO[bytes] | None = (folder / "counted").open("wb") if is_counted else None
        self._starts = array("q", [0])

    def append(self, ids: Sequence[int], counts: Sequence[bool]) -> None:
        self._tokens.write(np.asarray(ids, dtype=self._dtype).tobytes())
        if self._counted:
            self._counted.write(np.asarray(counts, dtype=np.uint8).tobytes())
        self._starts.append(self._starts[-1] + len(ids))

    def close(self) -> None:
        self._tokens.close()
        if self._counted:
            self._counted.close()
        np.save(self._folder / "starts.npy", np.asarray(self._starts, dtype=np.int64))

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What there is to know of token files that were made together.

    Attributes:
        names: Their folders.
        dtype: Type of the ids.
        is_counted: They say of each token whether it counts.
        notes: Sentences about what was left out.
    """

    names: tuple[str, ...]
    dtype: str
    is_counted: bool
    notes: tuple[str, ...] = ()


def write_token_files(
    folder: Path,
    tokenised: Iterable[tuple[Document, list[int], list[bool]]],
    part_of: Callable[[int, Document], str],
    *,
    names: Sequence[str],
    dtype: type[np.unsignedinteger[Any]],
    is_counted: bool,
) -> Made:
    """Write documents into one token file for each part.

    Args:
        folder: Where the parts' folders are made.
        tokenised: Documents with ids and what counts.
        part_of: Says which part a document is of, from its index and itself.
        names: The parts.
        dtype: Type of the ids.
        is_counted: Keep what counts; documents of which nothing counts are then left out and told.
    """
    left_out: list[str] = []
    with contextlib.ExitStack() as stack:
        writers = {name: stack.enter_context(_Writer(folder / name, dtype, is_counted=is_counted)) for name in names}
        for index, (document, ids, counts) in enumerate(tokenised):
            if is_counted and not any(counts):
                left_out.append(document.name)
                continue
            writers[part_of(index, document)].append(ids, counts)
    notes = (f"{len(left_out)} chats without an answer were left out, such as {left_out[0]}.",) if left_out else ()
    return Made(names=tuple(names), dtype=np.dtype(dtype).name, is_counted=is_counted, notes=notes)


def open_token_file(folder: Path, made: Made, name: str) -> TokenFile:
    """Return a token file, memory-mapped."""
    starts: NDArray[np.int64] = np.load(folder / name / "starts.npy")
    total = int(starts[-1])
    if not total:  # an empty file cannot be mapped
        return TokenFile(tokens=np.empty(0, dtype=made.dtype), starts=starts)
    tokens = np.memmap(folder / name / "tokens", dtype=made.dtype, mode="r", shape=(total,))
    counted = None
    if made.is_counted:
        counted = np.memmap(folder / name / "counted", dtype=np.uint8, mode="r", shape=(total,))
    return TokenFile(tokens=tokens, starts=starts, counted=counted)


def key_of(*parts: object) -> str:
    """Return the digest that names what is made of these parts (their JSON)."""
    text = json.dumps([_FORMAT, *parts], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def tokenizer_key(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the digest of all that decides which ids a tokenizer gives."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    pipeline = backend.to_str() if backend is not None else sorted(tokenizer.get_vocab().items())
    return key_of(type(tokenizer).__name__, pipeline, tokenizer.special_tokens_map, tokenizer.chat_template)


def made_once(folder: Path, make: Callable[[Path], Made], should_stop: Callable[[], bool]) -> Made:
    """Return what is in a folder of the cache; it is made by the first who comes, the others wait.

    Args:
        folder: Named by ``key_of``.
        make: Writes into the (temporary) folder it is given.
        should_stop: Asked while waiting.

    Raises:
        Cancelled: A stop was asked for.
        EnvironmentProblem: The cache cannot be written.
        UserError: What ``make`` raises.
    """
    record = folder / "made.json"
    with _disk(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.with_suffix(".lock"), should_stop):
            if not record.is_file():
                _make(folder, make)
            record.touch()
    read = json.loads(record.read_text(encoding="utf-8"))
    return Made(
        names=tuple(read["names"]), dtype=read["dtype"], is_counted=read["is_counted"], notes=tuple(read["notes"])
    )


def _make(folder: Path, make: Callable[[Path], Made]) -> None:
    _remove_unused(folder.parent)
    temporary = folder.with_suffix(".making")
    shutil.rmtree(temporary, ignore_errors=True)  # left behind by somebody who was killed
    shutil.rmtree(folder, ignore_errors=True)
    temporary.mkdir()
    try:
        made = make(temporary)
        described = {"names": made.names, "dtype": made.dtype, "is_counted": made.is_counted, "notes": made.notes}
        (temporary / "made.json").write_text(json.dumps(described), encoding="utf-8")
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _remove_unused(cache: Path) -> None:
    """Remove what nobody has used for a month."""
    before = time.time() - _UNUSED_AFTER_S
    for record in cache.glob("*/made.json"):
        with contextlib.suppress(FileNotFoundError):  # another process has removed it
            if record.stat().st_mtime < before:
                shutil.rmtree(record.parent, ignore_errors=True)


@contextlib.contextmanager
def _disk(cache: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise EnvironmentProblem(
            f"The cache {cache} cannot be written: {error.strerror or error}.", "Free some space or check permissions."
        ) from error


@contextlib.contextmanager
def _locked(path: Path, should_stop: Callable[[], bool]) -> Generator[None]:
    """Hold a lock on a file; the system frees it when the process dies, however it does."""
    import fcntl

    with path.open("ab") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if should_stop():
                    raise Cancelled from None
                time.sleep(_POLL_S)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)
            os.utime(path)
