"""Runs a long command on a host so that its lines are seen, and nothing of it stays when it is cancelled or cut off.

A small shell script stands between: it watches its standard input, which ends when we cancel, when this program dies or
when the connection is lost, and then ends the command with all it started and removes the half-made folder. The same
folder goes when the command fails.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from core.contracts.errors import Cancelled, EnvironmentProblem
from core.contracts.hosts import Progress, Watcher
from core.contracts.links import Link, RemoteProcess

_POLL_S = 0.2
_UNDO_LIMIT_S = 30.0
_KEPT_LINES = 40
_LONGEST_LINE = 2000
_ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\x00-\x08\x0b-\x1f\x7f]")

# `setsid` gives the command a group of its own, to be ended as a whole. The last line tells its exit status even where
# the connection does not.
_GUARD = r"""
mark=$1 undo=$2 cancelled=
shift 2
exec 3<&0 </dev/null 2>&1
if command -v setsid >/dev/null; then setsid "$@" 3<&- & group=-$!; else "$@" 3<&- & group=$!; fi
command=$!
trap '' PIPE HUP
trap 'cancelled=yes' USR1
( while IFS= read -r line; do :; done <&3; kill -USR1 $$ ) >/dev/null 2>&1 &
reader=$!
wait "$command"
code=$?
if [ -n "$cancelled" ]; then
  kill -s TERM -- "$group" 2>/dev/null
  tries=0
  while kill -s 0 -- "$group" 2>/dev/null && [ "$tries" -lt 50 ]; do sleep 0.1; tries=$((tries + 1)); done
  kill -s KILL -- "$group" 2>/dev/null
  wait "$command"
  code=130
fi
kill "$reader" 2>/dev/null
[ "$code" != 0 ] && [ -n "$undo" ] && rm -rf -- "$undo"
printf '\n%s %s\n' "$mark" "$code"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded:
    """A long command.

    Attributes:
        argv: The command; no word is interpreted by a shell.
        stage: What it does, for the user.
        done: How far the whole work is when it starts, 0 to 1.
        undo: Folder on the host to remove when it fails, is cancelled or is cut off; empty for none.
        limit_s: Longest silence before it counts as hanging.
    """

    argv: Sequence[str]
    stage: str
    done: float | None = None
    undo: str = ""
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    limit_s: float = 900.0


def run_guarded(link: Link, command: Guarded, watcher: Watcher) -> tuple[int, list[str]]:
    """Run a command to its end; return its exit status and its last lines.

    Raises:
        Cancelled: The user cancelled; the command has ended and ``undo`` is gone.
        EnvironmentProblem: The link was lost, or it was silent for too long; then it is ended on the host all the same.
    """
    mark = f"@{secrets.token_hex(8)}"
    watcher.report(Progress(stage=command.stage, done=command.done))
    process = link.start(["/bin/sh", "-c", _GUARD, "sh", mark, command.undo, *command.argv], env=command.env)
    kept: list[str] = []
    try:
        for line in _lines(process, command, watcher.is_cancelled):
            if line.startswith(f"{mark} "):
                return int(line.removeprefix(f"{mark} ")), kept
            if line.strip():
                watcher.report(Progress(stage=command.stage, done=command.done, line=line))
                kept = [*kept[1 - _KEPT_LINES :], line]
    finally:
        process.close()
    raise EnvironmentProblem(
        f"The connection to {link.name} was lost while: {command.stage}.",
        "What was half done is removed there. Try again when the host can be reached.",
    )


def _lines(process: RemoteProcess, command: Guarded, is_cancelled: Callable[[], bool]) -> Iterator[str]:
    """Yield whole lines without control sequences; ends with the process."""
    rest, heard = b"", time.monotonic()
    while True:
        if is_cancelled():
            _end(process)
            raise Cancelled
        try:
            data = process.read(1 << 16, timeout_s=_POLL_S)
        except TimeoutError:
            if time.monotonic() - heard > command.limit_s:
                raise EnvironmentProblem(
                    f"{command.stage}: nothing has come from the host for {command.limit_s / 60:.0f} minutes.",
                    "Look at the host's load and network, then try again.",
                ) from None
            continue
        heard = time.monotonic()
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield _plain(line)
        rest = rest[-_LONGEST_LINE:]
        if not data:
            yield _plain(rest)
            return


def _plain(line: bytes) -> str:
    # What a carriage return overwrote is not shown: progress bars draw themselves that way.
    shown = line.rstrip(b"\r").rpartition(b"\r")[2]
    return _ESCAPES.sub(b"", shown[:_LONGEST_LINE]).decode(errors="replace")


def _end(process: RemoteProcess) -> None:
    """Tell the guard to end the command, and wait until it has cleaned up."""
    process.close_input()
    deadline = time.monotonic() + _UNDO_LIMIT_S
    while time.monotonic() < deadline:
        try:
            if not process.read(1 << 16, timeout_s=_POLL_S):
                return
        except TimeoutError:
            continue
