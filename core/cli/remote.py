"""The ``pilothouse runs`` commands for runs on other hosts: pause, continue, give up, retry, fetch."""

from __future__ import annotations

import argparse
import sys

from core.cli.output import ExitCode, print_json, print_text, summary_document
from core.cli.placing import host_names
from core.cli.runs import follow, found_run
from core.cli.terminal_asker import TerminalAsker, TerminalWatcher
from core.contracts.hosts import Progress
from core.workspace.workspace import Workspace


def pause(workspace: Workspace, options: argparse.Namespace) -> ExitCode:
    """Ask a run to save and end its work for now."""
    run_id = found_run(workspace, options)
    workspace.pause(run_id)
    return _say(
        workspace, run_id, f"Asked {run_id} to pause. Let it go on with: pilothouse runs continue {run_id}", options
    )


def give_up(workspace: Workspace, options: argparse.Namespace) -> ExitCode:
    """Count a run as lost whose hosts do not answer any more."""
    run_id = found_run(workspace, options)
    workspace.give_up(run_id)
    return _say(workspace, run_id, f"{run_id} counts as lost from now on.", options)


def proceed(workspace: Workspace, options: argparse.Namespace) -> ExitCode:
    """Let a paused run go on."""
    run_id = found_run(workspace, options)
    workspace.proceed(run_id)
    return _say(workspace, run_id, f"{run_id} goes on.", options)


def retry(workspace: Workspace, options: argparse.Namespace) -> ExitCode:
    """Resume an ended run, on other hosts where they are given."""
    run_id = found_run(workspace, options)
    workspace.fleet.set_asker(TerminalAsker())
    with TerminalWatcher(quiet=options.json) as watcher:
        workspace.retry(run_id, host_names(options.hosts) if options.hosts else None, watcher=watcher)
    if options.follow:
        return follow(workspace, run_id, as_json=options.json)
    return _say(workspace, run_id, f"Resumed {run_id} from its last checkpoint.", options)


class _StderrWatcher:
    """Shows each new stage of a long piece of work as a line for people."""

    def __init__(self) -> None:
        self._stage = ""

    def report(self, progress: Progress) -> None:
        """Print the stage when it changes."""
        if progress.stage != self._stage:
            self._stage = progress.stage
            sys.stderr.write(f"{progress.stage}\n")

    def is_cancelled(self) -> bool:
        """Never: Ctrl+C ends the program, and what was fetched stays."""
        return False


def fetch(workspace: Workspace, options: argparse.Namespace) -> ExitCode:
    """Bring files of a run here."""
    run_id = found_run(workspace, options)
    workspace.fetch(run_id, options.what, _StderrWatcher())
    folder = workspace.home.run_dir(run_id) / options.what
    if options.json:
        print_json({"run_id": run_id, "what": options.what, "path": str(folder)})
    else:
        print_text(f"The {options.what} of {run_id} are in {folder}.")
    return ExitCode.OK


def _say(workspace: Workspace, run_id: str, sentence: str, options: argparse.Namespace) -> ExitCode:
    if options.json:
        print_json(summary_document(workspace.summary(workspace.find(run_id))))
    else:
        print_text(sentence)
    return ExitCode.OK
