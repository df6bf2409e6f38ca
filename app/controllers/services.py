"""What every controller is given: the workspace once it is open, the one follower of live runs, and the settings.

The window paints before the workspace opens, so ``opened`` is what pages wait for. The follower reads on its own thread;
``run_updated`` brings its updates to the UI thread.
"""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import msgspec
from PySide6.QtCore import QObject, Qt, Signal, Slot

from app.controllers.notices import bridge
from app.controllers.ops import Op
from app.controllers.routes import Router
from core.contracts.ids import RunId
from core.contracts.runs import RunUpdate
from core.contracts.settings import Settings
from core.contracts.states import RunState

if TYPE_CHECKING:
    from core.workspace.follower import Follower
    from core.workspace.workspace import Workspace


class Services(QObject):
    """The window's access to the core.

    Attributes:
        router: Carries requests to go to a page.
        settings: What the user set; change it with ``change_settings``.

    Signals:
        opened: The ``Workspace`` is ready.
        open_failed: A ``Notice``: why it could not be opened.
        run_updated: A ``RunUpdate`` of a live run.
        runs_changed: Runs came, went or changed state: lists are stale.
        settings_changed: The new ``Settings``.
    """

    opened = Signal(object)
    open_failed = Signal(object)
    run_updated = Signal(object)
    runs_changed = Signal()
    settings_changed = Signal(object)
    _update_arrived = Signal(object)

    def __init__(self, home_path: Path, settings: Settings, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.router = Router(self)
        self.settings = settings
        self.home_path = home_path
        self._workspace: Workspace | None = None
        self._follower: Follower | None = None
        self._states: dict[RunId, RunState] = {}
        self._saving = Lock()
        self._update_arrived.connect(self._on_update_arrived, Qt.ConnectionType.QueuedConnection)

    @property
    def workspace(self) -> Workspace:
        """The open workspace; only after ``opened``."""
        if self._workspace is None:
            raise RuntimeError("The workspace is not open yet.")
        return self._workspace

    @property
    def is_open(self) -> bool:
        """True once the workspace is open."""
        return self._workspace is not None

    def open(self) -> None:
        """Open the workspace in the background."""
        Op(self._open).succeeded(self._on_opened).failed(self.open_failed.emit).start()

    def watch(self, run_id: RunId) -> None:
        """Ask for the points of a live run in ``run_updated``. Reads the index: not on the UI thread."""
        if self._follower is not None:
            self._follower.watch(run_id)

    def unwatch(self, run_id: RunId) -> None:
        """No longer ask for the points of a run."""
        if self._follower is not None:
            self._follower.unwatch(run_id)

    def note_runs_changed(self) -> None:
        """Say that runs were launched, stopped, deleted or restored, so that every list is read anew."""
        if self._follower is not None:
            self._follower.poke()
        self.runs_changed.emit()

    def live_count(self) -> int:
        """Return how many runs are known to go on."""
        return sum(not state.is_terminal for state in self._states.values())

    def change_settings(self, **changes: object) -> None:
        """Set some settings and save them at once, in the background."""
        self.settings = msgspec.structs.replace(self.settings, **changes)
        self.settings_changed.emit(self.settings)
        if self._workspace is not None:
            Op(self._save_settings).start()

    def _save_settings(self) -> None:
        # One at a time, and each writes the newest: whichever comes last, the file holds what was set last.
        with self._saving:
            self.workspace.save_settings(self.settings)

    def close(self) -> None:
        """Stop following. Runs go on. UI thread, once, before the application quits."""
        if self._follower is not None:
            self._follower.close()
            self._follower = None
        if self._workspace is not None:
            self._workspace.close()

    def _open(self) -> Workspace:
        from core.workspace.workspace import Workspace

        return Workspace.open(self.home_path)

    def _on_opened(self, workspace: Workspace) -> None:
        self._workspace = workspace
        for notice in workspace.notices:
            bridge().post(notice)
        self._follower = workspace.follow(self._update_arrived.emit)
        if self.settings != workspace.settings:
            Op(self._save_settings).start()  # changed while the home was being opened
        self.opened.emit(workspace)

    @Slot(object)
    def _on_update_arrived(self, update: RunUpdate) -> None:
        summary = update.summary
        before = self._states.get(summary.run_id)
        self._states[summary.run_id] = summary.state
        self.run_updated.emit(update)
        if before is not summary.state:
            self.runs_changed.emit()
