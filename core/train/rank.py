"""The program of one rank under torchrun: ``python -m core.train.rank RUN_DIR ATTEMPT NODE``.

Reads the spec, opens this rank's own event log, does the kind's ``rank_run`` and turns what it raises into one sentence
that names the rank. The echo of another rank's failure ("connection closed by peer") is printed, not recorded: the rank
that failed first is the cause.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

from core.contracts.errors import Cancelled, PilothouseError
from core.jobs.context import WorkerContext
from core.jobs.placed import placement_of
from core.jobs.records import EXIT_NO_SPACE
from core.jobs.relocate import relocated
from core.jobs.triage import classify
from core.jobs.worker import is_no_space, report
from core.plugins.decode import read_spec
from core.plugins.registry import registry
from core.runlog.layout import RunLayout


def _is_echo(error: Exception) -> bool:
    if isinstance(error, PilothouseError):
        return False
    diagnosis = classify("".join(traceback.format_exception(error)))
    return diagnosis is not None and diagnosis.is_secondary


def main(run_dir: Path, attempt: int, node: str) -> int:
    """Do one rank's part; return its exit status: 0 done or stopped, 76 disk full, 1 failed."""
    rank = os.environ["RANK"]
    spec = read_spec(RunLayout(run_dir).spec)
    kind = registry().get(str(spec.__struct_config__.tag))
    assert kind.rank_run is not None, f"{spec.__struct_config__.tag} has no part for a rank"
    placement = placement_of(run_dir, kind.ranks(spec))
    home = Path(placement.of(node).work_dir)
    try:
        context = WorkerContext(home, run_dir, attempt, node=node, placement=placement, writer=rank)
    except OSError as error:
        sys.stderr.write(f"The event log cannot be opened: {error}\n")
        return EXIT_NO_SPACE if is_no_space(error) else 1
    context.obey_signals()
    try:
        kind.rank_run(relocated(spec, placement, node), context)
        context.close()
    except Cancelled:  # a stop was asked for while the task could only give up, such as in reading data
        context.close()
    except Exception as error:  # noqa: BLE001 - the top frame of a rank: everything becomes a sentence
        if _is_echo(error):
            traceback.print_exception(error)
            return 1
        return report(context, error, before=f"Rank {rank}: ")
    return 0


if __name__ == "__main__":
    status = main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
    sys.stdout.flush()
    sys.stderr.flush()
    # Ends at once: threads that wait for a failed rank would hold a normal exit back for minutes.
    os._exit(status)
