"""Feeds the run table: fetches pages of the current query in the background and applies live updates in place.

A newer query cancels what is under way for the older one. Lists that changed are read again page by page, a little
later, so that a burst of changes costs one read.
"""

from __future__ import annotations

from dataclasses import replace

from PySide6.QtCore import QObject, QTimer, Signal

from app.controllers.ops import Op
from app.controllers.services import Services
from app.viewmodels.run_table import PAGE_SIZE, RunTableModel
from core.contracts.notices import Notice
from core.contracts.runs import RunPage, RunQuery, RunUpdate

_REFRESH_MS = 300
_TICK_MS = 5000


class RunsController(QObject):
    """Keeps ``model`` in step with the history. Thread: UI.

    Attributes:
        model: The table.

    Signals:
        busy_changed: True while the first page of a query is fetched.
        answered: The first page of a query is shown.
        failed: A ``Notice``: the query could not be answered.
        kinds_loaded: Tuple of ``RunKindInfo``.
    """

    busy_changed = Signal(bool)
    answered = Signal()
    failed = Signal(object)
    kinds_loaded = Signal(object)

    def __init__(self, services: Services, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._services = services
        self.model = RunTableModel(self)
        self._query = RunQuery(limit=PAGE_SIZE)
        self._first: Op[RunPage] | None = None
        self._pages: dict[int, Op[RunPage]] = {}
        self._again: Op[list[tuple[int, RunPage]]] | None = None
        self._is_active = False
        self._is_stale = True
        self._refresh = QTimer(self, interval=_REFRESH_MS, singleShot=True)
        self._refresh.timeout.connect(self._read_again)
        self._tick = QTimer(self, interval=_TICK_MS)
        self._tick.timeout.connect(self.model.tick)
        self.model.page_wanted.connect(self._fetch)
        services.runs_changed.connect(self._on_runs_changed)
        services.run_updated.connect(self._on_run_updated)
        services.opened.connect(lambda _: self._on_opened())

    @property
    def query(self) -> RunQuery:
        """The query that the table shows."""
        return self._query

    def activate(self) -> None:
        """Read now if something changed, and go on while the page is seen."""
        self._is_active = True
        self._tick.start()
        if self._services.is_open and self._is_stale:
            self._on_opened() if not self.model.total else self._read_again()

    def deactivate(self) -> None:
        """Stop reading."""
        self._is_active = False
        self._tick.stop()

    def set_query(self, query: RunQuery) -> None:
        """Show the answer to another query."""
        self._query = replace(query, offset=0, limit=PAGE_SIZE)
        self.reload()

    def reload(self) -> None:
        """Ask the query anew from its first page."""
        if not self._services.is_open:
            return
        self._cancel()
        self._is_stale = False
        self.busy_changed.emit(True)
        workspace, query = self._services.workspace, self._query
        self._first = Op(lambda: workspace.runs(query)).succeeded(self._on_first_page).failed(self._on_failed).start()

    def _on_opened(self) -> None:
        if not self._is_active:
            return
        self.reload()
        workspace = self._services.workspace
        Op(workspace.kinds).succeeded(self._on_kinds).start()

    def _on_kinds(self, kinds: tuple[object, ...]) -> None:
        self.kinds_loaded.emit(kinds)

    def _on_first_page(self, page: RunPage) -> None:
        self._first = None
        self.model.start_over(page)
        self.busy_changed.emit(False)
        self.answered.emit()
        if self._is_stale:
            self._refresh.start()

    def _on_failed(self, notice: Notice) -> None:
        self._first = None
        self._is_stale = True
        self.busy_changed.emit(False)
        self.failed.emit(notice)

    def _fetch(self, offset: int) -> None:
        if offset in self._pages or self._first is not None or not self._services.is_open:
            return
        workspace, query = self._services.workspace, replace(self._query, offset=offset)
        self._pages[offset] = (
            Op(lambda: workspace.runs(query))
            .succeeded(lambda page: self.model.set_page(offset, page))
            .failed(lambda _: self.model.retry_page(offset))
            .finished(lambda: self._on_page_done(offset))
            .start()
        )

    def _on_page_done(self, offset: int) -> None:
        self._pages.pop(offset, None)
        if not self._pages:
            self.answered.emit()

    def _read_again(self) -> None:
        """Read the pages held once more, all in one call, so that a run that moved between two of them is not lost."""
        if not self._is_active or not self._services.is_open or self._first is not None:
            return
        if self._again is not None:
            self._is_stale = True
            return
        self._is_stale = False
        workspace, query = self._services.workspace, self._query
        offsets = self.model.forget_pages() or (0,)

        def read() -> list[tuple[int, RunPage]]:
            return [(offset, workspace.runs(replace(query, offset=offset))) for offset in offsets]

        self._again = Op(read).succeeded(self.model.set_pages).finished(self._on_read_again).start()

    def _on_read_again(self) -> None:
        self._again = None
        self.answered.emit()
        if self._is_stale:
            self._refresh.start()

    def _on_runs_changed(self) -> None:
        self._is_stale = True
        if self._is_active:
            self._refresh.start()

    def _on_run_updated(self, update: RunUpdate) -> None:
        self.model.apply(update.summary)

    def _cancel(self) -> None:
        if self._first is not None:
            self._first.cancel()
        for op in self._pages.values():
            op.cancel()
        if self._again is not None:
            self._again.cancel()
        self._first = self._again = None
        self._pages.clear()
