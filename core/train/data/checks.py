"""What can be seen to be wrong with data before a launch: quick, without torch, never raising, all problems at once.

Local files are listed and their first rows read. Of a URL only its scheme and library are looked at, since asking the
network may take long; what is wrong there ends the run in a sentence.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from core.contracts.errors import FieldProblem, PilothouseError
from core.train.data.documents import CODE_AND_TEXT_SUFFIXES, TEXT_SUFFIXES, template_text
from core.train.data.image_files import IMAGE_SUFFIXES, SHARD_SUFFIXES, class_of
from core.train.data.rows import TABLE_SUFFIXES, open_parquet, read_rows
from core.train.data.sources import Source, is_url, known_protocols, list_sources, opened
from core.train.specs.image_data import DIGITS, MIN_IMAGES_PER_CLASS
from core.train.specs.loading import LoadingSpec
from core.train.specs.table_data import TableDataSpec
from core.train.specs.text_data import STDLIB, TextDataSpec

_LIBRARIES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "hdfs": "pyarrow"}
_LOOKED_INTO = 3


def check_text_data(data: TextDataSpec, field: str = "data") -> tuple[FieldProblem, ...]:
    """Look at the texts or chats of a language model.

    Args:
        data: The group.
        field: Its path in the spec.
    """
    column = data.messages_field or data.text_field
    suffixes = TABLE_SUFFIXES if data.messages_field else TEXT_SUFFIXES
    column_field = "messages_field" if data.messages_field else "text_field"
    problems = _check_tables(data.data, suffixes, {column_field: column}, field, "data")
    if data.validation_data:
        problems += _check_tables(data.validation_data, suffixes, {column_field: column}, field, "validation_data")
    if data.messages_field and data.chat_template:
        problems += _check_template(data.chat_template, f"{field}.chat_template")
    return tuple(problems)


def check_table_data(data: TableDataSpec, field: str = "data") -> tuple[FieldProblem, ...]:
    """Look at a table of labelled texts; ``field`` is the group's path in the spec."""
    columns = {"text_field": data.text_field, "label_field": data.label_field}
    problems = _check_tables(data.data, TABLE_SUFFIXES, columns, field, "data")
    if data.validation_data:
        problems += _check_tables(data.validation_data, TABLE_SUFFIXES, columns, field, "validation_data")
    if len(data.classes) == 1:
        hint = "Name at least two, or none: those found are then taken."
        problems.append(FieldProblem(field=f"{field}.classes", message="one class is not enough.", hint=hint))
    if len(set(data.classes)) < len(data.classes):
        hint = "Name each class once."
        problems.append(FieldProblem(field=f"{field}.classes", message="a class is named twice.", hint=hint))
    return tuple(problems)


def check_image_data(data: str, field: str = "data") -> tuple[FieldProblem, ...]:
    """Look at the images of a source; ``field`` is its path in the spec."""
    if data == DIGITS:
        return ()
    sources, problems = _listed(data, IMAGE_SUFFIXES | SHARD_SUFFIXES, field)
    if not sources and Path(data).expanduser().is_dir() and os.access(Path(data).expanduser(), os.R_OK | os.X_OK):
        return tuple(_check_counts(data, {}, field))
    if not sources or any(source.suffix in SHARD_SUFFIXES for source in sources):
        return tuple(problems)
    if Path(data).expanduser().is_file():
        hint = "Choose the folder that holds a sub-folder for each class."
        return (FieldProblem(field=field, message=f"{data} is a single image.", hint=hint),)
    counts: dict[str, int] = {}
    for source in sources:
        name = class_of(data, source)
        if name:
            counts[name] = counts.get(name, 0) + 1
    return tuple(problems + _check_counts(data, counts, field))


def check_stream(loading: LoadingSpec, steps: int, *, can_stream: bool = True) -> tuple[FieldProblem, ...]:
    """Look at whether data can be streamed.

    Args:
        loading: How data are loaded.
        steps: Of the spec; 0: as many as the epochs need.
        can_stream: The kind's data can be.
    """
    if not loading.stream:
        return ()
    if not can_stream:
        hint = "Switch it off: shards (.tar, .parquet) are read at random without being unpacked."
        return (FieldProblem(field="loading.stream", message="these data cannot be streamed.", hint=hint),)
    if steps == 0:
        hint = "Give the number of steps."
        return (FieldProblem(field="steps", message="the length of a stream is not known.", hint=hint),)
    return ()


