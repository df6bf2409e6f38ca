"""The ``sbatch`` script of a run: plain, readable, and complete; a person may submit it by hand.

It starts one of our programs per node (``core.cli.slurm_node``) with ``srun`` and stays until all have ended. Slurm's
warning before the time limit, and its TERM, become a stop request in the run directory, so that every node saves and
ends. What is decided at the end (put the job back into the queue or not) is the head's program's to say, by exit status.

Nothing of a spec or a path reaches the shell unquoted; the only shell text that is not ours is the user's own prelude.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import msgspec

from core.contracts.clusters import SlurmSpec
from core.contracts.errors import UserError
from core.contracts.hosts import RuntimeRecord
from core.contracts.specs import RunSpec
from core.fleet.slurm.values import check_slurm, file_pattern, job_name
from core.fleet.worker_command import command_of
from core.runlog.layout import CONTROL, STOP_REQUEST

NODE_MODULE = "core.cli.slurm_node"
JOB_LOG = "slurm-%j.out"
EXIT_REQUEUE = 85
"""Exit status by which the head's program asks for the job to be put back into the queue."""
WARNED_REASON = "The time limit of the job is near."
ENDED_REASON = "Slurm ends the job: it was cancelled, preempted, or has reached its time limit."
_MAX_JOBS_IN_ARRAY = 1000

_BODY = """\
restarts="${{SLURM_RESTART_COUNT:-0}}"

# A stop request in the run directory reaches the run on every node: it saves a checkpoint and ends.
ask_to_stop() {{
  signalled=1
  mkdir -p "$run_dir/{control}"
  [ -e "$run_dir/{control}/{stop}" ] || printf '%s\\n%s\\n' "$(date +%s)" "$1" > "$run_dir/{control}/{stop}"
}}
trap 'ask_to_stop "{warned}"' USR1
trap 'ask_to_stop "{ended}"' TERM

# srun of Slurm 22.05 and later does not take this from the job by itself.
[ -z "${{SLURM_CPUS_PER_TASK:-}}" ] || export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"

srun --kill-on-bad-exit=0 --wait={wait_s} --input=none --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 \\
  {command} "$run_dir" "$((attempt + restarts))" &
nodes=$!
signalled=1
while [ "$signalled" -eq 1 ]; do # a signal ends the wait, not the job
  signalled=0
  wait "$nodes"
  status=$?
done

if [ "$status" -eq {requeue} ] && [ "$restarts" -lt {requeues} ]; then
  trap - USR1 TERM
  scontrol requeue "$SLURM_JOB_ID" && sleep 60 # Slurm ends this script on the way
fi
exit "$status"
"""


