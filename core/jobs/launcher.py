"""Makes run directories and starts, stops and resumes their supervisors on this machine.

The supervisor's own program is named by its module, ``core.cli.supervise``: the place that may wire hardware to jobs.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import msgspec

from core.contracts.errors import EnvironmentProblem, UserError
from core.contracts.ids import RunId, new_run_id
from core.contracts.specs import RunSpec
from core.contracts.states import RESUMABLE_STATES, RunState
from core.jobs.processes import end_processes, marked_processes
from core.jobs.reconcile import Standing, examine
from core.jobs.records import ExitRecord, SupervisorRecord, read_record, write_record
from core.plugins.decode import encode_spec
from core.plugins.registry import Registry, registry
from core.runlog.layout import MARK_VARIABLE, RunLayout
from core.settings.home import Home

SUPERVISOR_MODULE = "core.cli.supervise"
MINIMUM_FREE_BYTES = 50 << 20
_START_LIMIT_S = 120.0


class Launcher:
    """Starts, stops and resumes runs of one home on this machine. Thread-safe; blocks: keep off the UI thread."""

    def __init__(self, home: Home, kinds: Registry | None = None) -> None:
        self._home = home
        self._kinds = kinds or registry()

    def launch(self, spec: RunSpec, *, guardian: Path | None = None) -> RunId:
        """Make the run directory and start its supervisor; returns once the supervisor has detached itself.

        Args:
            spec: What to do, checked.
            guardian: Directory of the run that owns this one; when that ends, this one stops.

        Raises:
            EnvironmentProblem: No space or no permission, and nothing is left behind; or its supervisor cannot start, and
                the run stands as failed with that sentence.
        """
        named = spec if spec.name else msgspec.structs.replace(spec, name=self._title(spec))
        run_id = new_run_id(named.name)
        run_dir = self._home.run_dir(run_id)
        partial = run_dir.with_name(f".{run_id}.partial")
        try:
            self._check_space()
            self._make(partial, named)
            partial.rename(run_dir)
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise self._cannot_write(error) from error
        self._start(run_dir, 1, guardian)
        return run_id

    def _title(self, spec: RunSpec) -> str:
        return self._kinds.get(str(spec.__struct_config__.tag)).title

    def resume(self, run_id: RunId, *, guardian: Path | None = None) -> int:
        """Start a run that ended once more, from its last checkpoint; return the number of the attempt.

        Args:
            run_id: The run.
            guardian: As for ``launch``.

        Raises:
            UserError: It still goes on, or has succeeded.
            EnvironmentProblem: No space or no permission, or its supervisor cannot start.
        """
        run_dir = self._existing(run_id)
        try:
            with _resuming(RunLayout(run_dir)):
                return self._resume(run_id, run_dir, guardian)
        except OSError as error:
            raise self._cannot_write(error) from error

    def _resume(self, run_id: RunId, run_dir: Path, guardian: Path | None) -> int:
        standing = examine(run_dir)
        if standing.state not in RESUMABLE_STATES:
            state = standing.state.value if standing.state else "still going on"
            raise UserError(f"The run {run_id} is {state} and cannot be resumed.", "Clone it to run it again.")
        self.end_leftovers(run_id)
        layout = RunLayout(run_dir)
        attempt = self._last_attempt(layout) + 1
        self._check_space()
        layout.stop_request.unlink(missing_ok=True)
        if layout.exit_record().exists():
            layout.exit_record().rename(run_dir / f"exit.local.attempt{attempt - 1}.json")
        layout.supervisor().unlink(missing_ok=True)
        os.utime(layout.spec)
        self._start(run_dir, attempt, guardian)
        return attempt

    def stop(self, run_id: RunId) -> None:
        """Ask a run to save and end; a run without a supervisor has its leftovers ended at once.

        Raises:
            UserError: There is no such run, or it has ended.
            EnvironmentProblem: The request cannot be written.
        """
        run_dir = self._existing(run_id)
        standing = examine(run_dir)
        if standing.state is not None and standing.state.is_terminal:
            if standing.leftovers:
                self.end_leftovers(run_id)
                return
            raise UserError(f"The run {run_id} has already ended ({standing.state.value}).")
        request = RunLayout(run_dir).stop_request
        try:
            request.parent.mkdir(exist_ok=True)
            request.touch()
        except OSError as error:
            raise self._cannot_write(error) from error
        # On a full disk the empty file can still be made, and that it is there is the request.
        with contextlib.suppress(OSError):
            request.write_text(f"{time.time():.3f}\n", encoding="ascii")

    def end_leftovers(self, run_id: RunId, grace_s: float = 2.0) -> set[int]:
        """End every process that carries the mark of a run without a supervisor; return the survivors."""
        return end_processes(lambda: marked_processes(run_id), grace_s=grace_s) if marked_processes(run_id) else set()

    def standing(self, run_id: RunId) -> Standing:
        """Return where a run stands, from its directory alone."""
        return examine(self._home.run_dir(run_id))

    def _existing(self, run_id: RunId) -> Path:
        run_dir = self._home.run_dir(run_id)
        if not RunLayout(run_dir).spec.exists():
            raise UserError(
                f"There is no run {run_id!r} in {str(self._home.runs_dir)!r}.", "List the runs to see their ids."
            )
        return run_dir

    @staticmethod
    def _last_attempt(layout: RunLayout) -> int:
        exit_record = read_record(layout.exit_record(), ExitRecord)
        supervisor = read_record(layout.supervisor(), SupervisorRecord)
        known = [record.attempt for record in (exit_record, supervisor) if record is not None]
        return max([*known, len(list(layout.run_dir.glob("exit.local.attempt*.json"))), 0])

    @staticmethod
    def _make(run_dir: Path, spec: RunSpec) -> None:
        layout = RunLayout(run_dir)
        layout.control.mkdir(parents=True)
        with layout.spec.open("w", encoding="utf-8") as file:
            file.write(encode_spec(spec))
            file.flush()
            os.fsync(file.fileno())

    def _check_space(self) -> None:
        free = shutil.disk_usage(self._home.runs_dir).free
        if free < MINIMUM_FREE_BYTES:
            raise EnvironmentProblem(
                f"Only {free >> 20} MiB are free on the disk of {str(self._home.path)!r}.",
                f"Free at least {MINIMUM_FREE_BYTES >> 20} MiB there, or move the home folder.",
            )

    def _cannot_write(self, error: OSError) -> EnvironmentProblem:
        remedy = "Free space there." if error.errno == errno.ENOSPC else "Check the folder's permissions."
        return EnvironmentProblem(
            f"The run cannot be written to {str(self._home.runs_dir)!r}: {error.strerror}.", remedy
        )

    def _start(self, run_dir: Path, attempt: int, guardian: Path | None) -> None:
        """Start the supervisor and wait until it has detached itself; a start that fails ends the run as failed."""
        began = time.time()
        try:
            self._start_supervisor(run_dir, attempt, guardian)
        except EnvironmentProblem as error:
            record = ExitRecord(
                state=RunState.FAILED,
                message=error.message,
                hint=error.hint,
                attempt=attempt,
                started=began,
                ended=time.time(),
            )
            with contextlib.suppress(OSError):
                write_record(RunLayout(run_dir).exit_record(), record)
            raise

    @staticmethod
    def _start_supervisor(run_dir: Path, attempt: int, guardian: Path | None) -> None:
        command = [sys.executable, "-P", "-m", SUPERVISOR_MODULE, str(run_dir), str(attempt)]
        command += [str(guardian)] if guardian is not None else []
        environment = {**os.environ, MARK_VARIABLE: run_dir.name}
        hint = f"See {str(run_dir / 'supervisor.local.log')!r}."
        try:
            with (run_dir / "supervisor.local.log").open("ab") as log:
                done = subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=run_dir,
                    env=environment,
                    timeout=_START_LIMIT_S,
                    check=False,
                )
        except subprocess.TimeoutExpired as error:
            message = f"The supervisor did not start within {_START_LIMIT_S:g} s and was ended."
            raise EnvironmentProblem(message, hint) from error
        except OSError as error:
            raise EnvironmentProblem(
                f"The supervisor could not be started: {error.strerror or error}.", hint
            ) from error
        if done.returncode != 0:
            raise EnvironmentProblem(f"The supervisor could not be started (exit status {done.returncode}).", hint)


@contextlib.contextmanager
def _resuming(layout: RunLayout) -> Generator[None]:
    """Hold the right to resume a run: of two who try at once, the second then finds that it goes on."""
    import fcntl

    layout.control.mkdir(exist_ok=True)
    descriptor = os.open(layout.control / "resume.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
