"""Feeds the command palette: the commands there are, and the runs whose name fits what is typed."""

from __future__ import annotations

from PySide6.QtCore import QObject, QTimer, Signal

from app.controllers.actions import ActionList
from app.controllers.ops import Op
from app.controllers.services import Services
from app.viewmodels.palette_model import PaletteEntry
from app.viewmodels.wording import STATE_TITLES, moment_text
from core.contracts.notices import Notice
from core.contracts.runs import RunPage, RunQuery, RunSummary

_PAUSE_MS = 120
_MAX_RUNS = 12


class PaletteController(QObject):
    """Finds entries.

    Signals:
        found: A tuple of ``PaletteEntry``: runs that fit, newest first.
    """

    found = Signal(object)

    def __init__(self, services: Services, actions: ActionList) -> None:
        super().__init__(services)
        self._services = services
        self._actions = actions
        self._typed = ""
        self._op: Op[RunPage] | None = None
        self._pause = QTimer(self, singleShot=True, interval=_PAUSE_MS)
        self._pause.timeout.connect(self._search)

    def entries(self) -> tuple[PaletteEntry, ...]:
        """Return the commands as entries."""
        return tuple(
            PaletteEntry(
                title=action.title, icon=action.icon, run=action.run, detail=action.shortcut, words=action.words
            )
            for action in self._actions.all()
        )

    def search(self, typed: str) -> None:
        """Look for runs after a short pause in typing; ``found`` follows."""
        self._typed = typed.strip()
        self._pause.start()

    def cancel(self) -> None:
        """Forget the search."""
        self._pause.stop()
        if self._op is not None:
            self._op.cancel()

    def _search(self) -> None:
        if not self._services.is_open:
            return
        if self._op is not None:
            self._op.cancel()
        workspace, query = self._services.workspace, RunQuery(text=self._typed, limit=_MAX_RUNS)
        self._op = Op(lambda: workspace.runs(query)).succeeded(self._on_found).failed(self._on_failed).start()

    def _on_found(self, page: RunPage) -> None:
        self.found.emit(tuple(self._entry(row) for row in page.rows))

    def _on_failed(self, _notice: Notice) -> None:
        # The palette is still of use without runs, and the pages say what is wrong with the history.
        self.found.emit(())

    def _entry(self, row: RunSummary) -> PaletteEntry:
        return PaletteEntry(
            title=row.name or row.run_id,
            icon="runs",
            run=lambda: self._services.router.open_run(row.run_id),
            detail=f"{STATE_TITLES[row.state]} · {moment_text(row.created)}",
        )
