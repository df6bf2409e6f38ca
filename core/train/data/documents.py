"""Documents for language models: texts and chats, one after the other, with what of them counts for the loss.

A text file is a document; a row of a table is one. A chat is rendered with a Jinja template turn by turn, so that the
assistant's answers are told apart from what they answer; the pieces are tokenised apart, as at inference, where the prompt
ends just there. Held-out documents are told by a hash, so that adding documents moves none between the parts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from core.contracts.errors import UserError
from core.train.data.rows import TABLE_SUFFIXES, read_rows
from core.train.data.sources import Source, list_sources, opened
from core.train.specs.text_data import TextDataSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CODE_AND_TEXT_SUFFIXES = frozenset(
    {".c", ".cc", ".cpp", ".h", ".html", ".java", ".js", ".md", ".py", ".rs", ".rst", ".tex", ".txt"}
)
TEXT_SUFFIXES = CODE_AND_TEXT_SUFFIXES | TABLE_SUFFIXES


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A part of a document and whether its tokens count for the loss."""

    text: str
    counts: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A document.

    Attributes:
        name: File, and row where it is one of a table.
        pieces: Its text in order.
        is_chat: Rendered by a template, which writes all special tokens itself.
    """

    name: str
    pieces: tuple[Piece, ...]
    is_chat: bool = False

    @property
    def num_bytes(self) -> int:
        """Return its length in UTF-8."""
        return sum(len(piece.text.encode("utf-8", "surrogatepass")) for piece in self.pieces)

    def is_held_out(self, fraction: float) -> bool:
        """Return whether it is of the validation part: by a hash of its text."""
        digest = hashlib.blake2b(digest_size=8)
        for piece in self.pieces:
            digest.update(piece.text.encode("utf-8", "surrogatepass"))
        return int.from_bytes(digest.digest(), "big") / 2**64 < fraction


class ChatTemplate:
    """Renders chats with the tokenizer's template or one of the user's.

    Args:
        tokenizer: Renders; knows the names of its special tokens.
        template: Jinja text, or a file with it; empty: the tokenizer's own.
        train_on: ``assistant`` or ``all``.

    Raises:
        UserError: There is no template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str, train_on: str) -> None:
        self._tokenizer = tokenizer
        self._template = template_text(template) or None
        self._on_all = train_on == "all"
        if self._template is None and not tokenizer.chat_template:
            raise UserError(
                "The tokenizer has no chat template.", "Give one in chat_template, or use the model's chat version."
            )

    def document(self, messages: object, name: str) -> Document:
        """Return a chat as a document.

        Raises:
            UserError: The messages are not as they should be, or the template cannot render them.
        """
        turns = _messages(messages, name)
        whole = self._render(turns, name)
        if self._on_all:
            return Document(name=name, pieces=(Piece(text=whole),), is_chat=True)
        pieces: list[Piece] = []
        end = 0
        for index, turn in enumerate(turns):
            if turn["role"] != "assistant":
                continue
            prompt = self._render(turns[:index], name, for_answer=True)
            answered = self._render(turns[: index + 1], name)
            # A template may close an answer only once another turn follows, as with the end of the whole text.
            if not (answered.startswith(prompt) and whole.startswith(answered.rstrip()) and len(prompt) >= end):
                raise UserError(
                    f"{name}: the chat template does not write the turns one after the other, so answers cannot be told apart.",
                    "Use a plain template, or train_on = 'all'.",
                )
            stop = len(self._answer(answered, whole))
            pieces += [Piece(text=whole[end : len(prompt)], counts=False), Piece(text=whole[len(prompt) : stop])]
            end = stop
        pieces.append(Piece(text=whole[end:], counts=False))
        return Document(name=name, pieces=tuple(piece for piece in pieces if piece.text), is_chat=True)

    def _answer(self, answered: str, whole: str) -> str:
        """Return the text up to the end of an answer: without the blanks that follow its end-of-turn token."""
        stripped = answered.rstrip()
        if stripped.endswith(tuple(self._tokenizer.all_special_tokens) or ("\0",)):
            return stripped
        return answered if whole.startswith(answered) else stripped

    def _render(self, turns: Sequence[Mapping[str, Any]], name: str, *, for_answer: bool = False) -> str:
        from jinja2.exceptions import TemplateError

        try:
            rendered = self._tokenizer.apply_chat_template(
                [dict(turn) for turn in turns],
                chat_template=self._template,
                tokenize=False,
                add_generation_prompt=for_answer,
            )
        except (TemplateError, TypeError, KeyError) as error:
            raise UserError(
                f"{name}: the chat template cannot render this chat: {error}.", "Repair the chat or the template."
            ) from error
        return str(rendered)


