"""What the command line prints: sentences and tables for people, one JSON document for scripts; and exit codes."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from datetime import datetime
from enum import IntEnum
from typing import Any

from core.contracts.errors import EnvironmentProblem, InvalidSpec, PilothouseError
from core.contracts.runs import RunDetail, RunSummary
from core.contracts.states import RunState


class ExitCode(IntEnum):
    """Exit codes that scripts can rely on."""

    OK = 0
    FAILED = 1
    INVALID = 2
    ENVIRONMENT = 3
    STOPPED = 4
    INTERRUPTED = 130


def code_of_state(state: RunState) -> ExitCode:
    """Return the exit code that tells how a followed run ended."""
    if state is RunState.SUCCEEDED:
        return ExitCode.OK
    return ExitCode.STOPPED if state is RunState.STOPPED else ExitCode.FAILED


def code_of_error(error: PilothouseError) -> ExitCode:
    """Return the exit code of an error with a sentence."""
    return ExitCode.ENVIRONMENT if isinstance(error, EnvironmentProblem) else ExitCode.INVALID


def plain(value: Any) -> Any:
    """Return a value that strict JSON can say: non-finite numbers become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
    return value


def print_json(document: Any) -> None:
    """Print the one JSON document of a command."""
    sys.stdout.write(json.dumps(plain(document), ensure_ascii=False, allow_nan=False) + "\n")
    sys.stdout.flush()


def print_text(text: str) -> None:
    """Print a line for people."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def print_error(error: PilothouseError, *, as_json: bool) -> None:
    """Print an error: its sentence and remedy on stderr, and as the JSON document where one was asked for."""
    problems = error.problems if isinstance(error, InvalidSpec) else ()
    if as_json:
        document: dict[str, Any] = {"message": error.message, "hint": error.hint}
        if problems:
            document["problems"] = [{"field": p.field, "message": p.message, "hint": p.hint} for p in problems]
        print_json({"error": document})
    if problems:
        sys.stderr.write(f"{error.message.partition(':')[0]}:\n")
        sys.stderr.writelines(f"  {problem.sentence()}\n" for problem in problems)
    else:
        sys.stderr.write(f"{error}\n")


def run_document(detail: RunDetail) -> dict[str, Any]:
    """Return one run as the JSON document of ``runs show``."""
    document = summary_document(detail.summary)
    document["artifacts"] = [
        {"name": a.name, "path": a.path, "kind": a.kind, "size_bytes": a.size_bytes, "sha256": a.sha256, "meta": a.meta}
        for a in detail.artifacts
    ]
    document["children"] = list(detail.children)
    document["tables"] = [
        {"name": t.name, "columns": list(t.columns), "rows": [list(r) for r in t.rows]} for t in detail.tables
    ]
    return document


def summary_document(run: RunSummary) -> dict[str, Any]:
    """Return the summary of one run as plain values."""
    return {
        "run_id": run.run_id,
        "name": run.name,
        "kind": run.kind,
        "state": run.state.value,
        "message": run.message,
        "hint": run.hint,
        "created": run.created,
        "started": run.started,
        "ended": run.ended,
        "progress": run.progress,
        "stage": run.stage,
        "step": run.step,
        "attempt": run.attempt,
        "silent_since": run.silent_since,
        "final": run.final,
        "tags": list(run.tags),
        "parent": run.parent,
        "host": run.host,
        "run_dir": run.run_dir,
    }


def local_time(ts: float | None) -> str:
    """Return Unix seconds as local date and time; a dash for none."""
    return "-" if ts is None else datetime.fromtimestamp(ts).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return aligned columns under headings."""
    widths = [max(len(cell) for cell in column) for column in zip(headings, *rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (headings, *rows)]
    return "\n".join(line.rstrip() for line in lines)


def number(value: float) -> str:
    """Return a metric with four significant digits."""
    return f"{value:.4g}"
