"""Concludes where a run, or a node's part of it, stands on this machine, from its directory alone; never writes.

A terminal state comes from the exit record. Where the supervisor is gone and left none, the run is ``lost``, and the
sentence says what is known: killed, or the machine was restarted. A live supervisor that does not beat is only silent.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from core.contracts.states import RunState
from core.jobs import ending
from core.jobs.identity import boot_id, is_alive
from core.jobs.processes import marked_processes
from core.jobs.records import ExitRecord, SupervisorRecord, read_record
from core.runlog.layout import RunLayout
from core.runlog.placements import read_placement

SILENT_AFTER_S = 15.0
START_LIMIT_S = 60.0
SETTLE_S = 6.0
_RESUME_HINT = "Resume it to go on from its last checkpoint."


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a run stands.

    Attributes:
        state: Concluded state; None when the event log's own state holds.
        ended: Unix seconds of the end, or of the last sign of life.
        silent_since: Unix seconds of the last beat of a supervisor that lives but does not answer.
        leftovers: Live processes of a lost run.
    """

    state: RunState | None = None
    message: str = ""
    hint: str = ""
    started: float | None = None
    ended: float | None = None
    silent_since: float | None = None
    leftovers: tuple[int, ...] = ()


def examine(run_dir: Path, node: str = "local", now: float | None = None) -> Standing:
    """Return where the run stands. Costs a few file reads while it goes on; walks /proc only for a lost run."""
    layout = RunLayout(run_dir)
    moment = time.time() if now is None else now
    supervisor = read_record(layout.supervisor(node), SupervisorRecord)
    if (ended := _from_exit_record(layout, node)) is not None:
        return ended
    if is_cluster_job(run_dir):
        return _by_heartbeat(layout, node, supervisor, moment)
    if supervisor is None:
        return _never_started(layout, moment)
    if is_alive(supervisor.identity):
        return _by_heartbeat(layout, node, supervisor, moment)
    return _from_exit_record(layout, node) or _lost(run_dir, supervisor, node, moment)


def is_cluster_job(run_dir: Path) -> bool:
    """Tell whether a run is a cluster's job on a shared file system.

    Its processes are on other machines, so that none can be looked for here, and that it has not begun means nothing.
    """
    placement = read_placement(run_dir)
    return placement is not None and placement.engine == "slurm"


def _by_heartbeat(layout: RunLayout, node: str, supervisor: SupervisorRecord | None, now: float) -> Standing:
    if supervisor is None:
        return Standing()
    beat = _modified(layout.supervisor(node), supervisor.started)
    return Standing(silent_since=beat if now - beat > SILENT_AFTER_S else None)


def _from_exit_record(layout: RunLayout, node: str) -> Standing | None:
    record = read_record(layout.exit_record(node), ExitRecord)
    if record is None:
        return None
    message = record.message
    if record.left_pids:
        message = f"{message} These processes could not be ended: {', '.join(map(str, record.left_pids))}.".strip()
    return Standing(state=record.state, message=message, hint=record.hint, started=record.started, ended=record.ended)


def _never_started(layout: RunLayout, now: float) -> Standing:
    made = _modified(layout.spec, now)
    if now - made < START_LIMIT_S:
        return Standing()
    return Standing(
        state=RunState.LOST,
        message="The run was prepared but its supervisor never started.",
        hint="Resume it, or delete it.",
        ended=made,
    )


def _lost(run_dir: Path, supervisor: SupervisorRecord, node: str, now: float) -> Standing:
    layout = RunLayout(run_dir)
    last_sign = _modified(layout.supervisor(node), supervisor.started)
    if supervisor.identity.boot_id != boot_id():
        message = "The machine was restarted while the run was going."
        return Standing(
            state=RunState.LOST, message=message, hint=_RESUME_HINT, started=supervisor.started, ended=last_sign
        )
    leftovers = tuple(sorted(marked_processes(run_dir.name, node)))
    if leftovers and now - last_sign < SETTLE_S:
        return Standing(state=RunState.STOPPING, message="Its supervisor was killed; the worker is saving and ending.")
    words = ending.last_line(layout.stdout(node))
    message = "The run's supervisor was killed, and the run with it."
    return Standing(
        state=RunState.LOST,
        message=f"{message} Its last words: {words}" if words else message,
        hint=_RESUME_HINT,
        started=supervisor.started,
        ended=last_sign,
        leftovers=leftovers,
    )


def _modified(path: Path, otherwise: float) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return otherwise
