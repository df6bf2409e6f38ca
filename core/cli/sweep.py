"""``pilothouse sweep show``: what a sweep tried, what it found, and which parameters mattered."""

from __future__ import annotations

import argparse

import msgspec

from core.cli.output import ExitCode, number, print_json, print_text, table
from core.cli.runs import found_run
from core.contracts.sweeps import ParameterValue, SweepReport, SweepTrial
from core.workspace.workspace import Workspace


def show_sweep(workspace: Workspace, options: argparse.Namespace) -> ExitCode:
    """Print a sweep as it stands; it may still go on."""
    run_id = found_run(workspace, options)
    report = workspace.sweep(run_id)
    if options.json:
        print_json({"run_id": run_id, **msgspec.to_builtins(report)})
    else:
        print_text(describe(report))
    return ExitCode.OK


def describe(report: SweepReport) -> str:
    """Return a sweep as tables for people."""
    counts = ", ".join(f"{report.count(state)} {state}" for state in ("finished", "pruned", "failed", "running"))
    best = report.best_trial
    found = "No trial has finished yet."
    if best is not None and best.value is not None:
        values = ", ".join(f"{path} = {_text(value)}" for path, value in best.values.items())
        found = f"Best: trial {best.number} with {report.metric} = {number(best.value)} ({values}), run {best.run_id}."
    parts = [
        f"{report.goal} {report.metric} with {report.sampler}, pruner {report.pruner}: {counts} of {report.planned} trials.",
        found,
        _parameters(report),
        report.importance_note,
        _trials(report),
    ]
    return "\n\n".join(part for part in parts if part)


def _text(value: ParameterValue | None) -> str:
    if value is None:
        return "-"
    return number(value) if isinstance(value, float) else str(value)


def _parameters(report: SweepReport) -> str:
    rows = [
        (p.path, p.text, "-" if p.importance is None else f"{p.importance:.0%}")
        for p in sorted(report.parameters, key=lambda p: -(p.importance or 0.0))
    ]
    return table(("PARAMETER", "RANGE", "IMPORTANCE"), rows)


def _trials(report: SweepReport) -> str:
    """Return the trials, the best first, those without a value last."""
    sign = 1 if report.goal == "minimize" else -1

    def place(trial: SweepTrial) -> tuple[bool, float, int]:
        return trial.state != "finished", sign * (trial.value or 0.0), trial.number

    paths = [parameter.path for parameter in report.parameters]
    rows = [
        (
            str(trial.number),
            trial.state,
            _text(trial.value),
            "-" if trial.step is None else str(trial.step),
            *(_text(trial.values.get(path)) for path in paths),
            trial.run_id or "-",
            trial.message,
        )
        for trial in sorted(report.trials, key=place)
    ]
    if not rows:
        return ""
    headings = ("TRIAL", "STATE", report.metric.upper(), "STEP", *(path.upper() for path in paths), "RUN", "NOTE")
    return table(headings, rows)
