"""Finds and ends every process of a run: by the mark in its environment and by descent, never by name.

torchrun gives its workers sessions of their own, so a process group does not reach them; the mark does. The mark is the
run's id and the node's name, so that two nodes of one run may share a machine.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import psutil

from core.contracts.placement import LOCAL_NODE
from core.runlog.layout import MARK_VARIABLE, NODE_VARIABLE

_PROC = Path("/proc")


class Mark(NamedTuple):
    """The run and the node that a process belongs to, from its environment; an empty run means none."""

    run: str
    node: str


def mark_of(pid: int) -> Mark | None:
    """Return a process's mark; None when its environment cannot be read."""
    found = _environment(pid)
    return None if found is None else Mark(found.get(MARK_VARIABLE, ""), found.get(NODE_VARIABLE, LOCAL_NODE))


def _environment(pid: int) -> dict[str, str] | None:
    """Return the two variables of a process that matter here."""
    if sys.platform != "linux":
        try:
            return psutil.Process(pid).environ()
        except psutil.Error:
            return None
    try:
        environ = (_PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return None
    found: dict[str, str] = {}
    for entry in environ.split(b"\0"):
        name, _, value = entry.partition(b"=")
        if name in _NAMES:
            found.setdefault(_NAMES[name], value.decode(errors="replace"))
    return found


_NAMES = {name.encode(): name for name in (MARK_VARIABLE, NODE_VARIABLE)}


def marked_processes(run: str, node: str = "") -> set[int]:
    """Return the pids of all live processes that carry a run's mark (and that of ``node``, if given), this one left out."""
    own = os.getpid()
    return {pid for pid in psutil.pids() if pid != own and _is_of(mark_of(pid), run, node) and _is_live(pid)}


def _is_of(mark: Mark | None, run: str, node: str) -> bool:
    return mark is not None and mark.run == run and node in ("", mark.node)


def descendants(root: int) -> set[int]:
    """Return the pids of all live processes below ``root``."""
    try:
        return {child.pid for child in psutil.Process(root).children(recursive=True) if _is_live(child.pid)}
    except psutil.Error:
        return set()


def processes_of_run(run: str, node: str, root: int) -> set[int]:
    """Return what belongs to a node of a run: marked anywhere, or below ``root`` and not marked as another's."""
    below = {pid for pid in descendants(root) if (mark := mark_of(pid)) and (not mark.run or _is_of(mark, run, node))}
    return below | marked_processes(run, node)


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
