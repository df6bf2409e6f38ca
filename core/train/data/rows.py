"""Rows of table files: JSON lines, JSON, CSV, TSV and Parquet, one after the other, without reading a file whole.

A row that cannot be read is named with its file and number (the first is 1; a CSV's heading does not count). JSON alone,
being one value, is read whole.
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import sys
from collections.abc import Generator, Sequence
from typing import IO, Any

import msgspec

from core.contracts.errors import UserError
from core.train.data.sources import Source, opened, sentences

TABLE_SUFFIXES = frozenset({".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet"})
_BATCH_ROWS = 256

Row = dict[str, Any]


def read_rows(source: Source, columns: Sequence[str], first: int = 0) -> Generator[tuple[int, Row]]:
    """Yield the rows of a table from row index ``first`` on, each with its number (the first is 1).

    Args:
        source: The file; its suffix tells the form.
        columns: Columns that must be there; a Parquet file gives no others.
        first: Rows to leave out.

    Raises:
        UserError: A column is missing, or a row or the file cannot be read.
        EnvironmentProblem: The source does not answer.
    """
    with opened(source) as file:
        readers = {".parquet": _parquet, ".csv": _separated, ".tsv": _separated, ".json": _json}
        # Closed before the file is, also when the caller wants no further row.
        with contextlib.closing(readers.get(source.suffix, _json_lines)(source, file, columns, first)) as rows:
            for number, row in enumerate(rows, start=first + 1):
                missing = [name for name in columns if name not in row]
                if missing:
                    raise missing_column(source, missing[0], list(row), number)
                yield number, row


def missing_column(source: Source, name: str, there: Sequence[str], number: int = 0) -> UserError:
    """Return the sentence about a column that is not there."""
    where = f", row {number}," if number else ""
    listed = ", ".join(there[:12]) or "none"
    return UserError(f"{source.name}{where} has no column {name!r} (it has: {listed}).", "Name one of its columns.")


def _json_lines(source: Source, file: IO[bytes], columns: Sequence[str], first: int) -> Generator[Row]:
    del columns
    decoder = msgspec.json.Decoder(dict[str, Any])
    # Empty lines are no rows, so the ones to leave out are counted by content.
    lines = ((number, line) for number, line in enumerate(file, start=1) if line.strip())
    for number, line in itertools.islice(lines, first, None):
        try:
            yield decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UserError(
                f"{source.name}, line {number}, is no JSON object: {error}.", "Repair or remove the line."
            ) from error


def _json(source: Source, file: IO[bytes], columns: Sequence[str], first: int) -> Generator[Row]:
    del columns
    try:
        rows = msgspec.json.decode(file.read(), type=list[dict[str, Any]])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        hint = "Write a list of objects, or one object a line into a .jsonl file."
        raise UserError(f"{source.name} is no list of JSON objects: {error}.", hint) from error
    yield from rows[first:]


def _separated(source: Source, file: IO[bytes], columns: Sequence[str], first: int) -> Generator[Row]:
    csv.field_size_limit(sys.maxsize)
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    table = csv.DictReader(text, delimiter="\t" if source.suffix == ".tsv" else ",", strict=True)
    try:
        missing = [name for name in columns if name not in (table.fieldnames or ())]
        if missing:
            raise missing_column(source, missing[0], list(table.fieldnames or ()))
        for row in itertools.islice(table, first, None):
            if None in row or None in row.values():
                raise UserError(
                    f"{source.name}, line {table.line_num}, has not as many values as the heading.",
                    "Repair or remove the line; put texts with separators in quotes.",
                )
            yield row
    except csv.Error as error:
        raise UserError(
            f"{source.name}, line {table.line_num}, cannot be read: {error}.", "Repair or remove the line."
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{source.name} is no UTF-8 text: {error.reason}.", "Convert it to UTF-8.") from error
    finally:
        text.detach()


def _parquet(source: Source, file: IO[bytes], columns: Sequence[str], first: int) -> Generator[Row]:
    table = open_parquet(source, file, columns)
    passed = 0
    for group in range(table.num_row_groups):
        rows = table.metadata.row_group(group).num_rows
        if passed + rows > first:
            yield from _parquet_group(source, table, group, columns, first=max(0, first - passed))
        passed += rows


def _parquet_group(source: Source, table: Any, group: int, columns: Sequence[str], *, first: int) -> Generator[Row]:
    import pyarrow as pa

    try:
        for batch in table.iter_batches(batch_size=_BATCH_ROWS, row_groups=[group], columns=list(columns)):
            rows = batch.to_pylist()
            yield from rows[first:]
            first = max(0, first - len(rows))
    except pa.ArrowInvalid as error:
        raise _damaged(source, error) from error


def open_parquet(source: Source, file: IO[bytes], columns: Sequence[str]) -> Any:
    """Return the opened ``pyarrow.parquet.ParquetFile``, its columns looked for.

    Raises:
        UserError: It is no Parquet file, or a column is missing.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with sentences(source.name):
            table = pq.ParquetFile(file)
    except pa.ArrowInvalid as error:
        raise _damaged(source, error) from error
    missing = [name for name in columns if name not in table.schema_arrow.names]
    if missing:
        raise missing_column(source, missing[0], table.schema_arrow.names)
    return table


def _damaged(source: Source, error: Exception) -> UserError:
    reason = str(error).strip().splitlines()[0].rstrip(".")
    return UserError(f"{source.name} is damaged or no Parquet file: {reason}.", "Copy or write it again.")
