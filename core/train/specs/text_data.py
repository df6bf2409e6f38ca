"""Text that a language model learns from: where it is, what of it counts, how it fills rows."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from core.train.fields import extra

_SECTION = "Data"
_IS_CHAT: dict[str, object] = {"field": "data.messages_field", "filled": True}

STDLIB = "stdlib"

Packing = Literal["stream", "best-fit", "off"]


class TextDataSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Text or chats to learn from."""

    data: Annotated[
        str,
        Meta(
            title="Text",
            min_length=1,
            description=(
                "'stdlib' for the source text of Python's standard library, a file, a folder, or a URL (s3://, webhdfs://, "
                "hdfs://). Texts, .jsonl, .json, .csv, .tsv and .parquet, also as .gz and .zst."
            ),
            extra_json_schema={**extra(_SECTION), "path": "folder", "names": [STDLIB]},
        ),
    ] = STDLIB
    text_field: Annotated[
        str,
        Meta(
            title="Text column",
            min_length=1,
            description="Column or key of tables (.jsonl, .csv, .parquet, ...) that holds the text of a document.",
            extra_json_schema=extra(_SECTION, advanced=True),
        ),
    ] = "text"
    messages_field: Annotated[
        str,
        Meta(
            title="Chat column",
            description="Column that holds a chat: a list of messages with role and content. Empty: plain text.",
            extra_json_schema=extra(_SECTION),
        ),
    ] = ""
    chat_template: Annotated[
        str,
        Meta(
            title="Chat template",
            description="Jinja template of chats, or a file with one; empty: the tokenizer's own.",
            extra_json_schema=extra(_SECTION, advanced=True, shown_if=_IS_CHAT),
        ),
    ] = ""
    train_on: Annotated[
        Literal["assistant", "all"],
        Meta(
            title="Loss on",
            description="assistant: only the assistant's answers count; all: every token of a chat.",
            extra_json_schema=extra(_SECTION, advanced=True, shown_if=_IS_CHAT),
        ),
    ] = "assistant"
    validation_data: Annotated[
        str,
        Meta(
            title="Validation text",
            description="Other data to validate on, of the same form; empty: a share of the text is held out.",
            extra_json_schema={**extra(_SECTION, advanced=True), "path": "folder", "names": [STDLIB]},
        ),
    ] = ""
    validation_fraction: Annotated[
        float,
        Meta(
            title="Validation share",
            ge=0,
            le=0.5,
            description="Share of the documents held out, chosen by their content; 0 validates on nothing.",
            extra_json_schema=extra(_SECTION, advanced=True),
        ),
    ] = 0.1
    validation_rows: Annotated[
        int,
        Meta(
            title="Validation rows",
            ge=0,
            le=10**9,
            description="At most this many sequences, spread over the validation text; 0: all of them.",
            extra_json_schema=extra(_SECTION, "rows", advanced=True),
        ),
    ] = 512
    max_bytes: Annotated[
        int,
        Meta(
            title="Most text",
            ge=0,
            le=10**15,
            description="Reading stops after this much text; 0 reads all.",
            extra_json_schema=extra(_SECTION, "bytes", advanced=True),
        ),
    ] = 0
    max_documents: Annotated[
        int,
        Meta(
            title="Most documents",
            ge=0,
            le=10**12,
            description="Reading stops after this many documents; 0 reads all.",
            extra_json_schema=extra(_SECTION, "documents", advanced=True),
        ),
    ] = 0
    packing: Annotated[
        Packing,
        Meta(
            title="Packing",
            description=(
                "stream: documents follow each other and are cut at the row's end (pre-training); best-fit: whole documents "
                "share rows, few are cut (chats, ragged data); off: one document a row, padded and truncated. Attention "
                "and positions never cross a document."
            ),
            extra_json_schema=extra(_SECTION),
        ),
    ] = "stream"
