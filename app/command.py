"""The ``pilothouse`` command: the command line of ``core``, with the window as what opens without a command."""

from __future__ import annotations

import argparse
import sys

from core.cli.main import main as command_line
from core.settings.binding_check import check_binding


def _open_window(options: argparse.Namespace) -> int:
    # Before anything of Qt is imported, so that a missing binding is a sentence.
    check_binding()
    from app.__main__ import main as window

    arguments = [f"--{name.replace('_', '-')}" for name in ("quit_when_ready", "json") if getattr(options, name)]
    return window(arguments)


def main() -> int:
    """Run the command line of this process."""
    return command_line(_open_window)


if __name__ == "__main__":
    sys.exit(main())
