"""The command line that starts one of our modules on a host, in the Python environment that the host's record names.

Every word is handed on as it is; the only text that a shell interprets is the user's own prelude. What the prelude
(or bash's start-up files) prints goes to stderr and what it reads is empty, so that the program's own streams, which
carry frames, stay clean. It starts nothing itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from core.contracts.errors import UserError
from core.contracts.hosts import RuntimeRecord

# The streams are put aside while start-up files and the prelude run; `-l` makes `module` and `conda` known to bash.
_KEEP_STREAMS = 'exec 3>&1 4<&0 1>&2 0</dev/null; exec bash -l -c "$@"'
_GIVE_BACK = 'exec "$@" 1>&3 0<&4 3>&- 4<&-'
_WITH_PATH = 'PYTHONPATH="$0${PYTHONPATH:+:$PYTHONPATH}"; export PYTHONPATH; exec "$@"'


def command_of(runtime: RuntimeRecord, module: str, args: Sequence[str] = ()) -> list[str]:
    """Return the words that start a module of ours on the host.

    Args:
        runtime: The host's Python environment.
        module: Dotted name, such as ``core.cli.agent``.
        args: Its arguments; may hold any text.

    Raises:
        UserError: The host has no Python environment for runs yet.
    """
    return python_command(runtime, ["-P", "-m", module, *args])


def python_command(runtime: RuntimeRecord, args: Sequence[str]) -> list[str]:
    """Return the words that start the host's interpreter with ``args``; UserError when it has none yet."""
    if runtime.kind == "none" or not runtime.python:
        raise UserError(
            "This host has no Python environment for runs yet.",
            "Install one: in the window under Hosts, or with: pilothouse hosts install NAME",
        )
    words = [runtime.python, *args]
    if runtime.worker_dir:
        words = ["/bin/sh", "-c", _WITH_PATH, runtime.worker_dir, *words]
    return with_prelude(runtime.prelude, [*runtime.wrapper, *words])


def with_prelude(prelude: Sequence[str], words: Sequence[str]) -> list[str]:
    """Return the words that run the prelude in a login bash and then become the command."""
    if not any(line.strip() for line in prelude):
        return list(words)
    script = "\n".join([*prelude, _GIVE_BACK])
    return ["/bin/sh", "-c", _KEEP_STREAMS, "sh", script, "bash", *words]
