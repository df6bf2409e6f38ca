"""What can be done to runs from any page: stop, resume, delete to the bin, restore, export. Each is one background call.

After each, every list is told to read anew. Failures become notices; nothing here asks the user anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PySide6.QtCore import QObject, Signal

from app.controllers.notices import notify
from app.controllers.ops import Op
from app.controllers.services import Services
from core.contracts.hosts import LOCAL_HOST
from core.contracts.ids import RunId
from core.contracts.notices import Severity
from core.contracts.runs import RunSummary
from core.contracts.states import RESUMABLE_STATES, RunState

_ENDINGS = {"csv": ".csv", "parquet": ".parquet", "tensorboard": ""}
EXPORT_FORMATS = tuple(_ENDINGS)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletedRuns:
    """Runs that went to the bin just now and can be restored."""

    run_ids: tuple[RunId, ...]


def can_stop(summary: RunSummary) -> bool:
    """Tell whether a run goes on and was not asked to stop yet."""
    return not summary.state.is_terminal and summary.state is not RunState.STOPPING


def can_resume(summary: RunSummary) -> bool:
    """Tell whether a run ended before its time."""
    return summary.state in RESUMABLE_STATES


def can_pause(summary: RunSummary) -> bool:
    """Tell whether a run can be asked to pause."""
    return summary.state is RunState.RUNNING


def can_proceed(summary: RunSummary) -> bool:
    """Tell whether a run is paused, or about to be."""
    return summary.state in {RunState.PAUSED, RunState.PAUSING}


def can_give_up(summary: RunSummary) -> bool:
    """Tell whether a run on other hosts goes on as far as is known, and does not answer."""
    return not summary.state.is_terminal and summary.silent_since is not None and summary.host != LOCAL_HOST


def can_build_on(run: RunSummary) -> bool:
    """Tell whether another run may use what this one made."""
    return run.state is RunState.SUCCEEDED


def can_delete(summary: RunSummary) -> bool:
    """Tell whether nothing of a run goes on."""
    return summary.state.is_terminal


class RunActions(QObject):
    """Acts on runs. Thread: UI; the work is done in the background.

    Signals:
        deleted: ``DeletedRuns``: they can be restored.
        restored: ``DeletedRuns`` that are back.
        stopping: ``RunId`` that was asked to stop.
        resumed: ``RunId`` that goes on.
    """

    deleted = Signal(object)
    restored = Signal(object)
    stopping = Signal(object)
    resumed = Signal(object)

    def __init__(self, services: Services, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._services = services

    def stop(self, run_ids: Sequence[RunId]) -> None:
        """Ask runs to save and end."""
        for run_id in run_ids:
            self._do(lambda run_id=run_id: self._services.workspace.stop(run_id), self._told(self.stopping, run_id))

    def resume(self, run_ids: Sequence[RunId]) -> None:
        """Start runs again from their newest checkpoint."""
        for run_id in run_ids:
            self._do(lambda run_id=run_id: self._services.workspace.resume(run_id), self._told(self.resumed, run_id))

    def pause(self, run_ids: Sequence[RunId]) -> None:
        """Let runs save and end their work for now; their devices are free meanwhile."""
        for run_id in run_ids:
            self._do(lambda run_id=run_id: self._services.workspace.pause(run_id), lambda: None)

    def proceed(self, run_ids: Sequence[RunId]) -> None:
        """Let paused runs go on from what they saved."""
        for run_id in run_ids:
            self._do(lambda run_id=run_id: self._services.workspace.proceed(run_id), lambda: None)

    def give_up(self, run_ids: Sequence[RunId]) -> None:
        """Count runs as lost whose hosts do not answer any more."""
        for run_id in run_ids:
            self._do(lambda run_id=run_id: self._services.workspace.give_up(run_id), lambda: None)

    def retry(self, run_id: RunId, hosts: tuple[str, ...] | None) -> None:
        """Start an ended run again from its last checkpoint, on these hosts (None: where it was)."""
        self._do(lambda: self._services.workspace.retry(run_id, hosts), self._told(self.resumed, run_id))

    def delete(self, run_ids: Sequence[RunId]) -> None:
        """Move runs to the bin."""
        chosen = tuple(run_ids)
        self._do(
            lambda: self._services.workspace.delete(chosen),
            lambda: self.deleted.emit(DeletedRuns(run_ids=chosen)),
        )

    def restore(self, run_ids: Sequence[RunId]) -> None:
        """Bring runs back from the bin."""
        chosen = tuple(run_ids)
        self._do(
            lambda: self._services.workspace.restore(chosen),
            lambda: self.restored.emit(DeletedRuns(run_ids=chosen)),
        )

    def export(self, run_ids: Sequence[RunId], form: str, folder: Path) -> None:
        """Write the curves of runs into ``folder``; ``form`` is one of ``EXPORT_FORMATS``."""
        workspace, chosen = self._services.workspace, tuple(run_ids)

        def write() -> list[Path]:
            return [workspace.export(run_id, form, folder / f"{run_id}{_ENDINGS[form]}") for run_id in chosen]

        Op(write).succeeded(lambda paths: _tell_exported(paths, folder)).start()

    def _do(self, call: Callable[[], object], on_done: Callable[[], object]) -> None:
        # The run may be on another host: its answer may take a while.
        Op(call).succeeded(lambda _: on_done()).finished(self._services.note_runs_changed).start(may_wait=True)

    @staticmethod
    def _told(signal: object, run_id: RunId) -> Callable[[], object]:
        return lambda: signal.emit(run_id)  # pyright: ignore[reportAttributeAccessIssue]


def _tell_exported(paths: list[Path], folder: Path) -> None:
    what = paths[0].name if len(paths) == 1 else f"{len(paths)} runs"
    notify(Severity.SUCCESS, f"Exported {what}.", f"The files are in {folder}.")
