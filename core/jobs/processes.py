"""Finds and ends every process of a run: by the mark in its environment and by descent, never by name.

torchrun gives its workers sessions of their own, so a process group does not reach them; the mark does.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil

from core.runlog.layout import MARK_VARIABLE

_PROC = Path("/proc")
_PREFIX = f"{MARK_VARIABLE}=".encode()


def mark_of(pid: int) -> str | None:
    """Return the run's mark in a process's environment; empty when it has none, None when it cannot be read."""
    if sys.platform != "linux":
        try:
            return psutil.Process(pid).environ().get(MARK_VARIABLE, "")
        except psutil.Error:
            return None
    try:
        environ = (_PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return None
    for entry in environ.split(b"\0"):
        if entry.startswith(_PREFIX):
            return entry[len(_PREFIX) :].decode(errors="replace")
    return ""


def marked_processes(mark: str) -> set[int]:
    """Return the pids of all live processes that carry the mark, this one left out."""
    own = os.getpid()
    return {pid for pid in psutil.pids() if pid != own and mark_of(pid) == mark and _is_live(pid)}


def descendants(root: int) -> set[int]:
    """Return the pids of all live processes below ``root``."""
    try:
        return {child.pid for child in psutil.Process(root).children(recursive=True) if _is_live(child.pid)}
    except psutil.Error:
        return set()


def processes_of_run(mark: str, root: int) -> set[int]:
    """Return what belongs to a run: marked anywhere, or below ``root`` and not marked as another run's."""
    below = {pid for pid in descendants(root) if mark_of(pid) in (mark, "")}
    return below | marked_processes(mark)


def _is_live(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.Error:
        return False


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to each of the processes that is still there."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            continue


def end_processes(find: Callable[[], set[int]], *, grace_s: float, kill_wait_s: float = 5.0) -> set[int]:
    """End all processes that ``find`` returns: TERM, then KILL after the grace. Blocks; returns the survivors."""
    send(find(), signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while (left := find()) and time.monotonic() < deadline:
        time.sleep(0.05)
    deadline = time.monotonic() + kill_wait_s
    while left and time.monotonic() < deadline:
        send(left, signal.SIGKILL)
        time.sleep(0.05)
        left = find()
    return left
