"""Judges how an attempt ended: exit status, failure event, signal and last words become a state and a sentence."""

from __future__ import annotations

import re
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path

from core.contracts.events import FailureEvent
from core.contracts.states import RunState
from core.jobs import triage
from core.jobs.records import EXIT_NO_SPACE, EXIT_STOPPED, Attempt
from core.jobs.triage import Diagnosis
from core.runlog.layout import RunLayout
from core.runlog.tail import read_file

_LOG_TAIL_BYTES = 64 << 10
_TRIAGE_BYTES = 1 << 20
_EVENT_TAIL_BYTES = 256 << 10
_VMSTAT = Path("/proc/vmstat")
RESUME_HINT = "Resume it to go on from its last checkpoint."
_MEMORY_HINT = "Use a smaller batch or model, or close other programs, then resume it."
_KILLED = re.compile(r"was ended by SIG(KILL|SEGV|BUS|ILL|FPE)")
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True, slots=True)
class Verdict:
    """How an attempt ended, for people.

    Attributes:
        kind: What went wrong, as ``core.jobs.triage`` calls it; empty when it is not known.
        is_secondary: It failed because another part of the run did, as far as its own words tell.
        failed_at: Unix seconds of the failure; 0 when there was none or it is not known.
    """

    state: RunState
    message: str
    hint: str = ""
    kind: str = ""
    is_secondary: bool = False
    failed_at: float = 0.0


def out_of_memory_kills() -> int:
    """Return how many processes the kernel has killed for memory since boot; 0 where it does not tell."""
    try:
        text = _VMSTAT.read_text(encoding="ascii")
    except OSError:
        return 0
    match = re.search(r"^oom_kill (\d+)$", text, re.MULTILINE)
    return int(match.group(1)) if match else 0


def not_started(error: OSError) -> Verdict:
    """Return the verdict for a worker that could not be started."""
    return Verdict(
        RunState.FAILED, f"The worker could not be started: {error.strerror or error}.", "See the log of the run."
    )


def read_tail(path: Path, offset: int = 0, limit_bytes: int = _LOG_TAIL_BYTES) -> str:
    """Return the end of a log, from ``offset`` on at the earliest; empty when there is none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(offset, size - limit_bytes))
            return file.read(limit_bytes).decode(errors="replace")
    except OSError:
        return ""


def last_line(path: Path, offset: int = 0) -> str:
    """Return the last line of a log that says something; empty when there is none. Reads at most 64 KiB."""
    text = read_tail(path, offset)
    for line in reversed(re.split(r"[\r\n]", text)):
        plain = _ANSI.sub("", line).strip()
        if any(letter.isalnum() for letter in plain):
            return plain[:500]
    return ""


def first_failure(attempt: Attempt) -> FailureEvent | None:
    """Return the first failure that any writer of the attempt recorded; None when there is none."""
    found: list[FailureEvent] = []
    for path in attempt.run_dir.glob(f"events.{attempt.node}.*.jsonl"):
        try:
            start = max(0, path.stat().st_size - _EVENT_TAIL_BYTES)
            batch = read_file(path, start, _EVENT_TAIL_BYTES)
        except OSError:
            continue
        events = batch.events if batch else ()
        found += [event for event in events if isinstance(event, FailureEvent) and event.ts >= attempt.started]
    return min(found, key=lambda event: event.ts, default=None)


def judge(
    attempt: Attempt, returncode: int, *, stop_reason: str = "", was_killed: bool = False, memory_kills: int = 0
) -> Verdict:
    """Return the verdict on a worker that ended.

    Args:
        attempt: Whose worker; failure events older than its start belong to earlier attempts.
        returncode: Its exit status, or minus the signal that ended it.
        stop_reason: Why it was asked to stop; empty when it was not.
        was_killed: It did not end within the grace.
        memory_kills: Processes the kernel killed for memory during the attempt.
    """
    if returncode == 0:
        return Verdict(RunState.SUCCEEDED, "")
    if was_killed:
        return Verdict(RunState.STOPPED, f"{stop_reason} It did not end in time and was killed.", RESUME_HINT)
    if returncode == EXIT_STOPPED or (stop_reason and returncode == -signal.SIGTERM):
        return Verdict(RunState.STOPPED, stop_reason or "It was asked to stop.", RESUME_HINT)
    if returncode == EXIT_NO_SPACE:
        return Verdict(
            RunState.FAILED,
            f"The disk that holds {str(attempt.run_dir)!r} is full.",
            f"Free space there. {RESUME_HINT}",
        )
    tail = read_tail(RunLayout(attempt.run_dir).stdout(attempt.node), attempt.stdout_offset, _TRIAGE_BYTES)
    return _explained(attempt, returncode, memory_kills, triage.classify(tail, attempt.node))


def _explained(attempt: Attempt, returncode: int, memory_kills: int, diagnosis: Diagnosis | None) -> Verdict:
    """Return the verdict on a worker that failed: by its own failure event, else by what is known of its end."""
    kind = "" if diagnosis is None else diagnosis.kind
    is_secondary = diagnosis is not None and diagnosis.is_secondary
    failure = first_failure(attempt)
    if failure is not None and memory_kills and "SIGKILL" in failure.message:
        message = f"The machine ran out of memory and the kernel ended a process of the run. {failure.message}"
        return Verdict(RunState.FAILED, message, _MEMORY_HINT, "memory_killed", failed_at=failure.ts)
    if failure is not None:
        # A rank that was killed is a cause, whatever the others say that lost it.
        is_secondary = is_secondary and not _KILLED.search(failure.message)
        return Verdict(RunState.FAILED, failure.message, failure.hint, kind, is_secondary, failure.ts)
    words = last_line(RunLayout(attempt.run_dir).stdout(attempt.node), attempt.stdout_offset)
    unexplained = _unexplained(returncode, memory_kills, words)
    return replace(unexplained, kind=kind, is_secondary=is_secondary, failed_at=time.time())


def _unexplained(returncode: int, memory_kills: int, words: str) -> Verdict:
    said = f" Its last words: {words}" if words else ""
    if returncode >= 0:
        return Verdict(
            RunState.FAILED, f"The worker ended with exit status {returncode}.{said}", "See the log of the run."
        )
    name = signal.Signals(-returncode).name if -returncode in signal.valid_signals() else str(-returncode)
    if -returncode == signal.SIGKILL and memory_kills:
        return Verdict(
            RunState.FAILED,
            f"The machine ran out of memory and the kernel killed the worker.{said}",
            _MEMORY_HINT,
        )
    return Verdict(RunState.FAILED, f"The worker was killed by signal {name}.{said}", RESUME_HINT)
