"""The small JSON records of a run directory that are replaced as a whole: who supervises, how it ended.

Written to a temporary name, fsynced and renamed, so that a reader sees the old record or the new one, never half.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from core.contracts.placement import LOCAL_NODE
from core.contracts.states import RunState
from core.jobs.identity import ProcessIdentity

Record = TypeVar("Record")

EXIT_STOPPED = 75
"""Exit status of a worker that stopped because it was asked to, its checkpoint saved."""
EXIT_NO_SPACE = 76
"""Exit status of a worker that could not write because the disk is full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One start of a run on one node.

    Attributes:
        number: 1 on the first start.
        started: Unix seconds.
        stdout_offset: Where its output begins in the node's log.
    """

    run_dir: Path
    started: float
    number: int = 1
    node: str = LOCAL_NODE
    stdout_offset: int = 0


class SupervisorRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Who supervises the run on a node. The file's modification time is the heartbeat.

    Attributes:
        attempt: 1 on the first start of the run.
        worker: The worker's identity, None before it was started.
    """

    identity: ProcessIdentity
    node: str
    attempt: int
    started: float
    worker: ProcessIdentity | None = None


class ExitRecord(msgspec.Struct, frozen=True, kw_only=True):
    """How an attempt of a run ended on a node.

    Attributes:
        code: Exit status of the worker; None when it never started or died by a signal.
        signal: Signal that ended the worker, else None.
        left_pids: Processes of the run that could not be ended; empty when all are gone.
    """

    state: RunState
    message: str
    hint: str = ""
    code: int | None = None
    signal: int | None = None
    attempt: int = 1
    started: float
    ended: float
    left_pids: tuple[int, ...] = ()


def write_record(path: Path, record: msgspec.Struct) -> None:
    """Replace the record at ``path``, durably.

    Raises:
        OSError: It could not be written; the old record is intact.
    """
    partial = path.with_name(f"{path.name}.tmp")
    with partial.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(record)))
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def read_record(path: Path, record_type: type[Record]) -> Record | None:
    """Return the record at ``path``; None when there is none or it is damaged."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=record_type)
    except (OSError, msgspec.MsgspecError):
        return None


def requested_reason(stop_request: Path) -> str:
    """Return why a stop was asked for, which is the request's second line; empty when it does not say."""
    try:
        lines = stop_request.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return lines[1].strip() if len(lines) > 1 else ""
