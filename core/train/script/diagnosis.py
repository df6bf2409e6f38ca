"""Why a script failed, in a sentence, from its exit code and the end of its output.

Of several processes the one that failed first counts: torchrun names it; its own summary is never quoted.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from pathlib import Path

from core.contracts.errors import UserError

_TAIL_BYTES = 1 << 18
_RANK_PREFIX = re.compile(r"^\[rank(\d+)\]:\s?")
_FAILED_RANK = re.compile(r"Root Cause.*?rank\s*:\s*(\d+).*?exitcode\s*:\s*(-?\d+)", re.DOTALL)
_EXCEPTION = re.compile(r"^[A-Za-z_][\w.]*(?::\s.*)?$")
_MISSING_MODULE = re.compile(r"No module named '?([\w.]+)'?")
_NOISE = ("ChildFailedError", "torch.distributed.elastic", "Traceback (most recent call last)")
_MEMORY = re.compile(r"out of memory|OutOfMemoryError|MemoryError|DefaultCPUAllocator", re.IGNORECASE)
_LONGEST_QUOTE = 300


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
        match = _RANK_PREFIX.match(raw)
        rank, line = (int(match[1]), raw[match.end() :]) if match else (None, raw)
        if line.startswith("Traceback (most recent call last)"):
            inside[rank] = True
        elif inside.get(rank) and line and not line[0].isspace() and _EXCEPTION.match(line):
            inside[rank] = False
            if "ChildFailedError" not in line:
                found.append(_Raised(rank, line.strip()))
    return found


def _quote(lines: list[str], failed_rank: int | None) -> str:
    """Return the line that says what went wrong."""
    raised = _tracebacks(lines)
    of_rank = [one.line for one in raised if one.rank is not None and one.rank == failed_rank]
    if of_rank:
        return of_rank[-1]
    if raised:
        return raised[0].line if failed_rank is not None else raised[-1].line
    meaningful = [line.strip() for line in lines if line.strip() and not any(noise in line for noise in _NOISE)]
    return meaningful[-1].rpartition("\r")[2] if meaningful else ""


def _how_it_ended(code: int) -> str:
    number = -code if code < 0 else code - 128
    if code < 0 or 128 < code <= 128 + 31:
        try:
            return f"was ended by {signal.Signals(number).name}"
        except ValueError:
            return f"was ended by signal {number}"
    return f"ended with exit code {code}"


def _hint(code: int, quote: str, interpreter: str) -> str:
    missing = _MISSING_MODULE.search(quote)
    if missing:
        package = missing[1].partition(".")[0]
        return f"Install {package!r} for {interpreter}, or choose the interpreter that has it."
    if _MEMORY.search(quote):
        return "The memory ran out: lower the batch size or the number of processes."
    if code in (-9, 137):
        return (
            "The system ends a program like this when memory runs out: lower the batch size, or close other programs."
        )
    if quote.startswith("FileNotFoundError"):
        return "Check the path and the working folder."
    return "The log shows what it printed before."


def explain_failure(code: int, output: str, interpreter: str) -> UserError:
    """Return the error to raise for a script that ended with ``code``.

    Args:
        code: Exit code as ``subprocess`` gives it: negative for a signal.
        output: The end of what it printed.
        interpreter: The Python it ran under, for the hint.
    """
    lines = output.splitlines()
    root = _FAILED_RANK.search(output)
    rank = int(root[1]) if root else None
    code = int(root[2]) if root else code
    quote = _quote(lines, rank)[:_LONGEST_QUOTE]
    who = "The script" if rank is None else f"Rank {rank} of the script"
    message = f"{who} {_how_it_ended(code)}" + (f": {quote}" if quote else ".")
    return UserError(message if message.endswith((".", "!", "?")) else f"{message}.", _hint(code, quote, interpreter))
