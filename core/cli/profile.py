"""``pilothouse runs profile``: asks a training for a profile of its next steps, waits for it and prints it."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import msgspec

from core.cli.output import ExitCode, print_json, print_text, table
from core.cli.runs import REACH_S, found_run
from core.contracts.errors import UserError
from core.contracts.ids import RunId
from core.contracts.profiles import OperatorTime, ProfileReport
from core.workspace.workspace import Workspace

_POLL_S = 0.5
_SHOWN = 15


def profile(workspace: Workspace, options: argparse.Namespace) -> ExitCode:
    """Record a profile, or with ``--last`` take the newest; print where the time and the memory went.

    Raises:
        UserError: The run records none, or ended before it had.
    """
    run_id = found_run(workspace, options)
    report = workspace.profile(run_id, options.rank) if options.last else _recorded(workspace, run_id, options)
    if report is None:
        raise UserError(f"The run {run_id} has recorded no profile.", "Ask for one while it trains, without --last.")
    if options.json:
        print_json({"run_id": run_id, **msgspec.to_builtins(report)})
    else:
        print_text(report_text(report))
    return ExitCode.OK


def _recorded(workspace: Workspace, run_id: RunId, options: argparse.Namespace) -> ProfileReport:
    rank = options.rank or 0
    before = workspace.profile(run_id, rank)
    workspace.request_profile(run_id, options.steps, (rank,))
    if not options.json:
        print_text(f"Asked rank {rank} of {run_id} for a profile of {options.steps} steps. Ctrl+C stops waiting only.")
    while True:
        workspace.refresh(run_id, REACH_S)
        has_ended = workspace.summary(run_id).state.is_terminal
        report = workspace.profile(run_id, rank)
        if report is not None and report != before:
            return report
        if has_ended:
            raise UserError(
                f"The run {run_id} ended before it had recorded a profile.", "Run it again with more steps."
            )
        time.sleep(_POLL_S)


def report_text(report: ProfileReport) -> str:
    """Return a report as tables for people."""
    steps = f"{report.steps} steps from step {report.first_step}" if report.steps else "the whole run"
    who = f"rank {report.rank}" if report.rank >= 0 else "all processes of the node"
    parts = [
        f"{report.source}: {steps}, {who} on {report.device}, {report.wall_s:.3g} s",
        _categories(report),
        _costs("PHASE", report.phases),
        _costs("OPERATOR", report.operators),
    ]
    parts += [
        f"memory of {curve.device}: at most {max(curve.allocated_bytes) / 2**20:.1f} MiB"
        for curve in report.memory
        if curve.allocated_bytes
    ]
    if report.trace_path:
        viewer = "https://ui.perfetto.dev" if report.trace_path.endswith(".json.gz") else "Nsight Systems"
        parts.append(f"trace: {report.trace_path} (opens in {viewer})")
    return "\n\n".join(part for part in parts if part)


def _categories(report: ProfileReport) -> str:
    rows = [(one.name, f"{one.seconds:.4g}", f"{one.fraction:.1%}") for one in report.categories]
    return table(("CATEGORY", "SECONDS", "SHARE"), rows) if rows else ""


def _costs(heading: str, costs: Sequence[OperatorTime]) -> str:
    if not costs:
        return ""
    rows = [
        (
            one.name[:70],
            str(one.calls),
            *(f"{s * 1e3:.3g}" for s in (one.self_cpu_s, one.total_cpu_s, one.self_device_s, one.total_device_s)),
        )
        for one in costs[:_SHOWN]
    ]
    return table((heading, "CALLS", "CPU SELF MS", "CPU MS", "GPU SELF MS", "GPU MS"), rows)
