"""What a log says went wrong: known failures of training programs, each as one sentence with a remedy. Pure.

Many ranks write into one log, and when one fails the others fail after it, often louder: a line such as "connection closed
by peer" is the echo of a failure elsewhere and counts only where nothing better is found; a rank that waited too long comes
between. Among equals the first in the log counts. ``core.jobs.outcome`` compares the nodes of a run.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

_RANK = re.compile(r"^(?:\[(?:rank|default)(\d+)\]:\s?)+")
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_LONGEST_LINE = 500
_LINES = 5000


class Weight(IntEnum):
    """How much a line tells of the cause."""

    CAUSE = 0
    WAITED = 1
    ECHO = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """A known failure.

    Attributes:
        kind: Its stable name, such as ``gpu_memory``.
        message: One sentence.
        hint: The remedy.
        rank: The rank whose line it is; None when the line does not tell.
        node: The node whose log it is, as given.
        line: The line itself, at most 500 characters.
        weight: How much it tells of the cause.
    """

    kind: str
    message: str
    hint: str
    rank: int | None = None
    node: str = ""
    line: str = ""
    weight: Weight = Weight.CAUSE

    @property
    def is_secondary(self) -> bool:
        """It is the echo of a failure elsewhere."""
        return self.weight is Weight.ECHO


Say = Callable[[re.Match[str]], str]


@dataclass(frozen=True, slots=True)
class _Rule:
    kind: str
    pattern: re.Pattern[str]
    message: Say
    hint: str
    weight: Weight = Weight.CAUSE


def _rule(kind: str, pattern: str, message: str | Say, hint: str, weight: Weight = Weight.CAUSE) -> _Rule:
    say: Say = (lambda match: match.expand(message)) if isinstance(message, str) else message
    return _Rule(kind, re.compile(pattern), say, hint, weight)


def _bytes(match: re.Match[str]) -> str:
    return f"The memory ran out: {int(match[1]) / 2**30:.2f} GiB more were asked for."


def _nccl_wait(match: re.Match[str]) -> str:
    return f"Rank {match[1]} waited {int(match[3]) / 1000:.0f} s in {match[2]} for the other ranks."


def _gloo_wait(match: re.Match[str]) -> str:
    return f"A rank waited {int(match[1]) / 1000:g} s for another one ({match[2]})."


_LESS = "Use a smaller batch, a shorter sequence or a smaller model, or shard it over more devices."
_LESS_HOST = "Use a smaller batch, fewer data loader workers or processes, or a machine with more memory."
_DRIVER = "Update the driver, or install a torch build for an older CUDA."
_WAITED = "Look for the rank that did not arrive: one that hangs, or works much longer; then resume the run."
_FIRST = "Look at the rank that failed first."
_RULES = (
    _rule(
        "gpu_memory",
        r"(CUDA|HIP|XPU) out of memory\. Tried to allocate ([\d.]+ \w+)\. (GPU \d+) has a total capacity of ([\d.]+ \w+)"
        r" of which ([\d.]+ \w+) is free",
        r"\1 out of memory: \2 more were asked for on \3 with \5 free of \4.",
        _LESS,
    ),
    _rule(
        "gpu_memory",
        r"(CUDA|HIP|XPU) (?:error: )?out of memory|CUBLAS_STATUS_ALLOC_FAILED",
        lambda match: f"{match[1] or 'CUDA'} out of memory.",
        _LESS,
    ),
    _rule(
        "memory", r"DefaultCPUAllocator: can't allocate memory: you tried to allocate (\d+) bytes", _bytes, _LESS_HOST
    ),
    _rule("memory", r"(?:^|\.)MemoryError\b(?:: (.+))?", "The memory of the machine ran out.", _LESS_HOST),
    _rule(
        "shared_memory",
        r"out of shared memory|DataLoader worker \(pid[^)]*\) is killed by signal: Bus error",
        "A data loader ran out of shared memory (/dev/shm).",
        "Make /dev/shm larger, or use fewer data loader workers.",
    ),
    _rule(
        "memory_killed",
        r"Out of memory: Killed process \d+|oom[-_]kill event|have been OOM Killed|oom-kill:",
        "The system killed a process of the run because the memory ran out.",
        _LESS_HOST,
    ),
    _rule(
        "time_limit",
        r"CANCELLED AT .* DUE TO TIME LIMIT",
        "The time limit of the job was reached.",
        "Resume the run, or ask for more time.",
    ),
    _rule(
        "preempted",
        r"CANCELLED AT .* DUE TO PREEMPTION",
        "The job was preempted by one of a higher priority.",
        "Resume the run, or let it be requeued.",
    ),
    _rule(
        "node_failed",
        r"CANCELLED AT .* DUE TO NODE FAILURE",
        "A node of the job failed.",
        "Resume the run on other nodes.",
    ),
    _rule(
        "missing_module",
        r"No module named '?([\w.]+)'?",
        r"No module named '\1'.",
        "Install it in the Python environment of the run, or choose another interpreter.",
    ),
    _rule(
        "driver",
        r"NVIDIA driver on your system is too old \(found version (\d+)\)",
        r"The NVIDIA driver is too old for this torch (it serves CUDA version \1).",
        _DRIVER,
    ),
    _rule(
        "driver",
        r"driver version is insufficient for CUDA runtime version|Driver/library version mismatch"
        r"|forward compatibility was attempted on non supported HW",
        "The driver and the CUDA libraries do not fit together.",
        f"{_DRIVER} After an update of the driver, restart the machine.",
    ),
    _rule(
        "driver",
        r"no kernel image is available for execution on the device",
        "This torch has no code for this GPU.",
        "Install a torch build for the GPU's architecture.",
    ),
    _rule(
        "driver",
        r"Found no NVIDIA driver on your system|Torch not compiled with CUDA enabled",
        "A GPU was asked for, but this torch finds none.",
        "Choose the CPU, or install the driver and a torch build with CUDA.",
    ),
    _rule(
        "device",
        r"invalid device ordinal",
        "A GPU was asked for that is not there.",
        "Start as many processes as devices were chosen.",
    ),
    _rule(
        "disk_full",
        r"No space left on device|Disk quota exceeded",
        "The disk is full.",
        "Free space, then resume the run.",
    ),
    _rule(
        "port_in_use",
        r"Address already in use|EADDRINUSE",
        "A network port that the run needs is in use.",
        "Launch it again: another port is chosen; or end what holds the port.",
    ),
    _rule(
        "host_key",
        r"Host key verification failed|REMOTE HOST IDENTIFICATION HAS CHANGED",
        "A host's key is unknown or has changed.",
        "Verify the host's key and accept it.",
    ),
    _rule(
        "gated_model",
        r"GatedRepoError|[Cc]annot access gated repo|Access to model \S+ is restricted",
        "The model is gated: its terms were not accepted, or no token was given.",
        "Accept the model's terms on its page and provide a token.",
    ),
    _rule(
        "permission",
        r"PermissionError: \[Errno 13\] Permission denied: (.+)",
        r"There is no permission for \1.",
        "Change the permission or the owner, or use another folder.",
    ),
    _rule(
        "data_row",
        r"(?:Error tokenizing data\. C error|CSV parse error): (?:Row #(\d+): )?(Expected \d+ \w+(?: in line \d+)?, (?:saw|got) \d+)",
        lambda match: f"A row of the data is damaged{f' (row {match[1]})' if match[1] else ''}: {match[2]}.",
        "Correct that row, or skip damaged rows.",
    ),
    _rule(
        "data_row",
        r"JSONDecodeError: (.+: line \d+ column \d+)",
        r"A row of the data is no JSON: \1.",
        "Correct that row.",
    ),
    _rule(
        "data_row",
        r"UnicodeDecodeError: (.+)",
        r"A text of the data is not in the encoding that was expected: \1.",
        "Convert the file to UTF-8, or name its encoding.",
    ),
    _rule(
        "missing_file",
        r"FileNotFoundError: \[Errno 2\] No such file or directory: (.+)",
        r"There is no file \1.",
        "Check the path and the working folder.",
    ),
    _rule(
        "open_files",
        r"Too many open files",
        "The limit of open files was reached.",
        "Raise it with ulimit -n on the host.",
    ),
    _rule(
        "collective_timeout",
        r"\[Rank (\d+)\].*collective operation timeout: WorkNCCL\(.*?OpType=(\w+).*?Timeout\(ms\)=(\d+)",
        _nccl_wait,
        _WAITED,
        Weight.WAITED,
    ),
    _rule(
        "collective_timeout",
        r"Timed out waiting (\d+)ms for (send|recv) operation",
        _gloo_wait,
        _WAITED,
        Weight.WAITED,
    ),
    _rule(
        "rendezvous_timeout",
        r"RendezvousTimeoutError|Timed out after \d+ seconds waiting for clients",
        "The nodes did not all meet in time.",
        "Look whether every node started, and whether they reach the head's port.",
        Weight.WAITED,
    ),
    _rule(
        "peer_gone",
        r"(?i:connection (?:was likely )?closed(?: by (?:remote )?peer)?|connection reset by peer|socket closed|broken pipe)"
        r"|connectFullMesh failed|remote process exited or there was a network error|ncclRemoteError",
        "The connection to another rank was lost: that one failed first.",
        _FIRST,
        Weight.ECHO,
    ),
    _rule(
        "peer_gone",
        r"connection to the C10d store has failed|RendezvousClosedError",
        "The rendezvous of the run was closed by another node.",
        _FIRST,
        Weight.ECHO,
    ),
    _rule(
        "ended_by_signal",
        r"SignalException: Process \d+ got signal: \d+|Received \d+ death signal",
        "It was asked to end.",
        _FIRST,
        Weight.ECHO,
    ),
)


def classify(text: str, node: str = "") -> Diagnosis | None:
    """Return what a log says went wrong; None when nothing in it is known.

    Args:
        text: The end of a log, the lines of all ranks as they came.
        node: Whose log it is, for the answer.
    """
    best: Diagnosis | None = None
    for raw in text.splitlines()[-_LINES:]:
        found = _classify_line(raw, node)
        if found is not None and (best is None or found.weight < best.weight):
            best = found
            if best.weight is Weight.CAUSE:
                break
    return best


def rank_and_line(raw: str) -> tuple[int | None, str]:
    """Return the rank that a line's prefix names, and the line without prefix and colours."""
    plain = _ESCAPES.sub("", raw)
    match = _RANK.match(plain)
    return (int(match[1]), plain[match.end() :]) if match else (None, plain)


def _classify_line(raw: str, node: str) -> Diagnosis | None:
    rank, line = rank_and_line(raw[: 4 * _LONGEST_LINE])
    for rule in _RULES:
        match = rule.pattern.search(line)
        if match is not None:
            named = int(match[1]) if rank is None and rule.pattern.pattern.startswith(r"\[Rank") else rank
            return Diagnosis(
                kind=rule.kind,
                message=rule.message(match),
                hint=rule.hint,
                rank=named,
                node=node,
                line=line.strip()[:_LONGEST_LINE],
                weight=rule.weight,
            )
    return None
