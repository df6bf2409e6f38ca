"""Nsight Systems: the wrapped command, and reading an SQLite export of the documented schema."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from pathlib import Path

import msgspec
import pytest

from core.contracts.errors import EnvironmentProblem
from core.contracts.profiles import SUMMARY_KIND, TRACE_KIND, ProfileReport
from core.train.profile.nsys import check_nsys, collect, folder_of, nsys_command, read_export
from tests.helpers.recording_context import RecordingContext, as_context

PROCESS = 7 << 24
THREAD = PROCESS | 42
MS = 1_000_000

SCHEMA = """
CREATE TABLE StringIds (id INTEGER NOT NULL PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE CUPTI_ACTIVITY_KIND_KERNEL (start INTEGER NOT NULL, end INTEGER NOT NULL, deviceId INTEGER NOT NULL,
    contextId INTEGER, streamId INTEGER, correlationId INTEGER, globalPid INTEGER, demangledName INTEGER NOT NULL,
    shortName INTEGER NOT NULL, gridX INTEGER, gridY INTEGER, gridZ INTEGER);
CREATE TABLE CUPTI_ACTIVITY_KIND_MEMCPY (start INTEGER NOT NULL, end INTEGER NOT NULL, deviceId INTEGER NOT NULL,
    contextId INTEGER, streamId INTEGER, correlationId INTEGER, globalPid INTEGER, bytes INTEGER, copyKind INTEGER);
CREATE TABLE CUPTI_ACTIVITY_KIND_RUNTIME (start INTEGER NOT NULL, end INTEGER NOT NULL, eventClass INTEGER,
    globalTid INTEGER, correlationId INTEGER, nameId INTEGER, returnValue INTEGER);
CREATE TABLE NVTX_EVENTS (start INTEGER NOT NULL, end INTEGER, eventType INTEGER, rangeId INTEGER, text TEXT,
    globalTid INTEGER, textId INTEGER, domainId INTEGER);
"""


def make_export(path: Path) -> None:
    """Write 100 ms of one process on one GPU: 40 ms GEMM, 10 ms of it beside NCCL (20 ms), a copy, an update, waiting."""
    database = sqlite3.connect(path)
    database.executescript(SCHEMA)
    names = {
        1: "ampere_sgemm_128x64",
        2: "ncclDevKernel_AllReduce_Sum_f32",
        3: "multi_tensor_apply_kernel",
        4: "data_wait",
    }
    database.executemany("INSERT INTO StringIds VALUES (?, ?)", names.items())
    kernels = [(10, 50, 1, 101), (40, 60, 2, 102), (70, 80, 3, 103)]
    database.executemany(
        "INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL (start, end, deviceId, correlationId, globalPid, demangledName, shortName)"
        " VALUES (?, ?, 0, ?, ?, ?, ?)",
        [(start * MS, end * MS, number, PROCESS, name, name) for start, end, name, number in kernels],
    )
    database.execute(
        "INSERT INTO CUPTI_ACTIVITY_KIND_MEMCPY (start, end, deviceId, correlationId, globalPid, bytes, copyKind)"
        " VALUES (?, ?, 0, 104, ?, 1024, 1)",
        (5 * MS, 10 * MS, PROCESS),
    )
    database.executemany(
        "INSERT INTO CUPTI_ACTIVITY_KIND_RUNTIME (start, end, globalTid, correlationId) VALUES (?, ?, ?, ?)",
        [
            (9 * MS, 9 * MS + 1, THREAD, 101),
            (65 * MS, 65 * MS + 1, THREAD, 103),
            (66 * MS, 66 * MS + 1, THREAD + 1, 101),
        ],
    )
    database.executemany(
        "INSERT INTO NVTX_EVENTS (start, end, eventType, text, textId, globalTid) VALUES (?, ?, 59, ?, ?, ?)",
        [
            (0, 100 * MS, "step", None, THREAD),
            (80 * MS, 95 * MS, None, 4, THREAD),
            (64 * MS, 67 * MS, "Optimizer.step#AdamW.step", None, THREAD),
            (50 * MS, None, "an open range", None, THREAD),
        ],
    )
    database.commit()
    database.close()


def test_an_export_becomes_the_report_of_the_profile_tab(tmp_path: Path) -> None:
    make_export(tmp_path / "nsys.sqlite")
    report = read_export(tmp_path / "nsys.sqlite")
    assert (report.source, report.rank, report.device, report.steps) == ("Nsight Systems", -1, "cuda:0", 0)
    assert report.wall_s == pytest.approx(0.1)
    shares = {one.name: one.fraction for one in report.categories}
    assert shares == {
        "compute": pytest.approx(0.4),
        "communication": pytest.approx(0.1),  # half of it hides behind the GEMM
        "data loading": pytest.approx(0.15),
        "optimizer": pytest.approx(0.1),
        "memory copy": pytest.approx(0.05),
        "idle": pytest.approx(0.2),
    }
    assert [(one.name, one.calls) for one in report.operators] == [
        ("ampere_sgemm_128x64", 1),
        ("ncclDevKernel_AllReduce_Sum_f32", 1),
        ("multi_tensor_apply_kernel", 1),
        ("Memcpy", 1),
    ]
    assert report.operators[0].self_device_s == pytest.approx(0.04)
    assert [one.name for one in report.phases] == ["step", "data_wait", "Optimizer.step#AdamW.step"]


def test_an_export_without_a_gpu_has_ranges_only(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "nsys.sqlite")
    database.executescript(SCHEMA)
    for table in ("KERNEL", "MEMCPY", "RUNTIME"):
        database.execute(f"DROP TABLE CUPTI_ACTIVITY_KIND_{table}")
    database.execute("INSERT INTO NVTX_EVENTS (start, end, text, globalTid) VALUES (0, 5000000, 'step', 1)")
    database.commit()
    database.close()
    report = read_export(tmp_path / "nsys.sqlite")
    assert report.device == "cpu"
    assert report.categories == ()
    assert [(one.name, one.total_cpu_s) for one in report.phases] == [("step", pytest.approx(0.005))]


@pytest.mark.parametrize("content", [None, b"", b"no database at all, but long enough to be one" * 100])
def test_an_export_that_is_missing_or_foreign_is_a_warning(tmp_path: Path, content: bytes | None) -> None:
    context = RecordingContext(tmp_path)
    folder = folder_of(as_context(context))
    folder.mkdir(parents=True)
    if content is not None:
        (folder / "nsys.sqlite").write_bytes(content)
    collect(as_context(context), folder)
    ((level, message),) = context.logs
    assert level == "warning"
    assert "nsys.sqlite, cannot be read" in message
    assert not context.artifacts


def test_a_command_runs_under_nsys_and_what_it_left_becomes_artifacts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    make_export(tmp_path / "made.sqlite")
    # What stands for nsys here does what is used of it: runs the command, then leaves a report and its export.
    nsys = programs / "nsys"
    nsys.write_text(
        "#!/bin/sh\n"
        'test "$1" = profile || exit 9\n'
        'while [ "${1#--}" != "$1" ] || [ "$1" = profile ]; do\n'
        '  case "$1" in --output=*) out="${1#--output=}";; esac; shift\n'
        "done\n"
        f'"$@"; code=$?; cp {tmp_path}/made.sqlite "$out.sqlite"; echo report > "$out.nsys-rep"; exit $code\n',
        encoding="utf-8",
    )
    nsys.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    context = RecordingContext(tmp_path)
    folder = folder_of(as_context(context))
    assert check_nsys(wanted=True) == ()
    done = subprocess.run(nsys_command(["sh", "-c", "exit 3"], folder), check=False)
    assert done.returncode == 3, "the command's own exit status"
    collect(as_context(context), folder)
    report = msgspec.json.decode(Path(context.artifacts[SUMMARY_KIND].path).read_bytes(), type=ProfileReport)
    assert report.trace_path == "nsys.nsys-rep"
    assert Path(context.artifacts[TRACE_KIND].path) == folder / "nsys.nsys-rep"


def test_without_nsys_the_sentence_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert check_nsys(wanted=False) == ()
    (problem,) = check_nsys(wanted=True)
    assert problem.field == "tuning.nsys"
    with pytest.raises(EnvironmentProblem, match="nsys is not on the PATH"):
        nsys_command(["true"], tmp_path)