def _check_counts(data: str, counts: dict[str, int], field: str) -> list[FieldProblem]:
    if len(counts) < 2:
        message = f"{data} has images of {'1 class' if counts else 'no class'}."
        hint = "Make one sub-folder of images for each class, at least two."
        return [FieldProblem(field=field, message=message, hint=hint)]
    scarce = [f"{name} ({count})" for name, count in counts.items() if count < MIN_IMAGES_PER_CLASS]
    if not scarce:
        return []
    hint = f"Each class needs at least {MIN_IMAGES_PER_CLASS}."
    return [FieldProblem(field=field, message=f"too few images in {', '.join(scarce[:5])}.", hint=hint)]


def _listed(data: str, suffixes: frozenset[str], field: str) -> tuple[list[Source], list[FieldProblem]]:
    """Return the files of a local source and what is wrong with it."""
    if is_url(data):
        return [], _check_url(data, field)
    try:
        sources = list_sources(data, suffixes)
    except PilothouseError as error:
        return [], [FieldProblem(field=field, message=error.message, hint=error.hint)]
    if Path(data).expanduser().is_file() and sources[0].suffix not in suffixes:
        known = ", ".join(sorted(suffixes))
        message = f"{data} is of no kind that can be read."
        return [], [FieldProblem(field=field, message=message, hint=f"Known endings: {known}.")]
    if not any(source.size_bytes for source in sources):
        message = f"{data} is empty." if len(sources) == 1 else f"all files in {data} are empty."
        return [], [FieldProblem(field=field, message=message, hint="Choose files with content.")]
    return sources, []


def _check_url(data: str, field: str) -> list[FieldProblem]:
    scheme = data.split("://", 1)[0]
    if scheme not in known_protocols():
        hint = "Use s3://, webhdfs://, hdfs://, https:// or a path."
        return [FieldProblem(field=field, message=f"nothing is known of {scheme}:// addresses.", hint=hint)]
    library = _LIBRARIES.get(scheme)
    if library and find_spec(library) is None:
        hint = f"Install {library}, or copy the data to this machine."
        return [FieldProblem(field=field, message=f"{scheme}:// needs {library}, which is not installed.", hint=hint)]
    return []


def _check_tables(
    data: str, suffixes: frozenset[str], columns: dict[str, str], group: str, field: str
) -> list[FieldProblem]:
    """Look at files, and at the first row of the first tables among them."""
    if data == STDLIB and suffixes == TEXT_SUFFIXES:
        return []
    sources, problems = _listed(data, suffixes, f"{group}.{field}")
    has_texts = any(source.suffix in CODE_AND_TEXT_SUFFIXES for source in sources)
    tables = [
        source
        for source in sources
        if source.suffix in TABLE_SUFFIXES and source.size_bytes and not (has_texts and source.suffix == ".json")
    ]
    for source in tables[:_LOOKED_INTO]:
        problems += _check_columns(source, columns, group, f"{group}.{field}")
    return problems


def _check_columns(source: Source, columns: dict[str, str], group: str, field: str) -> list[FieldProblem]:
    row, problem = _first_row(source, field)
    if row is None:
        return [problem] if problem else []
    return [
        FieldProblem(
            field=f"{group}.{name}",
            message=f"{source.name} has no column {column!r}.",
            hint=f"It has: {', '.join(row[:12])}.",
        )
        for name, column in columns.items()
        if column not in row
    ]


def _first_row(source: Source, field: str) -> tuple[Sequence[str] | None, FieldProblem | None]:
    """Return the columns of a table's first row, or what is wrong with the file."""
    try:
        if source.suffix == ".parquet":
            return _parquet_columns(source), None
        rows = read_rows(source, ())
        try:
            return list(next(rows)[1]), None
        except StopIteration:
            message = f"{source.name} has no rows."
            return None, FieldProblem(field=field, message=message, hint="Choose a table with rows.")
        finally:
            rows.close()
    except PilothouseError as error:
        return None, FieldProblem(field=field, message=error.message, hint=error.hint)


def _parquet_columns(source: Source) -> list[str]:
    with opened(source) as file:
        return list(open_parquet(source, file, ()).schema_arrow.names)


def _check_template(template: str, field: str) -> list[FieldProblem]:
    from jinja2 import Environment, TemplateSyntaxError

    try:
        # Chat templates of transformers know a tag for what the assistant wrote, which plain Jinja does not.
        text = template_text(template).replace("{% generation %}", "").replace("{% endgeneration %}", "")
        Environment(autoescape=False, extensions=["jinja2.ext.loopcontrols"]).parse(text)
    except TemplateSyntaxError as error:
        message = f"the chat template has an error in line {error.lineno}: {error.message}"
        return [FieldProblem(field=field, message=message, hint="Correct it.")]
    except PilothouseError as error:
        return [FieldProblem(field=field, message=error.message, hint=error.hint)]
    return []
