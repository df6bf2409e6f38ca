"""``run`` of every kind that trains with our engine: in this process when it is the only rank, else as ranks of torchrun.

Each rank is ``core.train.rank``; what fails first among them is told as the run's failure.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from pathlib import Path

from core.contracts.errors import EnvironmentProblem, PilothouseError, UserError
from core.contracts.events import FailureEvent
from core.contracts.worker import RunContext
from core.jobs.ending import first_failure
from core.jobs.records import EXIT_NO_SPACE, Attempt
from core.plugins.registry import registry
from core.runlog.layout import RunLayout
from core.train import child
from core.train.profile import nsys
from core.train.script.command import RankGroup, threads_per_process, torchrun_options
from core.train.script.diagnosis import explain_failure, failed_rank, read_tail
from core.train.specs.training import TrainingSpec

RANK_MODULE = "core.train.rank"
_WHAT = "The training"


def ranks_per_node(spec: TrainingSpec) -> int:
    """Return how many ranks a spec starts on each node."""
    return spec.parallel.processes


def run_training(spec: TrainingSpec, context: RunContext) -> None:
    """Train on all ranks of this node.

    Raises:
        UserError: A rank failed; the sentence is the first failing rank's.
        EnvironmentProblem: Likewise, or the ranks could not be started.
    """
    nodes = context.placement.nodes
    if len(nodes) == 1 and nodes[0].processes == 1 and not spec.tuning.nsys:
        _rank_run(spec, context)
    else:
        _run_ranks(spec, context)


def _rank_run(spec: TrainingSpec, context: RunContext) -> None:
    kind = registry().get(str(spec.__struct_config__.tag))
    assert kind.rank_run is not None
    kind.rank_run(spec, context)


def _run_ranks(spec: TrainingSpec, context: RunContext) -> None:
    group = RankGroup(
        placement=context.placement,
        node=context.node,
        group_id=f"{context.run_id}-{context.attempt}",
        log_folder=context.scratch_dir / "torchrun",
    )
    argv = _command(context, group)
    recorded = nsys.folder_of(context) if spec.tuning.nsys else None
    if recorded is not None:
        argv = nsys.nsys_command(argv, recorded)
    log = RunLayout(context.run_dir).stdout(context.node)
    log_offset = log.stat().st_size if log.exists() else 0
    began = time.time()
    context.progress(0.0, "Starting the ranks")
    context.log(f"Starts {group.processes} ranks on this node: {' '.join(argv)}")
    process = child.start(argv, context.run_dir, _environment(spec, group))
    try:
        stopped = child.follow(process, context, grace_s=spec.launch.stop_grace_s, launches_ranks=True, what=_WHAT)
    finally:
        child.end(process)
    if recorded is not None:
        nsys.collect(context, recorded)
    if stopped or process.returncode == 0:
        return
    output = read_tail(log, log_offset)
    if len(context.placement.nodes) > 1 and child.is_stopped_too(context, output):
        return
    raise _failure(context, process.returncode, output, began)


def _command(context: RunContext, group: RankGroup) -> list[str]:
    run = [str(context.run_dir), str(context.attempt), context.node]
    return [sys.executable, "-P", "-m", "torch.distributed.run", *torchrun_options(group), "-m", RANK_MODULE, *run]


def _environment(spec: TrainingSpec, group: RankGroup) -> dict[str, str]:
    """Return the variables of torchrun and its ranks; the safe path keeps the working folder off theirs."""
    return {
        "OMP_NUM_THREADS": str(threads_per_process(spec.launch.threads, group.processes)),
        "PYTHONSAFEPATH": "1",
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(max(1, int(spec.launch.stop_grace_s))),
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1",
        "TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE": "[rank${rank}]: ",
        "TOKENIZERS_PARALLELISM": "false",
    }


def _failure(context: RunContext, code: int, output: str, began: float) -> Exception:
    """Return what to raise for ranks that failed: the first failing rank's own sentence, else what is known of its end."""
    _, rank_code = failed_rank(output)
    if rank_code == EXIT_NO_SPACE:
        return _disk_full(context.run_dir)
    told = first_failure(Attempt(run_dir=context.run_dir, started=began, number=context.attempt, node=context.node))
    if told is not None:
        return _as_error(told)
    return explain_failure(code, output, os.path.basename(sys.executable), _WHAT)  # noqa: PTH119 - a name, not a path


def _as_error(told: FailureEvent) -> PilothouseError:
    kind = EnvironmentProblem if told.kind == "environment" else UserError
    return kind(told.message, told.hint)


def _disk_full(run_dir: Path) -> Exception:
    problem = EnvironmentProblem(f"The disk of {run_dir} is full.", "Free some space and resume the run.")
    problem.__cause__ = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return problem
