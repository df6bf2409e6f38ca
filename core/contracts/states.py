"""The states of a run and which of them end it."""

from __future__ import annotations

from enum import StrEnum


class RunState(StrEnum):
    """Where a run stands. ``lost`` is only ever concluded by a reader, never written by the run."""

    QUEUED = "queued"
    PREPARING = "preparing"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    STOPPING = "stopping"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    LOST = "lost"

    @property
    def is_terminal(self) -> bool:
        """True when nothing of the run goes on."""
        return self in TERMINAL_STATES


TERMINAL_STATES = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.STOPPED, RunState.LOST})
RESUMABLE_STATES = frozenset({RunState.FAILED, RunState.STOPPED, RunState.LOST})
