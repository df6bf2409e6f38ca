"""Profiles of the run on its page: asks a running training for one, and reads the newest once it is recorded."""

from __future__ import annotations

import shutil
from pathlib import Path

from PySide6.QtCore import QObject, Signal

from app.controllers.notices import notify
from app.controllers.ops import Op
from app.controllers.services import Services
from core.contracts.errors import EnvironmentProblem
from core.contracts.ids import RunId
from core.contracts.notices import Severity
from core.contracts.profiles import SUMMARY_KIND, ProfileReport
from core.contracts.runs import RunDetail


class ProfileController(QObject):
    """Follows the profiles of one run. Thread: UI.

    Signals:
        loaded: The newest ``ProfileReport``, or None when there is none.
        failed: A ``Notice``: it could not be asked for, or not be read.
        waiting_changed: True while a profile was asked for and is not here yet.
    """

    loaded = Signal(object)
    failed = Signal(object)
    waiting_changed = Signal(bool)

    def __init__(self, services: Services, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._services = services
        self._run_id: RunId | None = None
        self._known: tuple[str, ...] | None = None
        self._is_waiting = False

    @property
    def is_waiting(self) -> bool:
        """True while a profile was asked for and is not here yet."""
        return self._is_waiting

    def open(self, run_id: RunId) -> None:
        """Turn to another run."""
        self._run_id = run_id
        self._known = None
        self._wait(waiting=False)

    def on_detail(self, detail: RunDetail) -> None:
        """Read the newest profile when there is one that was not read yet; stop waiting when the run has ended."""
        if detail.summary.run_id != self._run_id:
            return
        found = tuple(record.sha256 + record.path for record in detail.artifacts if record.kind == SUMMARY_KIND)
        if found != self._known:
            is_new = self._known is not None and len(found) > 0
            self._known = found
            self._read()
            if is_new:
                self._wait(waiting=False)
        if detail.summary.state.is_terminal:
            self._wait(waiting=False)

    def request(self, steps: int) -> None:
        """Ask the run to record its next steps."""
        run_id, workspace = self._run_id, self._services.workspace
        if run_id is None or self._is_waiting:
            return
        self._wait(waiting=True)

        def give_up(notice: object) -> None:
            self._wait(waiting=False)
            self.failed.emit(notice)

        Op(lambda: workspace.request_profile(run_id, steps)).failed(give_up).start(may_wait=True)

    def save_trace(self, source: Path, target: Path) -> None:
        """Copy a trace to where the user wants it."""
        Op(lambda: _copy(source, target)).succeeded(lambda _: notify(Severity.SUCCESS, f"Saved {target.name}.")).start()

    def _read(self) -> None:
        run_id, workspace = self._run_id, self._services.workspace
        if run_id is None:
            return

        def take(report: ProfileReport | None) -> None:
            if run_id == self._run_id:
                self.loaded.emit(report)

        Op(lambda: workspace.profile(run_id)).succeeded(take).failed(self.failed.emit).start()

    def _wait(self, *, waiting: bool) -> None:
        if waiting != self._is_waiting:
            self._is_waiting = waiting
            self.waiting_changed.emit(waiting)


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        raise EnvironmentProblem(
            f"The trace could not be saved: {error.strerror}.", f"Check that {target.parent} may be written to."
        ) from error
