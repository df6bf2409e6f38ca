"""The worker process of a run: reads the spec, hosts the kind's ``run``, and turns what it raises into one sentence.

``python -P -m core.jobs.worker RUN_DIR ATTEMPT [NODE]``. Exit status: 0 done, 75 stopped on request, 76 disk full, 1 failed
(a failure event says why).
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from pathlib import Path

from core.contracts.errors import Cancelled, EnvironmentProblem, PilothouseError
from core.contracts.placement import LOCAL_NODE
from core.jobs.context import WorkerContext
from core.jobs.placed import placement_of
from core.jobs.records import EXIT_NO_SPACE, EXIT_STOPPED
from core.jobs.relocate import relocated
from core.plugins.decode import read_spec
from core.plugins.registry import registry
from core.runlog.layout import RunLayout


def _sentence(error: Exception) -> tuple[str, str, str]:
    """Return kind, message and hint of what a task raised."""
    if isinstance(error, EnvironmentProblem):
        return "environment", error.message, error.hint
    if isinstance(error, PilothouseError):
        return "user", error.message, error.hint
    if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError):
        return "out_of_memory", "The device ran out of memory.", "Halve the batch size, or use a smaller model."
    if is_no_space(error):
        return "environment", "The disk is full.", "Free some space and resume the run."
    first_line = str(error).strip().partition("\n")[0]
    return "bug", f"{type(error).__name__}: {first_line}".rstrip(": "), "The traceback is in the log."


def is_no_space(error: BaseException | None) -> bool:
    """Tell whether a full disk is at the root of an error; libraries that are not Python's, such as safetensors, only say so."""
    while error is not None:
        if isinstance(error, OSError):
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                return True
        elif not isinstance(error, PilothouseError) and os.strerror(errno.ENOSPC) in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def report(context: WorkerContext, error: Exception, *, before: str = "") -> int:
    """Turn what a task raised into a failure event and words in the log; return the exit status.

    Args:
        context: The run.
        error: What was raised.
        before: Put before the sentence, such as the rank.
    """
    kind, message, hint = _sentence(error)
    message = f"{before}{message}"
    try:
        if kind == "bug":
            traceback.print_exception(error)
        else:
            sys.stderr.write(f"{message} {hint}\n")
        sys.stderr.flush()
        context.failure(kind, message, hint)
    except OSError as secondary:
        return EXIT_NO_SPACE if is_no_space(secondary) else 1
    return EXIT_NO_SPACE if is_no_space(error) else 1


def host(run_dir: Path, attempt: int, node: str = LOCAL_NODE) -> int:
    """Run a node's part of the task of a run directory in this process; return the exit status."""
    spec = read_spec(RunLayout(run_dir).spec)
    kind = registry().get(str(spec.__struct_config__.tag))
    placement = placement_of(run_dir, kind.ranks(spec))
    home = Path(placement.of(node).work_dir)
    try:
        context = WorkerContext(home, run_dir, attempt, node=node, placement=placement)
    except OSError as error:
        sys.stderr.write(f"The event log cannot be opened: {error}\n")
        return EXIT_NO_SPACE if is_no_space(error) else 1
    context.obey_signals()
    try:
        kind.run(relocated(spec, placement, node), context)
        context.close()
    except Cancelled:  # a stop was asked for while the task could only give up, such as in reading data
        context.close()
    except SystemExit as error:
        return report(context, RuntimeError(f"the task ended its process itself with exit status {error.code!r}"))
    except Exception as error:  # noqa: BLE001 - the top frame of the worker: everything becomes a sentence
        return report(context, error)
    return EXIT_STOPPED if context.stop_seen else 0


if __name__ == "__main__":
    sys.exit(host(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:4]))
