"""Why a script failed, in a sentence, from its exit code and the end of its output.

Known failures are told by ``core.jobs.triage``; of any other the failed rank's own words are quoted. Of several processes
the one that failed first counts: torchrun names it, unless its words are only the echo of another's failure; torchrun's
summary is never quoted.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from pathlib import Path

from core.contracts.errors import UserError
from core.jobs.triage import Diagnosis, classify, rank_and_line

_TAIL_BYTES = 1 << 18
_FAILED_RANK = re.compile(r"Root Cause.*?rank\s*:\s*(\d+).*?exitcode\s*:\s*(-?\d+)", re.DOTALL)
_LISTED_RANK = re.compile(r"rank\s*:\s*(\d+) \(local_rank: \d+\)\s*\n[^\n]*exitcode\s*:\s*(-?\d+)")
_EXCEPTION = re.compile(r"^[A-Za-z_][\w.]*(?::\s.*)?$")
_NOISE = (
    "ChildFailedError",
    "torch.distributed.elastic",
    "torch/distributed/elastic",
    "Traceback (most recent call last)",
)
_LONGEST_QUOTE = 300
_CRASHES = tuple(-int(one) for one in (signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE))
_KILLED = (-int(signal.SIGKILL), 128 + int(signal.SIGKILL))


@dataclass(frozen=True, slots=True)
class _Raised:
    """The last line of a traceback and the rank that printed it, where known."""

    rank: int | None
    line: str


def read_tail(log: Path, offset: int) -> str:
    """Return the end of this attempt's output; empty when there is none."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(offset, size - _TAIL_BYTES))
            return file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""


def _tracebacks(lines: list[str]) -> list[_Raised]:
    """Return what each traceback in the output ends with, in order, torchrun's own left out."""
    found: list[_Raised] = []
    inside: dict[int | None, bool] = {}
    for raw in lines:
        rank, line = rank_and_line(raw)
        if line.startswith("Traceback (most recent call last)"):
            inside[rank] = True
        elif inside.get(rank) and line and not line[0].isspace() and _EXCEPTION.match(line):
            inside[rank] = False
            if not any(noise in line for noise in _NOISE):
                found.append(_Raised(rank, line.strip()))
    return found


def _quote(lines: list[str], failed_rank: int | None) -> _Raised:
    """Return the line that says what went wrong."""
    raised = _tracebacks(lines)
    of_rank = [one for one in raised if one.rank is not None and one.rank == failed_rank]
    if of_rank:
        return of_rank[-1]
    if raised:
        return raised[0] if failed_rank is not None else raised[-1]
    plain = [rank_and_line(line) for line in lines if not any(noise in line for noise in _NOISE)]
    said = [_Raised(rank, line.strip().rpartition("\r")[2]) for rank, line in plain if line.strip()]
    of_rank = [one for one in said if one.rank == failed_rank]
    return (of_rank or said or [_Raised(failed_rank, "")])[-1]


def _how_it_ended(code: int) -> str:
    number = -code if code < 0 else code - 128
    if code < 0 or 128 < code <= 128 + 31:
        try:
            return f"was ended by {signal.Signals(number).name}"
        except ValueError:
            return f"was ended by signal {number}"
    return f"ended with exit code {code}"


def _hint(code: int, diagnosis: Diagnosis | None, interpreter: str) -> str:
    if diagnosis is not None and diagnosis.kind == "missing_module":
        package = diagnosis.message.split("'")[1].partition(".")[0]
        return f"Install {package!r} for {interpreter}, or choose the interpreter that has it."
    if diagnosis is not None:
        return diagnosis.hint
    if code in _KILLED:
        return (
            "The system ends a program like this when memory runs out: lower the batch size, or close other programs."
        )
    return "The log shows what it printed before."


def failed_rank(output: str) -> tuple[int | None, int | None]:
    """Return the rank that failed first, and its exit code, as torchrun's summary tells; None where there is none.

    Of ranks that it saw fail at the same moment it names any as the root; one that was killed is the cause then.
    """
    root = _FAILED_RANK.search(output)
    if root is None:
        return None, None
    killed = [(int(rank), int(code)) for rank, code in _LISTED_RANK.findall(output) if int(code) in _CRASHES]
    return killed[0] if killed else (int(root[1]), int(root[2]))


def explain_failure(code: int, output: str, interpreter: str, what: str = "The script") -> UserError:
    """Return the error to raise for a script that ended with ``code``.

    Args:
        code: Exit code as ``subprocess`` gives it: negative for a signal.
        output: The end of what it printed.
        interpreter: The Python it ran under, for the hint.
        what: What it was, at the beginning of a sentence.
    """
    lines = output.splitlines()
    rank, rank_code = failed_rank(output)
    code = code if rank_code is None else rank_code
    quote = _quote(lines, rank)
    diagnosis = classify(quote.line)
    if diagnosis is None or diagnosis.is_secondary:
        # The failed rank's last words tell nothing of the cause: a known failure anywhere in the log does.
        known = classify(output)
        if known is not None and not known.is_secondary:
            diagnosis = known
            rank = rank if known.rank is None else known.rank
    elif rank is None:
        rank = quote.rank
    if diagnosis is not None and diagnosis.is_secondary and code in _KILLED:
        # Killed, it said nothing itself: what is quoted are other ranks that lost it.
        diagnosis, quote = None, _Raised(rank, "")
    who = what if rank is None else f"Rank {rank} of {what[0].lower()}{what[1:]}"
    told = quote.line if diagnosis is None else diagnosis.message
    message = f"{who} {_how_it_ended(code)}" + (f": {told[:_LONGEST_QUOTE]}" if told else ".")
    hint = _hint(code, diagnosis, interpreter)
    return UserError(message if message.endswith((".", "!", "?")) else f"{message}.", hint)