def template_text(template: str) -> str:
    """Return a chat template: the text itself, or what is in the file it names.

    Raises:
        UserError: The file cannot be read.
    """
    if not template or "{" in template or "\n" in template:
        return template
    try:
        return Path(template).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The chat template {template} cannot be read.", "Give a Jinja file, or its text.") from error


def _messages(value: object, name: str) -> list[dict[str, Any]]:
    if isinstance(value, str):  # a CSV's cell
        try:
            value = msgspec.json.decode(value)
        except msgspec.DecodeError:
            value = None
    try:
        turns = msgspec.convert(value, list[dict[str, Any]])
    except msgspec.ValidationError:
        turns = []
    if not turns or any("role" not in turn or "content" not in turn for turn in turns):
        raise UserError(
            f"{name}: its messages are no list of objects with role and content.",
            'Write them as [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}].',
        )
    return turns


class DocumentFiles:
    """The documents of files, in order; each file is a shard (``core.train.data.streams.Records``).

    Args:
        data: What is read and how.
        sources: Its files.
        template: For chats.
    """

    def __init__(self, data: TextDataSpec, sources: Sequence[Source], template: ChatTemplate | None) -> None:
        self._data = data
        self.sources = tuple(sources)
        self._template = template

    @property
    def num_shards(self) -> int:
        """Return the number of files."""
        return len(self.sources)

    def read(self, shard: int, first: int) -> Iterator[Document]:
        """Yield the documents of a file from one on.

        Raises:
            UserError: A document cannot be read.
            EnvironmentProblem: The source does not answer.
        """
        source = self.sources[shard]
        if source.suffix in TABLE_SUFFIXES:
            yield from self._rows(source, first)
        elif first == 0:
            with opened(source) as file:
                text = file.read().decode("utf-8", errors="replace")
            if text:
                yield Document(name=source.name, pieces=(Piece(text=text),))

    def _rows(self, source: Source, first: int) -> Iterator[Document]:
        column = self._data.messages_field or self._data.text_field
        for number, row in read_rows(source, (column,), first):
            name, value = f"{source.name}, row {number}", row[column]
            if self._template:
                yield self._template.document(value, name)
            elif isinstance(value, str):
                yield Document(name=name, pieces=(Piece(text=value),) if value else ())
            else:
                raise UserError(
                    f"{name}: {column!r} is no text.", "Give the row a text, or name another column in text_field."
                )

    def __iter__(self) -> Iterator[Document]:
        """Yield all documents up to the limits of the spec, empty ones left out."""
        documents = read_bytes = 0
        most_bytes = self._data.max_bytes or 2**63
        most_documents = self._data.max_documents or 2**63
        for shard in range(self.num_shards):
            for document in self.read(shard, 0):
                if document.pieces:
                    documents += 1
                    read_bytes += document.num_bytes
                    yield _cut(document, document.num_bytes - (read_bytes - most_bytes))
                if documents >= most_documents or read_bytes >= most_bytes:
                    return


def _cut(document: Document, num_bytes: int) -> Document:
    """Return a text's first bytes, a chat as it is."""
    if document.is_chat or num_bytes >= document.num_bytes:
        return document
    text = document.pieces[0].text.encode("utf-8", "surrogatepass")[:num_bytes].decode("utf-8", errors="ignore")
    return Document(name=document.name, pieces=(Piece(text=text),))


def document_files(data: TextDataSpec, tokenizer: PreTrainedTokenizerBase | None, *, where: str = "") -> DocumentFiles:
    """Return the documents of a spec's data.

    Args:
        data: What is read and how.
        tokenizer: Renders chats; may be None where there are none.
        where: Other data of the same form, such as the validation data; empty: ``data.data``.

    Raises:
        UserError: There is nothing to read, or no chat template.
        EnvironmentProblem: The source does not answer.
    """
    template = None
    if data.messages_field and tokenizer is not None:
        template = ChatTemplate(tokenizer, data.chat_template, data.train_on)
    files = list_sources(where or data.data, TEXT_SUFFIXES)
    if any(source.suffix in CODE_AND_TEXT_SUFFIXES for source in files):
        # Among source code and texts, JSON is configuration rather than documents.
        files = [source for source in files if source.suffix != ".json"]
    if data.messages_field:
        files = [source for source in files if source.suffix in TABLE_SUFFIXES]
        if not files:
            raise UserError(
                f"There are no tables in {where or data.data}.", "Chats come from .jsonl, .json, .csv or .parquet."
            )
    return DocumentFiles(data, files, template)
