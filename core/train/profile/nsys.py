"""Nsight Systems: runs a command under ``nsys profile``, and reads its SQLite export into the same report as torch's profiler.

How: ``nsys`` exports its report as a SQLite file, of which the tables of kernels, copies, runtime calls and NVTX ranges are
read (NVIDIA's "Nsight Systems SQLite schema reference"). A kernel belongs to the optimizer when the call that launched it lies
within a range of ``Optimizer.step``. Which tables there are depends on what happened, so that missing ones are empty ones. Not
here: memory over time, which torch's allocator knows better.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import time
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from core.contracts.errors import EnvironmentProblem, FieldProblem
from core.contracts.profiles import DATA_LOADING, OPTIMIZER, TRACE_KIND, CategoryTime, OperatorTime, ProfileReport
from core.contracts.worker import RunContext
from core.train.profile.reports import FOLDER, MOST_OPERATORS, write_report
from core.train.profile.timeline import ON_DEVICE, Interval, categories, split
from core.train.profile.trace import LOADER_MARKS, OPTIMIZER_MARK, kernel_category

NAME = "nsys"
_NANOSECOND_S = 1e-9
_THREAD_BITS = 0xFFFFFF
"""The low bits of a thread's number over all processes; without them it is the process's."""
_FIELD = "tuning.nsys"
_REMEDY = (
    "Install Nsight Systems there and put nsys on the PATH, or switch this off; torch's own profiles need nothing."
)


class _Work(NamedTuple):
    """Something that a GPU did: times in ns, who launched it (``correlation``), its process and GPU."""

    start: int
    end: int
    name: str
    process: int
    device: int
    correlation: int


class _Range(NamedTuple):
    """An NVTX range of a thread; times in ns."""

    start: int
    end: int
    name: str
    thread: int


def check_nsys(wanted: bool) -> tuple[FieldProblem, ...]:
    """Return what stands against recording with Nsight Systems on this machine."""
    if not wanted or shutil.which(NAME):
        return ()
    return (FieldProblem(field=_FIELD, message="nsys is not on the PATH.", hint=_REMEDY),)


def folder_of(context: RunContext) -> Path:
    """Return where the report of this attempt on this node is written."""
    return context.artifacts_dir / FOLDER / f"{NAME}-{context.node}-{context.attempt}"


def nsys_command(command: Sequence[str], folder: Path) -> list[str]:
    """Return a command that runs another one, and all its processes, under ``nsys profile``.

    Args:
        command: Program and arguments.
        folder: Where ``nsys`` writes its report and the SQLite export; made.

    Raises:
        EnvironmentProblem: There is no ``nsys`` on this machine.
    """
    program = shutil.which(NAME)
    if program is None:
        raise EnvironmentProblem("Nsight Systems was asked for, but nsys is not on the PATH.", _REMEDY)
    folder.mkdir(parents=True, exist_ok=True)
    options = ("--trace=cuda,nvtx", "--sample=none", "--cpuctxsw=none", "--export=sqlite", "--force-overwrite=true")
    return [program, "profile", *options, f"--output={folder / NAME}", *command]


def collect(context: RunContext, folder: Path) -> None:
    """Turn what ``nsys`` left into artifacts of the run; when it left nothing that can be read, a warning says so."""
    export, report = folder / f"{NAME}.sqlite", folder / f"{NAME}.nsys-rep"
    try:
        found = read_export(export)
    except (sqlite3.Error, OSError) as error:
        context.log(f"The export of Nsight Systems, {export}, cannot be read: {error}", "warning")
        return
    write_report(context, folder, found)
    if report.is_file():
        context.artifact(report, kind=TRACE_KIND, name=report.name)


def read_export(path: Path) -> ProfileReport:
    """Read an SQLite export of Nsight Systems.

    Raises:
        OSError: There is no such file.
        sqlite3.Error: It is no database, or not one of Nsight Systems.
    """
    recorded_at = path.stat().st_mtime
    with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
        export = _Export(database)
        work, ranges = list(export.work()), list(export.ranges())
        updates = export.launched_in(OPTIMIZER_MARK, ranges)
    start = min((one.start for one in (*work, *ranges)), default=0)
    end = max((one.end for one in (*work, *ranges)), default=start)
    devices = sorted({one.device for one in work})
    report = path.with_suffix(".nsys-rep")
    return ProfileReport(
        source="Nsight Systems",
        rank=-1,
        device=", ".join(f"cuda:{device}" for device in devices) or "cpu",
        first_step=0,
        steps=0,
        recorded_at=recorded_at or time.time(),
        wall_s=(end - start) * _NANOSECOND_S,
        operators=_totals(((one.name, one.end - one.start) for one in work), on_device=True),
        phases=_totals(((one.name, one.end - one.start) for one in ranges), on_device=False),
        categories=_categories(work, ranges, updates, (start, end)),
        trace_path=report.name if report.is_file() else "",
    )


class _Export:
    """The tables of an export that are read."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        self._tables = {str(name) for (name,) in tables}
        if "StringIds" not in self._tables:
            raise sqlite3.DatabaseError("it has no table StringIds, so Nsight Systems has not written it")

    def _rows(self, table: str, query: str) -> Iterable[tuple[Any, ...]]:
        return self._database.execute(query) if table in self._tables else ()

    def work(self) -> Iterator[_Work]:
        """Yield kernels, copies and fills."""
        kernels = "CUPTI_ACTIVITY_KIND_KERNEL"
        columns = "start, end, value, globalPid, deviceId, correlationId"
        for row in self._rows(kernels, f"SELECT {columns} FROM {kernels} JOIN StringIds ON id = demangledName"):
            yield _Work(*row)
        for table, name in (("CUPTI_ACTIVITY_KIND_MEMCPY", "Memcpy"), ("CUPTI_ACTIVITY_KIND_MEMSET", "Memset")):
            columns = f"start, end, '{name}', globalPid, deviceId, correlationId"
            for row in self._rows(table, f"SELECT {columns} FROM {table}"):
                yield _Work(*row)

    def ranges(self) -> Iterator[_Range]:
        """Yield NVTX ranges with an end; a name stands in the event itself or among the strings."""
        query = """
            SELECT start, end, COALESCE(text, value), globalTid FROM NVTX_EVENTS LEFT JOIN StringIds ON id = textId
            WHERE end IS NOT NULL AND COALESCE(text, value) IS NOT NULL
        """
        for row in self._rows("NVTX_EVENTS", query):
            yield _Range(*row)

    def launched_in(self, mark: str, ranges: Sequence[_Range]) -> set[tuple[int, int]]:
        """Return (process, correlation) of the calls made within ranges of a mark, in the thread of the range."""
        by_thread: dict[int, list[tuple[int, int]]] = {}
        for one in ranges:
            if one.name.startswith(mark):
                by_thread.setdefault(one.thread, []).append((one.start, one.end))
        for spans in by_thread.values():
            spans.sort()
        table = "CUPTI_ACTIVITY_KIND_RUNTIME"
        found: set[tuple[int, int]] = set()
        for start, correlation, thread in self._rows(table, f"SELECT start, correlationId, globalTid FROM {table}"):
            spans = by_thread.get(thread, [])
            index = bisect_right(spans, start, key=lambda span: span[0]) - 1
            if index >= 0 and start < spans[index][1]:
                found.add((thread & ~_THREAD_BITS, correlation))
        return found


