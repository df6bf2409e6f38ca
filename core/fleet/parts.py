"""One node's part of a run as this machine knows it: from the mirrored records, or, for a node here, from /proc.

An exit record counts for its own attempt only. What the host itself concluded comes with the link record; that the host
does not answer says nothing about its part. Reads, never writes, asks nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from core.contracts.events import NodeEvent, StateEvent
from core.contracts.mirrors import LinkRecord
from core.contracts.placement import NodePlacement, Placement
from core.contracts.states import RunState
from core.jobs.processes import marked_processes
from core.jobs.reconcile import examine
from core.jobs.records import ExitRecord, read_record
from core.runlog.layout import SUPERVISOR_RANK, RunLayout
from core.runlog.placements import HERE
from core.runlog.tail import read_file

_TAIL_BYTES = 64 << 10
_NO_FOLDER = "The run's folder is not there any more."
_CLONE = "Delete the run, or clone it to run it again."


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Where a node's part stands.

    Attributes:
        state: None while nothing is known of this attempt.
        is_concluded: ``state`` comes from an exit record or from the host's own judgement, not from a log's line.
        has_exit_record: It is the part's own word.
        silent_since: Unix seconds of the last beat of a supervisor that does not answer though its host does.
        pids: Live processes of the run there, where that was looked at after its end.
    """

    placed: NodePlacement
    link: LinkRecord
    state: RunState | None = None
    message: str = ""
    hint: str = ""
    started: float | None = None
    ended: float | None = None
    is_concluded: bool = False
    has_exit_record: bool = False
    silent_since: float | None = None
    pids: tuple[int, ...] | None = None

    @property
    def has_ended(self) -> bool:
        """True when nothing of it goes on, as far as is known."""
        return self.is_concluded and self.state is not None and self.state.is_terminal


def parts_of(run_dir: Path, placement: Placement) -> tuple[Part, ...]:
    """Return all parts, the head's first."""
    return tuple(_part(run_dir, placement, placed) for placed in placement.nodes)


def _part(run_dir: Path, placement: Placement, placed: NodePlacement) -> Part:
    if placed.host in HERE and placement.engine == "direct":
        return _part_here(run_dir, placement.attempt, placed)
    layout = RunLayout(run_dir)
    link = read_record(layout.link(placed.node), LinkRecord) or LinkRecord()
    judged = link.standing
    # A run that was paused has more attempts than placements: its later ones are this placement's too.
    is_current = judged is not None and (not judged.attempt or judged.attempt >= placement.attempt)
    pids = judged.pids if judged is not None and is_current else None
    record = read_record(layout.exit_record(placed.node), ExitRecord)
    if record is not None and record.attempt >= placement.attempt:
        return Part(
            placed=placed,
            link=link,
            state=record.state,
            message=record.message,
            hint=record.hint,
            started=record.started,
            ended=record.ended,
            is_concluded=True,
            has_exit_record=True,
            pids=record.left_pids or pids,
        )
    if judged is not None and not judged.is_there and link.is_complete and placement.engine == "direct":
        return Part(placed=placed, link=link, state=RunState.LOST, message=_NO_FOLDER, hint=_CLONE, is_concluded=True)
    if judged is not None and judged.state is not None and is_current:
        return Part(
            placed=placed,
            link=link,
            state=judged.state,
            message=judged.message,
            hint=judged.hint,
            started=judged.started,
            is_concluded=True,
            pids=pids,
        )
    state, message = _last_word(layout, placed.node)
    silent_since = judged.silent_since if judged is not None else None
    return Part(placed=placed, link=link, state=state, message=message, silent_since=silent_since)


def _part_here(run_dir: Path, attempt: int, placed: NodePlacement) -> Part:
    """Return the part of a node on this machine."""
    standing = examine(run_dir, placed.node)
    record = read_record(RunLayout(run_dir).exit_record(placed.node), ExitRecord)
    if standing.state is None:
        state, message = _last_word(RunLayout(run_dir), placed.node)
        return Part(placed=placed, link=LinkRecord(), state=state, message=message, silent_since=standing.silent_since)
    pids = tuple(sorted(marked_processes(run_dir.name, placed.node))) if standing.state.is_terminal else None
    return Part(
        placed=placed,
        link=LinkRecord(),
        state=standing.state,
        message=standing.message,
        hint=standing.hint,
        started=standing.started,
        ended=standing.ended,
        is_concluded=True,
        has_exit_record=record is not None and record.attempt >= attempt,
        pids=pids,
    )


def _last_word(layout: RunLayout, node: str) -> tuple[RunState | None, str]:
    """Return the last state that the node's supervisor wrote; nothing where it is an earlier attempt's end."""
    path = layout.events(SUPERVISOR_RANK, node)
    try:
        batch = read_file(path, max(0, path.stat().st_size - _TAIL_BYTES), _TAIL_BYTES)
    except (OSError, msgspec.MsgspecError):
        return None, ""
    said = [event for event in (batch.events if batch else ()) if isinstance(event, (StateEvent, NodeEvent))]
    if not said or said[-1].state.is_terminal:
        return None, ""
    return said[-1].state, said[-1].message
