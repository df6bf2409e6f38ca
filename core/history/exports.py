"""Writes all metrics of a run for other programs: CSV, Parquet, TensorBoard event files.

Values come from the stored chunks, so they are exact (TensorBoard itself keeps 32-bit floats). A target appears whole
or not at all. The libraries for each format are imported when that format is asked for.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from core.contracts.errors import EnvironmentProblem, UserError
from core.history import schema
from core.history.columns import METRIC
from core.history.curves import read_chunks
from core.history.extremes import Points

_FOREVER = 1 << 40


def export(connection: Connection, run: int, file_format: str, target: Path) -> Path:
    """Write the metrics of a run; return what was written.

    Args:
        connection: In a read transaction.
        run: Number of the run in the index.
        file_format: ``csv`` or ``parquet`` (columns metric, step, ts in Unix seconds, value), or ``tensorboard``.
        target: File to write or replace; for TensorBoard a folder, to which an event file is added.

    Raises:
        UserError: The format is unknown, or the run has no metrics.
        EnvironmentProblem: The target cannot be written.
    """
    if file_format not in _WRITERS:
        raise UserError(f"Metrics cannot be exported as {file_format!r}.", f"Use one of: {', '.join(_WRITERS)}.")
    curves = schema.curves.c
    wanted = select(curves.id, curves.key).where(curves.run == run, curves.source == METRIC).order_by(curves.key)
    keys = {row.id: row.key for row in connection.execute(wanted)}
    if not keys:
        raise UserError("This run has no metrics to export yet.")
    try:
        return _WRITERS[file_format](connection, keys, target)
    except OSError as error:
        raise EnvironmentProblem(
            f"{str(target)!r} cannot be written: {error.strerror or error}.",
            "Choose another place, or free space on that disk.",
        ) from error


@contextmanager
def _workplace(target: Path) -> Generator[Path]:
    """Yield a fresh folder beside the target; it is gone afterwards."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _tables(connection: Connection, keys: dict[int, str]) -> Generator[Any]:
    """Yield one Arrow table a curve and chunk."""
    import pyarrow as pa

    for curve, key in keys.items():
        for _, points in read_chunks(connection, curve, 0, _FOREVER):
            names = pa.DictionaryArray.from_arrays(pa.array([0] * len(points), pa.int32()), pa.array([key]))
            arrays = [names, pa.array(points.step), pa.array(points.ts), pa.array(points.value)]
            yield pa.table(arrays, names=["metric", "step", "ts", "value"])


def _write_csv(connection: Connection, keys: dict[int, str], target: Path) -> Path:
    import pyarrow as pa
    from pyarrow import csv

    types = [("metric", pa.string()), ("step", pa.int64()), ("ts", pa.float64()), ("value", pa.float64())]
    with _workplace(target) as folder:
        partial = folder / "metrics"
        with csv.CSVWriter(partial, pa.schema(types)) as writer:
            for table in _tables(connection, keys):
                writer.write_table(table.cast(pa.schema(types)))
        partial.replace(target)
    return target


def _write_parquet(connection: Connection, keys: dict[int, str], target: Path) -> Path:
    import pyarrow as pa
    from pyarrow import parquet

    names = pa.dictionary(pa.int32(), pa.string())
    schema_of_file = pa.schema([("metric", names), ("step", pa.int64()), ("ts", pa.float64()), ("value", pa.float64())])
    with _workplace(target) as folder:
        partial = folder / "metrics"
        with parquet.ParquetWriter(partial, schema_of_file, compression="zstd") as writer:
            for curve, key in keys.items():
                writer.write_table(pa.concat_tables(_tables(connection, {curve: key})).unify_dictionaries())
        partial.replace(target)
    return target


def _write_tensorboard(connection: Connection, keys: dict[int, str], target: Path) -> Path:
    # Protobuf makes these classes at run time, where no type checker sees them.
    from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
    from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    with _workplace(target) as folder:
        writer = EventFileWriter(str(folder))
        for step, ts, values in _events(connection, keys):
            told = [Summary.Value(tag=key, simple_value=value) for key, value in values]
            writer.add_event(Event(wall_time=ts, step=step, summary=Summary(value=told)))
        writer.close()
        target.mkdir(exist_ok=True)
        for written in folder.iterdir():
            written.replace(target / written.name)
    return target


def _events(connection: Connection, keys: dict[int, str]) -> Generator[tuple[int, float, list[tuple[str, float]]]]:
    """Yield step, time and values; curves that were always written together share an event."""
    chunks = schema.chunks.c
    companies: dict[tuple[bytes, ...], list[int]] = {}
    for curve in keys:
        wanted = select(chunks.axis).where(chunks.curve == curve).order_by(chunks.number)
        companies.setdefault(tuple(connection.execute(wanted).scalars()), []).append(curve)
    for company in companies.values():
        readers = [read_chunks(connection, curve, 0, _FOREVER) for curve in company]
        for parts in zip(*readers, strict=True):
            yield from _rows([keys[curve] for curve in company], [points for _, points in parts])


def _rows(names: list[str], parts: list[Points]) -> Generator[tuple[int, float, list[tuple[str, float]]]]:
    columns = zip(*(part.value.tolist() for part in parts), strict=True)
    for step, ts, values in zip(parts[0].step.tolist(), parts[0].ts.tolist(), columns, strict=True):
        yield step, ts, list(zip(names, values, strict=True))


_WRITERS: dict[str, Callable[[Connection, dict[int, str], Path], Path]] = {
    "csv": _write_csv,
    "parquet": _write_parquet,
    "tensorboard": _write_tensorboard,
}
