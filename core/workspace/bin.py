"""Deleted runs: into the bin and back, and out of it for good, on the hosts of a run elsewhere too."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from core.contracts.errors import EnvironmentProblem, UserError
from core.contracts.ids import RunId, is_run_id
from core.contracts.states import RunState
from core.fleet.fleet import Fleet
from core.fleet.standing import standing_of
from core.history.history import History
from core.jobs.launcher import Launcher
from core.runlog.placements import is_elsewhere, read_placement
from core.settings.home import Home
from core.workspace.synchronize import Synchronizer


class RunBin:
    """The bin of one home. Thread-safe; blocks."""

    def __init__(self, home: Home, history: History, synchronizer: Synchronizer, fleet: Fleet) -> None:
        self._home = home
        self._history = history
        self._synchronizer = synchronizer
        self._fleet = fleet

    def delete(self, run_ids: Iterable[RunId]) -> None:
        """Move ended runs to the bin; see ``Workspace.delete``."""
        wanted = list(run_ids)
        gone = [run_id for run_id in wanted if not self._home.run_dir(run_id).is_dir()]
        wanted = [run_id for run_id in wanted if run_id not in gone]
        for run_id in wanted:
            self._check_ended(run_id)
        for run_id in wanted:
            target = self._home.bin_dir / run_id
            if target.exists():
                shutil.rmtree(target, ignore_errors=True)
            self._fleet.following.unfollow(run_id)
            _move(self._home.run_dir(run_id), target)
            self._history.delete(run_id)
        if gone:
            self._history.purge(gone)

    def _check_ended(self, run_id: RunId) -> None:
        """Raise unless a run has ended; what is left of its processes is ended."""
        run_dir = self._home.run_dir(run_id)
        # The directory is asked too: a run that is being resumed is open there before the index says so.
        state, standing = self._history.summary(run_id).state, standing_of(run_dir)
        if not state.is_terminal or standing.state is None or not standing.state.is_terminal:
            shown = standing.state or (RunState.QUEUED if state.is_terminal else state)
            raise UserError(f"The run {run_id} is {shown.value} and cannot be deleted.", "Stop it first.")
        if not standing.leftovers:
            return
        if is_elsewhere(read_placement(run_dir)):
            self._fleet.runs.end_leftovers(run_id)
        else:
            Launcher(self._home).end_leftovers(run_id)

    def restore(self, run_ids: Iterable[RunId]) -> None:
        """Take runs back out; see ``Workspace.restore``."""
        for run_id in run_ids:
            source, target = self._home.bin_dir / run_id, self._home.run_dir(run_id)
            # Whatever is no run id could name any folder: "" is the bin itself, ".." the home.
            if not is_run_id(run_id) or not source.is_dir():
                raise UserError(f"The bin holds no run {run_id!r}.")
            if target.exists():
                raise UserError(f"There is a run {run_id!r} already.", f"The one in the bin stays in {str(source)!r}.")
            _move(source, target)
            self._history.add(target)
            self._synchronizer.drain(run_id)

    def runs(self) -> tuple[RunId, ...]:
        """Return the runs in the bin, oldest first."""
        return tuple(sorted(RunId(path.name) for path in self._home.bin_dir.iterdir() if is_run_id(path.name)))

    def purge(self, run_ids: Iterable[RunId]) -> int:
        """Remove runs from the bin for good; see ``Workspace.purge``."""
        freed = 0
        left: list[str] = []
        for run_id in run_ids:
            folder = self._home.bin_dir / run_id
            if not is_run_id(run_id) or not folder.is_dir():
                raise UserError(f"The bin holds no run {run_id!r}.", "Only deleted runs can be removed for good.")
            # A run that was restored and deleted again since has its directory elsewhere in use.
            if is_elsewhere(read_placement(folder)) and not self._home.run_dir(run_id).is_dir():
                left += self._fleet.runs.remove(run_id, folder)
            size = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
            try:
                shutil.rmtree(folder)
            except OSError as error:
                raise EnvironmentProblem(
                    f"{str(folder)!r} cannot be removed: {error.strerror}.", "Check its permissions."
                ) from error
            freed += size
            if not self._home.run_dir(run_id).is_dir():
                self._history.purge([run_id])
        if left:
            raise EnvironmentProblem(f"Removed here. {' '.join(left)}", "Remove the folder there by hand.")
        return freed


def _move(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except OSError as error:
        raise EnvironmentProblem(
            f"{str(source)!r} cannot be moved: {error.strerror}.", "Check its permissions."
        ) from error