def _categories(
    work: Sequence[_Work], ranges: Sequence[_Range], updates: set[tuple[int, int]], window: tuple[int, int]
) -> tuple[CategoryTime, ...]:
    """Share out the wall time of every GPU of every process, and return their mean."""
    places = sorted({(one.process, one.device) for one in work})
    sums: dict[str, float] = {}
    for process, device in places:
        intervals = [
            Interval(
                one.start,
                one.end,
                OPTIMIZER if (process, one.correlation) in updates else kernel_category(one.name),
            )
            for one in work
            if (one.process, one.device) == (process, device)
        ]
        intervals += [
            Interval(one.start, one.end, DATA_LOADING)
            for one in ranges
            if one.thread & ~_THREAD_BITS == process and one.name.startswith(LOADER_MARKS)
        ]
        for name, spent in split(intervals, *window, ON_DEVICE).items():
            sums[name] = sums.get(name, 0.0) + spent / len(places)
    return categories(sums, _NANOSECOND_S) if places else ()


def _totals(spent: Iterable[tuple[str, int]], *, on_device: bool) -> tuple[OperatorTime, ...]:
    """Add up times in ns by name; the longest first."""
    sums: dict[str, tuple[int, int]] = {}
    for name, duration in spent:
        calls, total = sums.get(name, (0, 0))
        sums[name] = (calls + 1, total + duration)
    longest = sorted(sums.items(), key=lambda item: item[1][1], reverse=True)[:MOST_OPERATORS]
    if on_device:
        return tuple(
            OperatorTime(name=name, calls=n, self_device_s=ns * _NANOSECOND_S, total_device_s=ns * _NANOSECOND_S)
            for name, (n, ns) in longest
        )
    return tuple(OperatorTime(name=name, calls=n, total_cpu_s=ns * _NANOSECOND_S) for name, (n, ns) in longest)
