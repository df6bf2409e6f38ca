"""Which process is meant: pid, start time and boot id together, because a pid alone is used again.

Linux reads /proc; elsewhere psutil gives the start time and the boot time stands in for the boot id.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec
import psutil

_PROC = Path("/proc")
_IS_LINUX = sys.platform == "linux"


class ProcessIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """One process of one boot of one machine.

    Attributes:
        start: Start time since boot in clock ticks (Linux), or Unix seconds in hundredths elsewhere.
        boot_id: Changes with every boot.
    """

    pid: int
    start: int
    boot_id: str


def boot_id() -> str:
    """Return what identifies this boot of this machine."""
    if _IS_LINUX:
        return (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return str(int(psutil.boot_time()))


def _stat_fields(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat after the command's name (state first), None when there is no such process."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def start_of(pid: int) -> int | None:
    """Return the start time of a live process; None when it is gone or a zombie."""
    if not _IS_LINUX:
        try:
            process = psutil.Process(pid)
            return None if process.status() == psutil.STATUS_ZOMBIE else int(process.create_time() * 100)
        except psutil.Error:
            return None
    fields = _stat_fields(pid)
    if fields is None or fields[0] in "ZX":
        return None
    return int(fields[19])


def identity_of(pid: int) -> ProcessIdentity | None:
    """Return the identity of a live process, None when it is gone."""
    start = start_of(pid)
    return None if start is None else ProcessIdentity(pid=pid, start=start, boot_id=boot_id())


def own_identity() -> ProcessIdentity:
    """Return the identity of this process."""
    identity = identity_of(os.getpid())
    assert identity is not None
    return identity


def is_alive(identity: ProcessIdentity) -> bool:
    """Tell whether exactly this process still runs."""
    return identity.boot_id == boot_id() and start_of(identity.pid) == identity.start
