"""``pilothouse check-layouts``: proves on the devices at hand that parallel layouts train as one process does."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

from core.cli.output import ExitCode, print_json, print_text
from core.contracts.errors import UserError
from core.train.parallel.cases import CASES, LayoutCase

_START_S = 120.0
_LAYOUT_S = 120.0
_DEFAULT_PROCESSES = 2
_PROVE = "core.train.parallel.equality:prove"


def check_layouts(options: argparse.Namespace) -> ExitCode:
    """Train with each layout and compare; print a row for each.

    Raises:
        UserError: There is no layout of this name or number of processes.
        EnvironmentProblem: The devices asked for are missing, or fewer than the processes.
    """
    rows: list[dict[str, Any]] = []
    for processes, cases in _by_processes(_chosen(options.layout, options.processes)).items():
        _check_devices(options.devices, processes)
        found = _prove(cases, processes, options.devices)
        rows += found
        if not options.json:
            for row in found:
                print_text(_line(row))
    if options.json:
        names = ("name", "processes", "max_loss_diff", "ok", "note")
        print_json({"layouts": [{name: row[name] for name in names} for row in rows]})
    return ExitCode.OK if all(row["ok"] for row in rows) else ExitCode.FAILED


def _chosen(names: Sequence[str], processes: int) -> list[LayoutCase]:
    """Return the named layouts, else those of a number of processes."""
    unknown = [name for name in names if name not in CASES]
    if unknown:
        raise UserError(f"There is no layout named {unknown[0]!r}.", f"Known: {', '.join(CASES)}.")
    chosen = [CASES[name] for name in dict.fromkeys(names)]
    wanted = processes or (0 if chosen else _DEFAULT_PROCESSES)
    if not chosen:
        chosen = list(CASES.values())
    fitting = [case for case in chosen if wanted in (0, case.parallel.processes)]
    if not fitting:
        sizes = sorted({case.parallel.processes for case in chosen})
        raise UserError(
            f"No such layout is for {processes} processes.", f"Choose one of {', '.join(map(str, sizes))} processes."
        )
    return fitting


def _by_processes(cases: Sequence[LayoutCase]) -> dict[int, list[LayoutCase]]:
    groups: dict[int, list[LayoutCase]] = {}
    for case in sorted(cases, key=lambda case: case.parallel.processes):
        groups.setdefault(case.parallel.processes, []).append(case)
    return groups


def _check_devices(device: str, processes: int) -> None:
    from core.train.parallel.mesh import check_device

    check_device(device, processes)  # pyright: ignore[reportArgumentType] - one of the parser's choices


def _prove(cases: Sequence[LayoutCase], processes: int, device: str) -> list[dict[str, Any]]:
    """Run the layouts of one number of processes in one group of ranks."""
    from core.train.parallel.local_ranks import RanksFailed, call_in_ranks

    arguments = {"names": [case.name for case in cases], "device": device}
    started = time.monotonic()
    try:
        return call_in_ranks(_PROVE, processes, arguments, timeout_s=_START_S + _LAYOUT_S * len(cases))[0]
    except RanksFailed as error:
        if len(cases) > 1:
            # One that fails takes the others of its group with it: each alone tells which.
            return [row for case in cases for row in _prove([case], processes, device)]
        return [_failed(cases[0], f"failed after {time.monotonic() - started:.0f} s: {error.reason}")]


def _failed(case: LayoutCase, note: str) -> dict[str, Any]:
    return {
        "name": case.name,
        "processes": case.parallel.processes,
        "max_loss_diff": None,
        "ok": False,
        "note": note,
    }


def _line(row: dict[str, Any]) -> str:
    difference = "-" if row["max_loss_diff"] is None else f"{row['max_loss_diff']:.1e}"
    verdict = "equal" if row["ok"] else "NOT EQUAL"
    return f"{row['name']:<30} {row['processes']:>2} processes  {difference:>8}  {verdict}  {row['note']}".rstrip()
