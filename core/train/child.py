"""Starts a program as a child of a run's worker, follows it to its end, and leaves nothing of it behind.

Its output is the worker's own, so it lands in the run's log. Stopping asks it by TERM and gives it the spec's grace.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from core.contracts.errors import EnvironmentProblem
from core.contracts.worker import RunContext
from core.jobs.processes import descendants
from core.jobs.triage import classify

_POLL_S = 0.2
_KILL_WAIT_S = 5.0
_IDLE_LIMIT_S = 2.0
_WORD_LIMIT_S = 3.0


def start(argv: Sequence[str], cwd: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a program with our output as its own.

    Args:
        argv: Program and arguments.
        cwd: Working folder.
        env: Variables to set over ours; an empty one is removed.

    Raises:
        EnvironmentProblem: It cannot be started.
    """
    environment = {name: value for name, value in {**os.environ, **env}.items() if value}
    try:
        return subprocess.Popen(argv, cwd=cwd, env=environment, stdin=subprocess.DEVNULL)
    except OSError as error:
        raise EnvironmentProblem(
            f"{argv[0]} cannot be started in {cwd}: {error.strerror}.", "Check the interpreter and the working folder."
        ) from error


def end(process: subprocess.Popen[bytes]) -> None:
    """Leave no process behind, whatever happened."""
    if process.poll() is None:
        process.kill()
        process.wait(_KILL_WAIT_S)


def follow(
    process: subprocess.Popen[bytes],
    context: RunContext,
    *,
    grace_s: float,
    launches_ranks: bool,
    what: str,
    poll: Callable[[], object] = lambda: None,
) -> bool:
    """Wait until a program ends; return whether it was asked to stop.

    Args:
        process: The program.
        context: The run; a stop of it is passed on.
        grace_s: Seconds it may take after that.
        launches_ranks: It is a launcher: when its ranks have ended, torchrun waits up to five minutes for the other
            nodes, and hears no signal meanwhile; without ranks it is ended at once.
        what: What it is, for the log, such as ``The script``.
        poll: Called five times a second.
    """
    deadline = idle_since = None
    while process.poll() is None:
        poll()
        now = time.monotonic()
        if deadline is None and context.should_stop():
            context.log(f"{what} is asked to stop.")
            process.terminate()
            deadline = now + grace_s
        if deadline is not None:
            idle_since = (idle_since or now) if launches_ranks and not descendants(process.pid) else None
            if now > deadline:
                context.log(f"{what} did not end in time and was killed.", "warning")
                end(process)
            elif idle_since is not None and now - idle_since > _IDLE_LIMIT_S:
                end(process)
        try:
            process.wait(_POLL_S)
        except subprocess.TimeoutExpired:
            continue
    return deadline is not None


def is_stopped_too(context: RunContext, output: str) -> bool:
    """Tell whether the run is being stopped or paused; what only says that others are gone waits for word of that.

    When one node of several is stopped first, the ranks of the others may end by themselves before their own stop.
    """
    diagnosis = classify(output)
    deadline = time.monotonic() + (_WORD_LIMIT_S if diagnosis is not None and diagnosis.is_secondary else 0.0)
    while not (is_stopped := context.should_stop()) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return is_stopped
