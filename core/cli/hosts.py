"""``pilothouse hosts``: add, list, check, install, remove, queue and trust; all through ``core.fleet.fleet.Fleet``."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from core.cli.output import ExitCode, local_time, print_json, print_text, table
from core.cli.terminal_asker import TerminalAsker, TerminalWatcher
from core.contracts.errors import Cancelled, EnvironmentProblem, UserError
from core.contracts.hosts import CheckReport, HostRecord, HostStatus, LinkState, RuntimeRecord
from core.contracts.specs import RunSpec
from core.fleet.fleet import Fleet
from core.fleet.probe_script import probe_host
from core.settings.home import Home, default_home

_SIGNS = {"ok": "ok     ", "warning": "warning", "error": "ERROR  "}


def hosts(options: argparse.Namespace) -> ExitCode:
    """Carry out one act on hosts; return the exit code."""
    home = Home(default_home())
    home.prepare()
    fleet = Fleet(home)
    fleet.set_asker(TerminalAsker(trust_keys=getattr(options, "yes", False)))
    acts: dict[str, Callable[[Fleet, argparse.Namespace], ExitCode]] = {
        "add": _add,
        "list": _list,
        "check": _check,
        "install": _install,
        "remove": _remove,
        "queue": _queue,
        "trust": _trust,
    }
    try:
        return acts[options.act](fleet, options)
    except Cancelled:
        sys.stderr.write("Cancelled.\n")
        return ExitCode.INTERRUPTED
    finally:
        fleet.close()


def host_document(record: HostRecord) -> dict[str, Any]:
    """Return a host as the JSON document of ``hosts list``."""
    return msgspec.to_builtins(record)


def _tried(fleet: Fleet, record: HostRecord, options: argparse.Namespace) -> HostStatus:
    """Connect once; EnvironmentProblem with the reason when that fails."""
    asker = TerminalAsker(trust_keys=options.yes)
    with TerminalWatcher(quiet=options.json) as watcher:
        status = fleet.try_out(record, asker, watcher)
    if status.state is not LinkState.ONLINE:
        raise EnvironmentProblem(status.message, status.hint)
    return status


def _add(fleet: Fleet, options: argparse.Namespace) -> ExitCode:
    alias, address = options.alias, options.address
    if not alias and not address:
        is_configured = any(host.alias == options.name for host in fleet.config_hosts())
        alias, address = (options.name, "") if is_configured else ("", options.name)
    record = HostRecord(
        name=options.name,
        address=address,
        alias=alias,
        port=options.port,
        user=options.user,
        identity_file=options.identity,
        jump=tuple(hop.strip() for hop in options.jump.split(",") if hop.strip()),
        work_dir=options.work_dir,
        peer_address=options.peer_address,
    )
    if any(host.name == record.name for host in fleet.hosts()):
        raise UserError(f"There is a host called {record.name!r} already.", "Remove it first, or use another name.")
    fleet.add(record)
    if not options.unchecked:
        record = _looked_at(fleet, record)
    if options.json:
        print_json(host_document(record))
    else:
        print_text(f"Added {record.name}. Next: pilothouse hosts check {record.name}")
    return ExitCode.OK


def _looked_at(fleet: Fleet, record: HostRecord) -> HostRecord:
    """Connect to a new host and look whether it has a Slurm; it is forgotten again when that fails."""
    try:
        facts = probe_host(fleet.pool.link(record.name), record.work_dir)
    except BaseException:
        fleet.remove(record.name)
        raise
    if facts.slurm_partitions:
        record = msgspec.structs.replace(record, is_slurm=True)
        fleet.update(record)
    return record


def _list(fleet: Fleet, options: argparse.Namespace) -> ExitCode:
    if options.config:
        found = fleet.config_hosts()
        if options.json:
            print_json([{"alias": h.alias, "hostname": h.hostname, "user": h.user, "port": h.port} for h in found])
        else:
            print_text(
                table(("ALIAS", "HOST", "USER", "PORT"), [(h.alias, h.hostname, h.user, str(h.port)) for h in found])
            )
        return ExitCode.OK
    records = fleet.hosts()
    if options.json:
        print_json([host_document(record) for record in records])
        return ExitCode.OK
    if not records:
        print_text("No hosts yet. Add one: pilothouse hosts add NAME --address ADDRESS")
        return ExitCode.OK
    print_text(table(("NAME", "WHERE", "WORK FOLDER", "PYTHON", "CHECKED"), [_row(record) for record in records]))
    return ExitCode.OK


def _row(record: HostRecord) -> tuple[str, ...]:
    user = f"{record.user}@" if record.user else ""
    port = f":{record.port}" if record.port else ""
    runtime = record.runtime
    python = "-" if runtime.kind == "none" else f"{runtime.kind} {runtime.python}"
    return (
        record.name,
        f"{user}{record.address or record.alias}{port}",
        record.work_dir,
        python,
        local_time(runtime.checked),
    )


def _check(fleet: Fleet, options: argparse.Namespace) -> ExitCode:
    spec = _spec_of(options.spec) if options.spec else None
    with TerminalWatcher(quiet=True) as watcher:
        reports = fleet.check(tuple(options.names), spec, watcher)
    if options.json:
        documents = [msgspec.to_builtins(report) for report in reports]
        print_json(documents[0] if len(documents) == 1 else documents)
    else:
        print_text("\n\n".join(_report_text(report) for report in reports))
    return ExitCode.OK if all(report.ok for report in reports) else ExitCode.ENVIRONMENT


def _spec_of(name: str) -> RunSpec:
    from core.plugins.decode import read_spec
    from core.settings.resources import examples_dir

    path = Path(name) if Path(name).exists() else examples_dir() / name
    if not path.is_file():
        raise UserError(f"There is no spec {name!r}.", "Give a spec file, or the name of a shipped example.")
    return read_spec(path)


def _report_text(report: CheckReport) -> str:
    lines = [f"{report.host}: {'ready' if report.ok else 'not ready'}"]
    for found in report.findings:
        lines.append(f"  {_SIGNS[found.level.value]} {found.what}")
        if found.remedy:
            lines.append(f"          {found.remedy}")
    return "\n".join(lines)


def _choice(record: HostRecord, options: argparse.Namespace) -> RuntimeRecord:
    """Return what shall be installed: what was asked for now, and otherwise what the host has."""
    now = record.runtime
    if options.managed:
        now = RuntimeRecord(kind="managed", python=options.python)
    elif options.python:
        now = RuntimeRecord(kind="interpreter", python=options.python)
    elif now.kind == "none":
        now = RuntimeRecord(kind="managed")
    changes: dict[str, Any] = {}
    if options.prelude is not None:
        changes["prelude"] = tuple(options.prelude)
    if options.wrapper is not None:
        changes["wrapper"] = tuple(shlex.split(options.wrapper))
    if options.extra is not None:
        changes["extras"] = tuple(options.extra)
    if options.torch_backend:
        changes["torch_backend"] = options.torch_backend
    return msgspec.structs.replace(now, **changes)


def _install(fleet: Fleet, options: argparse.Namespace) -> ExitCode:
    choice = _choice(fleet.host(options.name), options)
    from_here = True if options.from_here else None
    with TerminalWatcher(quiet=options.json) as watcher:
        if options.repair:
            record = fleet.repair_runtime(options.name, watcher, from_here)
        else:
            record = fleet.install(options.name, choice, watcher, from_here)
    if options.json:
        print_json(host_document(record))
    else:
        print_text(f"{record.name} is ready for runs: {record.runtime.python}")
    return ExitCode.OK


def _remove(fleet: Fleet, options: argparse.Namespace) -> ExitCode:
    fleet.host(options.name)
    if options.runtime:
        with TerminalWatcher(quiet=options.json) as watcher:
            fleet.remove_runtime(options.name, watcher)
    fleet.remove(options.name)
    if options.json:
        print_json({"removed": options.name})
    else:
        print_text(f"{options.name} is forgotten. Its runs stay on it.")
    return ExitCode.OK


def _queue(fleet: Fleet, options: argparse.Namespace) -> ExitCode:
    if options.move:
        run_id, position = options.move
        if not position.isdecimal() or int(position) < 1:
            raise UserError(f"{position!r} is no place in a queue.", "Give a number from 1, the next to start.")
        fleet.move(options.name, run_id, int(position))
    entries = fleet.queue(options.name)
    if options.json:
        print_json([msgspec.to_builtins(entry) for entry in entries])
        return ExitCode.OK
    if not entries:
        print_text(f"Nothing holds devices of {options.name} or waits for them.")
        return ExitCode.OK
    rows = [
        (
            "runs" if entry.position == 0 else str(entry.position),
            entry.run_id,
            entry.name,
            ",".join(map(str, entry.devices)) or f"{entry.asked} asked",
            local_time(entry.since or None),
        )
        for entry in entries
    ]
    print_text(table(("PLACE", "RUN", "NAME", "DEVICES", "SINCE"), rows))
    return ExitCode.OK


def _trust(fleet: Fleet, options: argparse.Namespace) -> ExitCode:
    status = _tried(fleet, fleet.host(options.name), options)
    if options.json:
        print_json({"host": status.name, "state": status.state.value, "latency_s": status.latency_s})
    else:
        print_text(f"{status.name} answers, and its key is trusted.")
    return ExitCode.OK
