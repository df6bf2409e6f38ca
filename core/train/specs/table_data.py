"""Labelled texts that a classifier learns from."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from core.train.fields import extra

_SECTION = "Data"


class TableDataSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table with a text and a label in each row."""

    data: Annotated[
        str,
        Meta(
            title="Table",
            min_length=1,
            description="File, folder or URL (s3://, webhdfs://, hdfs://) of .jsonl, .json, .csv, .tsv or .parquet, also .gz and .zst.",
            extra_json_schema={**extra(_SECTION), "path": "file"},
        ),
    ]
    text_field: Annotated[
        str,
        Meta(
            title="Text column",
            min_length=1,
            description="Column that holds the text.",
            extra_json_schema=extra(_SECTION),
        ),
    ] = "text"
    label_field: Annotated[
        str,
        Meta(
            title="Label column",
            min_length=1,
            description="Column that holds the class: a name or a number from 0 on.",
            extra_json_schema=extra(_SECTION),
        ),
    ] = "label"
    classes: Annotated[
        tuple[str, ...],
        Meta(
            title="Classes",
            description="Names in the order of the outputs; a label that is none of them is refused. Empty: those found, sorted.",
            extra_json_schema=extra(_SECTION, advanced=True),
        ),
    ] = ()
    validation_data: Annotated[
        str,
        Meta(
            title="Validation table",
            description="Another table to validate on, of the same columns; empty: a share of the rows is held out.",
            extra_json_schema={**extra(_SECTION, advanced=True), "path": "file"},
        ),
    ] = ""
    validation_fraction: Annotated[
        float,
        Meta(
            title="Validation share",
            ge=0,
            le=0.5,
            description="Share of each class held out, chosen by the text; 0 validates on nothing.",
            extra_json_schema=extra(_SECTION, advanced=True),
        ),
    ] = 0.1
    max_documents: Annotated[
        int,
        Meta(
            title="Most rows",
            ge=0,
            le=10**12,
            description="Reading stops after this many rows; 0 reads all.",
            extra_json_schema=extra(_SECTION, "rows", advanced=True),
        ),
    ] = 0
