"""The ``pilothouse runs`` commands and ``pilothouse run``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from core.cli.node_tables import is_elsewhere, nodes_document, nodes_text
from core.cli.output import (
    ExitCode,
    code_of_state,
    local_time,
    number,
    print_json,
    print_text,
    run_document,
    summary_document,
    table,
)
from core.cli.placing import placed_spec
from core.cli.progress import ProgressLine
from core.cli.terminal_asker import TerminalAsker, TerminalWatcher
from core.contracts.errors import EnvironmentProblem, UserError
from core.contracts.hosts import LOCAL_HOST, FindingLevel
from core.contracts.ids import RunId
from core.contracts.runs import RunQuery, RunSummary
from core.contracts.specs import RunSpec
from core.contracts.states import RunState
from core.fleet.remote_runs import engine_of
from core.workspace.workspace import Workspace

_LOG_PIECE_BYTES = 1 << 20
REACH_S = 8.0
"""How long a command waits for what hosts have written; then it shows what is here."""


def run_spec(workspace: Workspace, options: argparse.Namespace) -> ExitCode:
    """Launch a spec; with ``--follow`` wait for its end. Ctrl+C while following leaves the run going."""
    spec = placed_spec(workspace.read_spec(Path(options.spec)), options)
    if options.dry_run:
        text = workspace.preview(spec)
        if options.json:
            print_json({"preview": text})
        else:
            print_text(text.rstrip("\n"))
        return ExitCode.OK
    run_id = _launched(workspace, spec, options)
    if not options.follow:
        run_dir = workspace.home.run_dir(run_id)
        if options.json:
            print_json({"run_id": run_id, "run_dir": str(run_dir)})
        else:
            print_text(f"Launched {run_id}. Follow it with: pilothouse runs logs {run_id} --follow")
        return ExitCode.OK
    return follow(workspace, run_id, as_json=options.json)


def _launched(workspace: Workspace, spec: RunSpec, options: argparse.Namespace) -> RunId:
    """Launch; Ctrl+C undoes one that goes elsewhere, where half of it may have begun."""
    if engine_of(spec.launch) is None:
        return workspace.launch_spec(spec)
    workspace.fleet.set_asker(TerminalAsker())
    with TerminalWatcher(quiet=options.json) as watcher:
        if not options.no_check:
            _check_hosts(workspace, spec, watcher)
        return workspace.launch_spec(spec, watcher=watcher)


def _check_hosts(workspace: Workspace, spec: RunSpec, watcher: TerminalWatcher) -> None:
    """Look at the hosts before a launch; warnings go to stderr.

    Raises:
        EnvironmentProblem: Something stands against the launch; the sentence lists all of it.
    """
    launch = spec.launch
    names = launch.hosts or ((launch.slurm.cluster,) if launch.slurm.cluster not in ("", LOCAL_HOST) else ())
    if not names:
        return
    found = [(r.host, finding) for r in workspace.fleet.check(names, spec, watcher) for finding in r.findings]
    for host, finding in found:
        if finding.level is FindingLevel.WARNING:
            sys.stderr.write(f"{host}: {finding.what} {finding.remedy}\n")
    errors = [f"{host}: {f.what} {f.remedy}".strip() for host, f in found if f.level is FindingLevel.ERROR]
    if errors:
        raise EnvironmentProblem(" | ".join(errors), "Put it right, or launch all the same with --no-check.")


def follow(workspace: Workspace, run_id: RunId, *, as_json: bool) -> ExitCode:
    """Wait for the end of a run, showing its progress; return the exit code that tells how it ended."""
    if not as_json:
        print_text(f"Following {run_id}. Ctrl+C stops following, not the run.")
    with ProgressLine(enabled=not as_json) as line:
        summary = workspace.wait(run_id, line.show)
    if as_json:
        print_json(run_document(workspace.detail(run_id)))
    else:
        print_text(_ending(summary))
    return code_of_state(summary.state)


def _ending(run: RunSummary) -> str:
    lines = [f"{run.run_id}: {run.state.value}. {run.message} {run.hint}".rstrip()]
    lines += [f"  {key} = {number(value)}" for key, value in sorted(run.final.items())]
    return "\n".join(lines)


def list_runs(workspace: Workspace, options: argparse.Namespace) -> ExitCode:
    """Print the newest runs that match."""
    workspace.sync(reach_s=REACH_S)
    query = RunQuery(
        text=options.text,
        states=tuple(RunState(state) for state in options.state),
        kinds=tuple(options.kind),
        sort=options.sort,
        descending=not options.ascending,
        limit=options.limit,
    )
    page = workspace.runs(query)
    if options.json:
        print_json([run_document(workspace.detail(run.run_id)) for run in page.rows])
        return ExitCode.OK
    if not page.rows:
        print_text(
            "No run matches."
            if page.total or options.text or options.state or options.kind
            else "There are no runs yet."
        )
        return ExitCode.OK
    rows = [(r.run_id, r.state.value, r.kind, local_time(r.created), r.message or r.stage) for r in page.rows]
    print_text(table(("RUN", "STATE", "KIND", "CREATED", "MESSAGE"), rows))
    if page.total > len(page.rows):
        print_text(f"{page.total - len(page.rows)} more; raise --limit to see them.")
    return ExitCode.OK


def show(workspace: Workspace, options: argparse.Namespace) -> ExitCode:
    """Print one run."""
    run_id = found_run(workspace, options)
    detail = workspace.detail(run_id)
    nodes = workspace.nodes(run_id)
    if options.json:
        print_json({**run_document(detail), **nodes_document(nodes)})
        return ExitCode.OK
    run = detail.summary
    print_text(_ending(run))
    print_text(
        f"  kind {run.kind}, started {local_time(run.started)}, ended {local_time(run.ended)}, folder {run.run_dir}"
    )
    if is_elsewhere(nodes):
        print_text(f"\n{nodes_text(nodes)}")
    for found in detail.tables:
        rows = [tuple(number(c) if isinstance(c, float) else str(c) for c in row) for row in found.rows]
        print_text(f"\n{found.name}\n{table(found.columns, rows)}")
    if detail.artifacts:
        print_text("\nartifacts")
        print_text(
            table(
                ("NAME", "KIND", "BYTES", "PATH"),
                [(a.name, a.kind, str(a.size_bytes), a.path) for a in detail.artifacts],
            )
        )
    return ExitCode.OK


def found_run(workspace: Workspace, options: argparse.Namespace) -> RunId:
    """Return the run that the command names; UserError when none or several match."""
    workspace.sync()
    run_id = workspace.find(options.run_id)
    workspace.refresh(run_id, REACH_S)
    return run_id


def logs(workspace: Workspace, options: argparse.Namespace) -> ExitCode:
    """Print the output of a run; with ``--follow`` until it ends."""
    run_id = found_run(workspace, options)
    start = -options.tail_bytes if options.tail_bytes else 0
    if options.json:
        piece = workspace.log(run_id, start, 64 * _LOG_PIECE_BYTES, options.node)
        print_json({"run_id": run_id, "text": piece.text, "start": piece.start, "end": piece.end, "total": piece.total})
        return ExitCode.OK
    offset = _print_from(workspace, run_id, start, options.node)
    if options.follow:

        def print_new(_: RunSummary | None = None) -> bool:
            nonlocal offset
            offset = _print_from(workspace, run_id, offset, options.node)
            return False

        workspace.wait(run_id, should_stop=print_new)
        print_new()
    return ExitCode.OK


def _print_from(workspace: Workspace, run_id: RunId, offset: int, node: str) -> int:
    while True:
        piece = workspace.log(run_id, offset, _LOG_PIECE_BYTES, node)
        sys.stdout.write(piece.text)
        sys.stdout.flush()
        if piece.end >= piece.total:
            return piece.end
        offset = piece.end


def stop(workspace: Workspace, options: argparse.Namespace) -> ExitCode:
    """Ask a run to stop; with ``--follow`` wait until it has."""
    run_id = found_run(workspace, options)
    workspace.stop(run_id)
    if options.follow:
        return ExitCode.OK if follow(workspace, run_id, as_json=options.json) is ExitCode.STOPPED else ExitCode.FAILED
    return _say(workspace, run_id, f"Asked {run_id} to save and stop.", as_json=options.json)


def resume(workspace: Workspace, options: argparse.Namespace) -> ExitCode:
    """Resume a run; with ``--follow`` wait for its end."""
    run_id = found_run(workspace, options)
    workspace.resume(run_id)
    if options.follow:
        return follow(workspace, run_id, as_json=options.json)
    return _say(workspace, run_id, f"Resumed {run_id} from its last checkpoint.", as_json=options.json)


def _say(workspace: Workspace, run_id: RunId, sentence: str, *, as_json: bool) -> ExitCode:
    if as_json:
        print_json(summary_document(workspace.summary(run_id)))
    else:
        print_text(sentence)
    return ExitCode.OK


def delete(workspace: Workspace, options: argparse.Namespace) -> ExitCode:
    """Move runs to the bin."""
    workspace.sync()
    found = [workspace.find(text) for text in options.run_ids]
    workspace.delete(found)
    if options.json:
        print_json({"deleted": found})
    else:
        print_text(f"Moved to the bin: {', '.join(found)}. Take back with: pilothouse runs restore ID")
    return ExitCode.OK


def restore(workspace: Workspace, options: argparse.Namespace) -> ExitCode:
    """Take runs back out of the bin."""
    found = [RunId(text) for text in options.run_ids]
    workspace.restore(found)
    if options.json:
        print_json({"restored": found})
    else:
        print_text(f"Restored: {', '.join(found)}.")
    return ExitCode.OK


def purge(workspace: Workspace, options: argparse.Namespace) -> ExitCode:
    """Remove runs in the bin for good.

    Raises:
        UserError: Neither ids nor ``--all`` were given.
    """
    if bool(options.run_ids) == options.all:
        raise UserError("Say which runs to remove for good.", "Give their ids, or --all for everything in the bin.")
    chosen = workspace.binned() if options.all else tuple(RunId(text) for text in options.run_ids)
    freed = workspace.purge(chosen)
    if options.json:
        print_json({"purged": list(chosen), "freed_bytes": freed})
    else:
        print_text(
            f"Removed {len(chosen)} {'run' if len(chosen) == 1 else 'runs'} for good; {freed >> 20} MiB are free again."
        )
    return ExitCode.OK


def rebuild(workspace: Workspace, options: argparse.Namespace) -> ExitCode:
    """Make the index anew."""
    count = workspace.rebuild()
    if options.json:
        print_json({"runs": count})
    else:
        print_text(f"The history was made anew from {count} run {'directory' if count == 1 else 'directories'}.")
    return ExitCode.OK


def export(workspace: Workspace, options: argparse.Namespace) -> ExitCode:
    """Write a run's metrics to a file."""
    run_id = found_run(workspace, options)
    ending = {"csv": ".csv", "parquet": ".parquet", "tensorboard": ""}[options.format]
    target = Path(options.output).expanduser() if options.output else Path.cwd() / f"{run_id}{ending}"
    written = workspace.export(run_id, options.format, target.absolute())
    if options.json:
        print_json({"run_id": run_id, "format": options.format, "path": str(written)})
    else:
        print_text(f"Wrote {written}.")
    return ExitCode.OK