class JobPart(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a job.

    Attributes:
        run_id: The run.
        run_dir: Its directory on the cluster, absolute.
        attempt: Number of the attempt that the job begins with; each requeue is a further one.
    """

    run_id: str
    run_dir: str
    attempt: int = 1


def job_script(spec: RunSpec, part: JobPart, runtime: RuntimeRecord) -> str:
    """Return the script that runs one run.

    Args:
        spec: What the run is asked; ``spec.launch.slurm`` says what is asked of Slurm.
        part: The run.
        runtime: The Python environment on the cluster.

    Raises:
        UserError: Something in the spec cannot be given to Slurm, or the cluster has no Python environment yet.
    """
    log = file_pattern(part.run_dir, JOB_LOG)
    setup = [f"run_dir={shlex.quote(part.run_dir)}", f"attempt={part.attempt}"]
    about = f"# Run {part.run_id} of Pilothouse."
    return _script([about], [*_options(spec, spec.name or part.run_id), f"--output={log}"], setup, spec, runtime)


def array_script(spec: RunSpec, parts: Sequence[JobPart], runtime: RuntimeRecord, at_once: int = 0) -> str:
    """Return the script of a job array: one run per task, all with the same ``launch``.

    Args:
        spec: One of the runs' specs.
        parts: The runs; the place of each is its task's number.
        runtime: The Python environment on the cluster.
        at_once: How many may run at a time; 0 leaves it to Slurm.

    Raises:
        UserError: As ``job_script``; or there are too few or too many runs for one array.
    """
    if not 1 <= len(parts) <= _MAX_JOBS_IN_ARRAY:
        raise UserError(
            f"A job array holds 1 to {_MAX_JOBS_IN_ARRAY} runs, not {len(parts)}.", "Submit them in several parts."
        )
    limit = f"%{at_once}" if at_once else ""
    options = [*_options(spec, spec.name or "sweep"), f"--array=0-{len(parts) - 1}{limit}", "--output=/dev/null"]
    cases = [f"  {i}) run_dir={shlex.quote(p.run_dir)} attempt={p.attempt} ;;" for i, p in enumerate(parts)]
    log = JOB_LOG.replace("%j", "$SLURM_JOB_ID")
    setup = ['case "$SLURM_ARRAY_TASK_ID" in', *cases, "esac", f'exec >>"$run_dir/{log}" 2>&1']
    return _script([f"# {len(parts)} runs of Pilothouse, one per task."], options, setup, spec, runtime)


def _options(spec: RunSpec, name: str) -> list[str]:
    """Return the options of sbatch that do not depend on the run directory."""
    slurm = spec.launch.slurm
    check_slurm(slurm)
    given = {
        "--partition": slurm.partition,
        "--account": slurm.account,
        "--qos": slurm.qos,
        "--time": slurm.time_limit,
        "--gres": slurm.gres,
        "--constraint": f'"{slurm.constraint}"' if slurm.constraint else "",
        "--cpus-per-task": str(slurm.cpus_per_node or ""),
        "--mem": slurm.memory,
        "--signal": f"B:USR1@{slurm.warn_s}" if slurm.warn_s else "",
    }
    return [
        f"--job-name={job_name(name)}",
        f"--nodes={slurm.nodes}",
        "--ntasks-per-node=1",
        *(f"{option}={value}" for option, value in given.items() if value),
        "--requeue" if slurm.requeues else "--no-requeue",
        "--open-mode=append",
        *slurm.options,
    ]


def _script(
    about: Sequence[str], options: Sequence[str], setup: Sequence[str], spec: RunSpec, runtime: RuntimeRecord
) -> str:
    prelude = [line for line in runtime.prelude if line.strip()]
    shebang = "#!/bin/bash -l" if prelude else "#!/bin/bash"
    words = command_of(msgspec.structs.replace(runtime, prelude=()), NODE_MODULE)
    body = _BODY.format(
        control=CONTROL,
        stop=STOP_REQUEST,
        warned=WARNED_REASON,
        ended=ENDED_REASON,
        wait_s=wait_limit_s(spec),
        command=shlex.join(words),
        requeue=EXIT_REQUEUE,
        requeues=spec.launch.slurm.requeues,
    )
    lines = [shebang, *about, *(f"#SBATCH {option}" for option in options), "", *setup]
    if prelude:
        lines += ["", "# The prelude of this host's Python environment.", *prelude]
    return "\n".join([*lines, "", body])


def wait_limit_s(spec: RunSpec) -> int:
    """Return how long srun waits for the other nodes once the first has ended, in seconds.

    The nodes end each other well within it; a node that is frozen does not, and would hold the job for ever.
    """
    return int(spec.launch.stop_grace_s + spec.launch.peer_limit_s) + 30


def overriding_variables(spec: SlurmSpec) -> tuple[str, ...]:
    """Return the variables with which a login's environment would override the script's own lines."""
    names = {
        "SBATCH_PARTITION": spec.partition,
        "SBATCH_ACCOUNT": spec.account,
        "SBATCH_QOS": spec.qos,
        "SBATCH_TIMELIMIT": spec.time_limit,
        "SBATCH_GRES": spec.gres,
        "SBATCH_CONSTRAINT": spec.constraint,
    }
    return (*(name for name, value in names.items() if value), *_ALWAYS_OURS)


_ALWAYS_OURS = (
    "SBATCH_ARRAY_INX", "SBATCH_JOB_NAME", "SBATCH_OPEN_MODE", "SBATCH_OUTPUT", "SBATCH_REQUEUE", "SBATCH_NO_REQUEUE",
    "SBATCH_SIGNAL", "SBATCH_WAIT", "SBATCH_EXPORT",
)  # fmt: skip
