"""Where a run stands, wherever it is: one verdict from the records of all its nodes, for the history.

The head's exit record is the verdict. A host that does not answer makes the run silent, never failed: only when the
other parts have ended without the head is it lost. Of a cluster's job that has written nothing yet the cluster tells.
Runs on this machine alone are judged by ``core.jobs.reconcile``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from core.contracts.placement import LOCAL_NODE, Placement
from core.contracts.states import RunState
from core.fleet.cluster_record import ClusterRecord, read_cluster_record
from core.fleet.given_up import given_up
from core.fleet.parts import Part, parts_of
from core.jobs.reconcile import Standing, examine
from core.runlog.placements import is_elsewhere, read_placement

_RESUME_HINT = "Resume it, on other hosts if that one is gone: it goes on from its last checkpoint."


def standing_of(run_dir: Path) -> Standing:
    """Return where a run stands. Costs a few file reads."""
    placement = read_placement(run_dir)
    if placement is None or not is_elsewhere(placement):
        return examine(run_dir, LOCAL_NODE if placement is None else placement.head.node)
    parts = parts_of(run_dir, placement)
    head = parts[0]
    if head.has_exit_record:
        return _concluded(head)
    note = given_up(run_dir, placement.attempt)
    if note is not None and (head.link.last_contact or 0.0) < note.ts:
        return Standing(state=RunState.LOST, message=note.message, hint=_RESUME_HINT, ended=note.ts)
    if note is not None and not head.is_concluded:
        message = f"It was given up, but {head.placed.host} answers again."
        return Standing(state=head.state or RunState.RUNNING, message=message, silent_since=head.silent_since)
    if placement.engine == "slurm" and (told := read_cluster_record(run_dir)) is not None:
        return _of_cluster(told, placement, head)
    if head.is_concluded and head.state is not RunState.STOPPING:
        return _concluded(head, who="" if placement.engine == "kubernetes" else head.placed.host)
    return _without_head(head, parts[1:])


def _concluded(head: Part, who: str = "") -> Standing:
    message = f"{who}: {head.message}" if who and head.message else head.message
    return Standing(
        state=head.state,
        message=message,
        hint=head.hint,
        started=head.started,
        ended=head.ended,
        leftovers=head.pids or (),
    )


def _without_head(head: Part, others: Sequence[Part]) -> Standing:
    """Return the standing of a run whose head has not ended, as far as is known here."""
    if head.link.is_reachable:
        state = head.state if head.state is RunState.STOPPING and head.is_concluded else None
        return Standing(state=state, message=head.message if state else "", silent_since=head.silent_since)
    silent_since = head.link.last_contact
    has_ended_well = all(part.state is RunState.SUCCEEDED for part in others)  # then the head has most likely, too
    if others and not has_ended_well and all(part.has_ended for part in others):
        reason = next((part.message for part in others if part.message), "")
        said = f" {others[0].placed.host or 'This machine'} says: {reason}" if reason else ""
        return Standing(
            state=RunState.LOST,
            message=f"{head.placed.host} does not answer, and the other hosts have ended their parts.{said}",
            hint=_RESUME_HINT,
            silent_since=silent_since,
        )
    return Standing(silent_since=silent_since)


def _of_cluster(told: ClusterRecord, placement: Placement, head: Part) -> Standing:
    """Return what the cluster says of a job whose head has not written its end."""
    if told.attempt < placement.attempt:
        return Standing()
    if not told.is_reachable:
        return Standing(silent_since=told.ts)
    if told.is_over:
        return Standing(state=told.state or RunState.LOST, message=told.message, hint=told.hint)
    if told.state is RunState.QUEUED:
        return Standing(state=RunState.QUEUED, message=told.message, hint=told.hint)
    return Standing(silent_since=head.silent_since)
