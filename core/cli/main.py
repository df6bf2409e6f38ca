"""The ``pilothouse`` command: dispatch, errors and exit codes. Without a command it opens the window.

The window belongs to ``app``, which ``core`` does not know; its opener is handed in by the entry point.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version

from core.cli.arguments import build_parser
from core.cli.output import ExitCode, code_of_error, print_error, print_text
from core.contracts.errors import EnvironmentProblem, PilothouseError

OpenWindow = Callable[[argparse.Namespace], int]


def main(open_window: OpenWindow, argv: Sequence[str] | None = None) -> int:
    """Carry out a command line; return the exit code."""
    options = build_parser().parse_args(argv)
    if options.version:
        print_text(f"pilothouse {version('pilothouse')}")
        return ExitCode.OK
    try:
        return open_window(options) if options.command is None else _dispatch(options)
    except PilothouseError as error:
        print_error(error, as_json=options.json)
        return code_of_error(error)
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted. Runs go on; list them with: pilothouse runs list\n")
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except OSError as error:
        if options.command is None:
            raise
        where = f"{str(error.filename)!r} cannot be used" if error.filename else "A file cannot be used"
        problem = EnvironmentProblem(f"{where}: {error.strerror or error}.", "Check its permissions and its disk.")
        print_error(problem, as_json=options.json)
        return code_of_error(problem)


def _dispatch(options: argparse.Namespace) -> int:
    if options.command == "hardware":
        from core.cli.hardware import show_hardware

        return show_hardware(options)
    if options.command == "hosts":
        from core.cli.hosts import hosts

        return hosts(options)
    if options.command == "check-layouts":
        from core.cli.layouts import check_layouts

        return check_layouts(options)
    if options.command == "image":
        from core.cli.image import image

        return image(options)
    from core.workspace.workspace import Workspace

    workspace = Workspace.open()
    try:
        for notice in workspace.notices:
            sys.stderr.write(f"{notice.message} {notice.hint}\n")
        if options.command == "quickstart":
            from core.cli.quickstart import quickstart

            return quickstart(workspace, options)
        if options.command == "sweep":
            from core.cli.sweep import show_sweep

            return show_sweep(workspace, options)
        from core.cli import profile, remote, runs

        if options.command == "run":
            return runs.run_spec(workspace, options)
        acts = {
            "list": runs.list_runs,
            "show": runs.show,
            "logs": runs.logs,
            "stop": runs.stop,
            "resume": runs.resume,
            "pause": remote.pause,
            "continue": remote.proceed,
            "give-up": remote.give_up,
            "retry": remote.retry,
            "fetch": remote.fetch,
            "profile": profile.profile,
            "delete": runs.delete,
            "restore": runs.restore,
            "purge": runs.purge,
            "rebuild": runs.rebuild,
            "export": runs.export,
        }
        return acts[options.act](workspace, options)
    finally:
        workspace.close()
