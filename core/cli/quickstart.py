"""``pilothouse quickstart``: the whole walk from data to measured variants, in the terminal."""

from __future__ import annotations

import argparse

import msgspec

from core.cli.output import ExitCode, code_of_state, print_error, print_json, print_text, table
from core.cli.progress import ProgressLine
from core.contracts.errors import UserError
from core.contracts.states import RunState
from core.pipeline.result import QuickstartResult, quickstart_result
from core.plugins.decode import decode_spec, parse_toml
from core.workspace.workspace import Workspace

EXAMPLE = "quickstart.toml"


def quickstart(workspace: Workspace, options: argparse.Namespace) -> int:
    """Run the quick start to its end and print its result. Ctrl+C stops following, not the run."""
    fields = parse_toml(workspace.example(EXAMPLE))
    fields |= {name: value for name in ("epochs", "seed") if (value := getattr(options, name)) is not None}
    run_id = workspace.launch_spec(decode_spec(fields))
    with ProgressLine(enabled=not options.json) as line:
        summary = workspace.wait(run_id, line.show)
    if summary.state is not RunState.SUCCEEDED:
        failure = UserError(summary.message or f"The quick start is {summary.state.value}.", summary.hint)
        print_error(failure, as_json=options.json)
        return code_of_state(summary.state)
    result = quickstart_result(workspace, run_id)
    if options.json:
        print_json(msgspec.to_builtins(result))
    else:
        print_text(describe(result))
    return ExitCode.OK


def describe(result: QuickstartResult) -> str:
    """Return the result as a table for people."""
    rows = [
        (
            v.backend,
            v.precision,
            f"{v.accuracy:.2%}",
            f"{v.p50_ms:.3f}",
            f"{v.p99_ms:.3f}",
            f"{v.throughput:,.0f}",
            f"{v.size_bytes / 1024:,.0f}",
        )
        for v in result.variants
    ]
    headings = ("BACKEND", "PRECISION", "ACCURACY", "P50 ms", "P99 ms", "IMAGES/s", "KiB")
    return (
        f"Test accuracy {result.accuracy:.2%} after {result.train_seconds:.1f} s of training.\n\n"
        f"{table(headings, rows)}\n\nReport: {result.report}\nRuns: {', '.join(result.runs)}"
    )
