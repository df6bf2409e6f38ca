"""The program of a pod: ``python -P -m core.cli.pod --run ID --files DIR --home DIR [--secrets DIR]``.

Makes the run directory, starts the node's supervisor, and prints the files of the run as lines until it has ended: they
are all that the machine that launched it reads. Told to end, it has the run save and end. Exit status 0 when the run
succeeded on this node, or was stopped as the user asked.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import signal
import sys
import time
from pathlib import Path

from core.contracts.errors import EnvironmentProblem, PilothouseError
from core.contracts.states import RunState
from core.fleet.kubernetes.echo import RunEcho
from core.fleet.kubernetes.names import node_of
from core.fleet.kubernetes.pod_run_dir import PodRun, prepare
from core.jobs.reconcile import examine
from core.jobs.records import SupervisorRecord, read_record
from core.jobs.starting import start_supervisor
from core.runlog.layout import RunLayout

SWEEP_S = 0.2
INDEX_VARIABLE = "JOB_COMPLETION_INDEX"
_PR_SET_CHILD_SUBREAPER = 36


def _arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="core.cli.pod", description="Carry out a node's part of a run in a pod.")
    parser.add_argument("--run", required=True, help="id of the run")
    parser.add_argument("--files", required=True, type=Path, help="folder with spec.toml and placement.json")
    parser.add_argument("--home", required=True, type=Path, help="home folder in the pod")
    parser.add_argument("--secrets", type=Path, default=None, help="folder of mounted secrets, for the environment")
    return parser.parse_args(words)


def _secrets(folder: Path | None) -> dict[str, str]:
    """Return the mounted secrets as environment variables; keys that cannot be one are left out."""
    if folder is None:
        return {}
    files = [path for path in sorted(folder.glob("*/*")) if path.name.isidentifier() and path.is_file()]
    return {path.name: path.read_text(encoding="utf-8", errors="surrogateescape") for path in files}


def _set_environment(secrets: dict[str, str]) -> None:
    """Set what the supervisor and the workers inherit.

    Kubeflow's torch runtime sets torchrun's defaults (``PET_...``) for a torchrun of its own; ours is told everything.
    """
    for name in [name for name in os.environ if name.startswith("PET_")]:
        del os.environ[name]
    os.environ.update(secrets)


class NodePart:
    """A node's part of a run, from its start to its end."""

    def __init__(self, run: PodRun, echo: RunEcho) -> None:
        self._run = run
        self._echo = echo
        self._is_asked_to_end = False
        self._is_told = False

    def ask_to_end(self, *_: object) -> None:
        """Have the run save and end; called by the signal."""
        self._is_asked_to_end = True

    def carry_out(self) -> RunState:
        """Start the supervisor and print the run's files until its part here has ended; return how."""
        try:
            start_supervisor(self._run.run_dir, self._run.attempt, node=self._run.node)
        except EnvironmentProblem as problem:
            # Its exit record says so, and is printed; this line is for whoever reads the pod's log.
            sys.stderr.write(f"{problem}\n")
        while True:
            self._pass_on_the_end()
            self._reap()
            # Where it stands is looked at before the files are: what is printed after an end is all there is.
            standing = examine(self._run.run_dir, self._run.node)
            more = self._echo.sweep()
            if standing.state is not None and standing.state.is_terminal:
                return standing.state
            if not more:
                time.sleep(SWEEP_S)

    def _pass_on_the_end(self) -> None:
        if not self._is_asked_to_end or self._is_told:
            return
        record = read_record(RunLayout(self._run.run_dir).supervisor(self._run.node), SupervisorRecord)
        if record is not None:
            self._is_told = True
            with contextlib.suppress(ProcessLookupError):
                os.kill(record.identity.pid, signal.SIGTERM)

    @staticmethod
    def _reap() -> None:
        """Collect processes that were left to the pod's first process."""
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass


def _write(line: bytes) -> None:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


def main(words: list[str]) -> int:
    """Carry out this pod's part of a run; return the container's exit status."""
    given = _arguments(words)
    node = node_of(int(os.environ.get(INDEX_VARIABLE) or 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        run = prepare(given.files, given.home, given.run, node)
        echo = RunEcho(run.run_dir, node, _write)
        echo.begin(run.token, run.attempt)
        part = NodePart(run, echo)
        signal.signal(signal.SIGTERM, part.ask_to_end)
        _set_environment(_secrets(given.secrets))
        state = part.carry_out()
    except (PilothouseError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    echo.end(state.value)
    # A run that was stopped as asked has done its work: the cluster is not to start it again.
    is_stopped = state is RunState.STOPPED and RunLayout(run.run_dir).stop_request.exists()
    return 0 if state is RunState.SUCCEEDED or is_stopped else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
