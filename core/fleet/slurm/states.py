"""Asks where jobs stand, of whichever of Slurm's commands still knows: squeue, scontrol, then sacct or ``sacct -c``.

``squeue`` answers for all waiting and running jobs in one call. An ended job is described by ``scontrol`` for some
minutes (``MinJobAge``), by ``sacct`` where the cluster keeps accounts, by ``sacct -c`` where it keeps a file of ended
jobs, and else by nothing: the run directory then has the last word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from core.contracts.errors import EnvironmentProblem
from core.contracts.states import RunState
from core.fleet.slurm import words
from core.fleet.slurm.commands import SlurmCommands, decoded, fields_of, rows
from core.fleet.slurm.records import JobPhase, JobState

_SQUEUE = "%i|%T|%N|%r"
_SACCT = "JobID,State,ExitCode,NodeList"
_JOB_ID = re.compile(r"\d+(_\d+)?")
_PENDING = frozenset({"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"})
_RUNNING = frozenset(
    {"RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING", "STAGE_OUT"}
)
_STARTING = "CONFIGURING"
_BATCH = 200


def states_of(commands: SlurmCommands, job_ids: Sequence[str]) -> dict[str, JobState]:
    """Return where each job stands.

    Raises:
        EnvironmentProblem: The link is lost, or the controller does not answer: nothing is known of any job then.
    """
    wanted = list(dict.fromkeys(job_id for job_id in job_ids if _JOB_ID.fullmatch(job_id)))
    found: dict[str, JobState] = {}
    for start in range(0, len(wanted), _BATCH):
        found |= _queued(commands, wanted[start : start + _BATCH])
    for job_id in wanted:
        if job_id not in found and (state := _described(commands, job_id)) is not None:
            found[job_id] = state
    if missing := [job_id for job_id in wanted if job_id not in found]:
        found |= _accounted(commands, missing)
    return {job_id: found.get(job_id) or JobState(job_id=job_id, phase=JobPhase.UNKNOWN) for job_id in job_ids}


def _queued(commands: SlurmCommands, job_ids: Sequence[str]) -> dict[str, JobState]:
    """Return the jobs that wait or run; one that ended is left to those who know how."""
    done = commands.ask(["squeue", "--noheader", "--array", f"--jobs={','.join(job_ids)}", f"--format={_SQUEUE}"])
    if done.code != 0:
        said = decoded(done.stderr)
        if "Invalid job id" in said:
            return {}
        sentence, _ = words.refused(said)
        raise EnvironmentProblem(sentence.message, sentence.hint)
    live = (live_state(*row) for row in rows(decoded(done.stdout), 4))
    return {state.job_id: state for state in live if state is not None and state.job_id in job_ids}


def live_state(job_id: str, slurm_state: str, nodes: str, reason: str) -> JobState | None:
    """Return where a job that waits or runs stands; None for one that ended."""
    if slurm_state in _PENDING:
        phase, run_state, sentence = JobPhase.PENDING, RunState.QUEUED, words.pending(reason)
    elif slurm_state in _RUNNING:
        phase, sentence = JobPhase.RUNNING, words.Sentence("")
        run_state = RunState.PREPARING if slurm_state == _STARTING else RunState.RUNNING
    else:
        return None
    return JobState(
        job_id=job_id,
        phase=phase,
        slurm_state=slurm_state,
        run_state=run_state,
        message=sentence.message,
        hint=sentence.hint,
        reason=reason,
        nodes=nodes,
        source="squeue",
    )


def _described(commands: SlurmCommands, job_id: str) -> JobState | None:
    """Return what the controller still remembers of a job."""
    done = commands.ask(["scontrol", "--oneliner", "show", "job", job_id])
    if done.code != 0:
        return None
    for line in decoded(done.stdout).splitlines():
        fields = fields_of(line)
        if job_id in _ids(fields):
            return _from_fields(job_id, fields)
    return None


def _ids(fields: Mapping[str, str]) -> set[str]:
    array = fields.get("ArrayJobId", "")
    return {fields.get("JobId", ""), f"{array}_{fields.get('ArrayTaskId', '')}"}


def _from_fields(job_id: str, fields: Mapping[str, str]) -> JobState:
    slurm_state, reason = fields.get("JobState", ""), fields.get("Reason", "")
    nodes = fields.get("NodeList", "").replace("(null)", "")
    live = live_state(job_id, slurm_state, nodes, reason)
    if live is not None:
        return live
    code, killed_by = _exit(fields.get("ExitCode", ""))
    restarts = fields.get("Restarts", "0")
    return ended_state(
        job_id, slurm_state, (code, killed_by), nodes, "scontrol", restarts=int(restarts) if restarts.isdigit() else 0
    )


def ended_state(
    job_id: str, slurm_state: str, end: tuple[int | None, int | None], nodes: str, source: str, *, restarts: int = 0
) -> JobState:
    """Return how a job ended; ``end`` is its script's exit status and signal."""
    code, killed_by = end
    run_state, sentence = words.ended(slurm_state, code, killed_by)
    return JobState(
        job_id=job_id,
        phase=JobPhase.ENDED,
        slurm_state=slurm_state,
        run_state=run_state,
        message=sentence.message,
        hint=sentence.hint,
        nodes=nodes,
        code=code,
        signal=killed_by,
        restarts=restarts,
        source=source,
    )


def _exit(text: str) -> tuple[int | None, int | None]:
    """Return exit status and signal of Slurm's ``code:signal``."""
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if match is None:
        return None, None
    return int(match[1]), int(match[2]) or None


def _accounted(commands: SlurmCommands, job_ids: Sequence[str]) -> dict[str, JobState]:
    """Return what is kept of ended jobs: by the accounts, or where there are none by the file of completions."""
    base = ["sacct", "--noheader", "--parsable2", f"--jobs={','.join(job_ids)}", f"--format={_SACCT}"]
    for source, argv in (("sacct", [*base, "--allocations"]), ("sacct -c", [*base, "--completion"])):
        try:
            done = commands.ask(argv)
        except EnvironmentProblem:
            return {}
        if done.code == 0 and (found := from_accounts(rows(decoded(done.stdout), 4), job_ids, source)):
            return found
    return {}


def from_accounts(table: Iterable[Sequence[str]], job_ids: Sequence[str], source: str) -> dict[str, JobState]:
    """Return the jobs of a table of ``sacct``; of a job with several lines (put back into the queue) the last counts."""
    found: dict[str, JobState] = {}
    for job_id, text, end, nodes in table:
        slurm_state = text.partition(" ")[0].rstrip("+")  # such as "CANCELLED by 1000"
        if job_id not in job_ids:
            continue
        live = live_state(job_id, slurm_state, nodes, "")
        found[job_id] = live or ended_state(job_id, slurm_state, _exit(end), nodes, source)
    return found
