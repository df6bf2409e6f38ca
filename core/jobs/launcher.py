"""Makes run directories and starts, stops and resumes their supervisors on this machine.

Starting a supervisor is ``core.jobs.starting``'s work; runs on other hosts are ``core.fleet``'s.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Generator, Sequence
from pathlib import Path

import msgspec

from core.contracts.errors import EnvironmentProblem, UserError
from core.contracts.ids import RunId, new_run_id
from core.contracts.placement import LOCAL_NODE
from core.contracts.specs import RunSpec
from core.contracts.states import RESUMABLE_STATES
from core.jobs.placed import local_placement
from core.jobs.processes import end_processes, marked_processes
from core.jobs.profiling import request_profile
from core.jobs.reconcile import Standing, examine
from core.jobs.records import write_record
from core.jobs.snapshot import snapshot_code
from core.jobs.starting import last_attempt, prepare_attempt, start_supervisor
from core.plugins.decode import encode_spec
from core.plugins.registry import Registry, registry
from core.runlog.layout import RunLayout
from core.settings.home import Home

MINIMUM_FREE_BYTES = 50 << 20


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
            UserError: It is to wait in the queue, and its code is too large to be kept for that.
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
            if named.launch.queue and named.launch.copy_code == "copy":
                self._keep_code(partial, run_id, named)
            partial.rename(run_dir)
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise self._cannot_write(error) from error
        except UserError:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        start_supervisor(run_dir, 1, guardian=guardian)
        return run_id

    def _keep_code(self, partial: Path, run_id: RunId, spec: RunSpec) -> None:
        """Keep the code as it is now beside a spec that will wait in the queue."""
        kind = self._kinds.get(str(spec.__struct_config__.tag))
        folder = kind.code_folder(spec)
        if not folder:
            return
        copied = snapshot_code(folder, partial, run_id, spec.launch.exclude)
        placement = local_placement(self._home.run_dir(run_id), kind.ranks(spec))
        write_record(RunLayout(partial).placement, msgspec.structs.replace(placement, copies=(copied,)))

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
        attempt = last_attempt(run_dir) + 1
        self._check_space()
        prepare_attempt(run_dir)
        start_supervisor(run_dir, attempt, guardian=guardian)
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
        self._request(RunLayout(run_dir).stop_request)

    def pause(self, run_id: RunId) -> None:
        """Ask a run to save and end its work for now; its supervisor stays, and its devices are free.

        Raises:
            UserError: There is no such run, or it has ended.
            EnvironmentProblem: The request cannot be written.
        """
        self._request(RunLayout(self._open_run(run_id)).pause_request)

    def proceed(self, run_id: RunId) -> None:
        """Let a paused run go on from its last checkpoint, once devices are free where it queues for them.

        Raises:
            UserError: There is no such run, or it has ended.
            EnvironmentProblem: The request cannot be withdrawn.
        """
        try:
            RunLayout(self._open_run(run_id)).pause_request.unlink(missing_ok=True)
        except OSError as error:
            raise self._cannot_write(error) from error

    def profile(self, run_id: RunId, steps: int, ranks: Sequence[int]) -> None:
        """Ask ranks of a run for a profile of their next steps.

        Raises:
            UserError: There is no such run, or it has ended.
            EnvironmentProblem: The request cannot be written.
        """
        try:
            request_profile(self._open_run(run_id), steps, ranks)
        except OSError as error:
            raise self._cannot_write(error) from error

    def _open_run(self, run_id: RunId) -> Path:
        run_dir = self._existing(run_id)
        state = examine(run_dir).state
        if state is not None and state.is_terminal:
            raise UserError(f"The run {run_id} has already ended ({state.value}).", "Resume it to run it again.")
        return run_dir

    def _request(self, request: Path) -> None:
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
        if not marked_processes(run_id, LOCAL_NODE):
            return set()
        return end_processes(lambda: marked_processes(run_id, LOCAL_NODE), grace_s=grace_s)

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
