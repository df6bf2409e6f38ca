"""The Runs page: the history as a table of any length, with search, filters, order, and acts on many runs at once."""

from __future__ import annotations

from PySide6.QtCore import QItemSelectionModel, QModelIndex, QPoint, Qt, QTimer
from PySide6.QtGui import QKeySequence, QShortcut
from PySide6.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QPushButton,
    QStackedWidget,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from app.controllers.routes import TRAIN, Route
from app.controllers.run_actions import DeletedRuns, RunActions, can_delete, can_resume, can_stop
from app.controllers.runs_controller import RunsController
from app.controllers.services import Services
from app.viewmodels.run_table import SORT_KEYS, RunColumn
from app.views.icons import icon
from app.views.page import Page
from app.views.theme import set_role, theme_host
from app.views.widgets.empty_state import EmptyState
from app.views.widgets.run_delegate import ROW_HEIGHT, RunDelegate
from app.views.widgets.run_filters import RunFilters
from app.views.widgets.run_menu import RunCommands, popup_run_menu
from app.views.widgets.undo_bar import UndoBar
from core.contracts.forms import RunKindInfo
from core.contracts.ids import RunId
from core.contracts.notices import Notice
from core.contracts.runs import RunQuery, RunSummary

_WIDTHS = {
    RunColumn.STATE: 156,
    RunColumn.NAME: 220,
    RunColumn.KIND: 140,
    RunColumn.PROGRESS: 160,
    RunColumn.METRIC: 170,
    RunColumn.STARTED: 140,
    RunColumn.DURATION: 104,
    RunColumn.HOST: 84,
    RunColumn.TAGS: 120,
    RunColumn.LAST_LINE: 320,
}
_BUSY_AFTER_MS = 250


class RunsPage(Page):
    """The run history. The table is called ``runs_table``."""

    title = "Runs"
    icon_name = "runs"

    def __init__(self, services: Services, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._services = services
        self._controller = RunsController(services, self)
        self._actions = RunActions(services, self)
        self._commands = RunCommands(self, self._actions, services.router)
        self._kept_selection: tuple[RunId, ...] = ()
        self._kept_scroll = 0
        self._build()
        self._connect()
        self._add_shortcuts()

    def activate(self) -> None:
        """Read what changed."""
        self._controller.activate()

    def deactivate(self) -> None:
        """Stop reading."""
        self._controller.deactivate()

    def open(self, route: Route) -> None:
        """Search for the route's text."""
        if route.text is not None:
            self._filters.search(route.text)

    def selected(self) -> tuple[RunSummary, ...]:
        """Return the chosen runs, from top to bottom."""
        rows = sorted(index.row() for index in self.table.selectionModel().selectedRows())
        found = (self._controller.model.summary_at(row) for row in rows)
        return tuple(summary for summary in found if summary is not None)

    def _build(self) -> None:
        new = QPushButton("New run")
        new.setIcon(icon("plus", "on_accent"))
        new.setObjectName("runs_new")
        set_role(new, "primary")
        new.clicked.connect(self._on_new)
        for name, text, icon_name, slot in (
            ("runs_stop", "Stop", "stop", lambda: self._commands.stop(self.selected())),
            ("runs_resume", "Resume", "resume", lambda: self._commands.resume(self.selected())),
            ("runs_delete", "Delete", "trash", lambda: self._commands.delete(self.selected())),
        ):
            button = QPushButton(text)
            button.setObjectName(name)
            button.setIcon(icon(icon_name))
            button.clicked.connect(slot)
            self.add_action(button)
        self.add_action(new)
        self._filters = RunFilters()
        self.body.addWidget(self._filters)
        self._undo = UndoBar()
        self.body.addWidget(self._undo)
        self._stack = QStackedWidget()
        self.table = self._build_table()
        self._state = EmptyState("runs", "No runs yet", "")
        self._state.triggered.connect(self._on_state_triggered)
        holder = QWidget()
        centred = QVBoxLayout(holder)
        centred.addWidget(self._state)
        self._stack.addWidget(self.table)
        self._stack.addWidget(holder)
        self.body.addWidget(self._stack, 1)
        self._busy = QTimer(self, interval=_BUSY_AFTER_MS, singleShot=True)
        self._busy.timeout.connect(self._show_busy)
        self._show_busy()
        self._on_selection_changed()

    def _build_table(self) -> QTableView:
        table = QTableView()
        table.setObjectName("runs_table")
        table.setAccessibleName("Runs")
        table.setModel(self._controller.model)
        table.setItemDelegate(RunDelegate(table))
        table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        table.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        table.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        table.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        table.setShowGrid(False)
        table.setWordWrap(False)
        table.setTabKeyNavigation(False)
        table.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        table.verticalHeader().hide()
        table.verticalHeader().setDefaultSectionSize(ROW_HEIGHT)
        table.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        header = table.horizontalHeader()
        header.setHighlightSections(False)
        header.setSectionsMovable(True)
        header.setStretchLastSection(True)
        header.setSortIndicatorShown(True)
        header.setSortIndicator(RunColumn.STARTED, Qt.SortOrder.DescendingOrder)
        header.setSectionsClickable(True)
        for column, width in _WIDTHS.items():
            table.setColumnWidth(column, width)
        return table

    def _connect(self) -> None:
        model = self._controller.model
        self.table.doubleClicked.connect(self._on_opened)
        self.table.customContextMenuRequested.connect(self._on_menu)
        self.table.horizontalHeader().sectionClicked.connect(self._on_header_clicked)
        self.table.selectionModel().selectionChanged.connect(self._on_selection_changed)
        model.dataChanged.connect(self._on_selection_changed)
        model.modelAboutToBeReset.connect(self._keep_view)
        model.modelReset.connect(self._restore_view)
        self._filters.changed.connect(self._controller.set_query)
        self._controller.busy_changed.connect(self._on_busy_changed)
        self._controller.answered.connect(self._on_answered)
        self._controller.failed.connect(self._on_failed)
        self._controller.kinds_loaded.connect(self._on_kinds_loaded)
        self._actions.deleted.connect(self._on_deleted)
        theme_host().changed.connect(self._on_theme_changed)

    def _on_theme_changed(self) -> None:
        self.table.viewport().update()

    def _add_shortcuts(self) -> None:
        for keys, slot in (
            ("Return", self._open_current),
            ("Enter", self._open_current),
            ("Delete", lambda: self._commands.delete(self.selected())),
            ("Ctrl+C", lambda: self._commands.copy_id(self.selected())),
            ("Ctrl+D", self._clone_current),
        ):
            shortcut = QShortcut(QKeySequence(keys), self.table)
            shortcut.setContext(Qt.ShortcutContext.WidgetShortcut)
            shortcut.activated.connect(slot)
        find = QShortcut(QKeySequence(QKeySequence.StandardKey.Find), self)
        find.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
        find.activated.connect(self._filters.box.setFocus)

    def _on_new(self) -> None:
        self._services.router.go(Route(page=TRAIN))

    def _open_current(self) -> None:
        chosen = self.selected()
        if chosen:
            self._commands.open(chosen[0])

    def _clone_current(self) -> None:
        chosen = self.selected()
        if chosen:
            self._commands.clone(chosen[0])

    def _on_opened(self, index: QModelIndex) -> None:
        summary = self._controller.model.summary_at(index.row())
        if summary is not None:
            self._commands.open(summary)

    def _on_menu(self, at: QPoint) -> None:
        chosen = self.selected()
        if chosen:
            popup_run_menu(self, self._commands, chosen, self.table.viewport().mapToGlobal(at))

    def _on_header_clicked(self, column: int) -> None:
        header = self.table.horizontalHeader()
        sort = SORT_KEYS[column]
        if sort == "metric":
            metric = self._controller.model.common_metric()
            sort = f"metric:{metric}" if metric else ""
        if not sort:
            self._mark_sort(self._controller.query)
            return
        self._filters.set_sort(sort, descending=header.sortIndicatorOrder() is Qt.SortOrder.DescendingOrder)

    def _mark_sort(self, query: RunQuery) -> None:
        """Put the mark back on the column that orders the table, after a click on one that cannot."""
        name = query.sort.partition(":")[0]
        column = SORT_KEYS.index(name) if name in SORT_KEYS else int(RunColumn.STARTED)
        order = Qt.SortOrder.DescendingOrder if query.descending else Qt.SortOrder.AscendingOrder
        self.table.horizontalHeader().setSortIndicator(column, order)

    def _on_selection_changed(self, *_: object) -> None:
        chosen = self.selected()
        for name, can in (("runs_stop", can_stop), ("runs_resume", can_resume), ("runs_delete", can_delete)):
            button = self.findChild(QPushButton, name)
            if button is not None:
                button.setVisible(bool(chosen))
                button.setEnabled(any(can(run) for run in chosen))

    def _keep_view(self) -> None:
        self._kept_selection = tuple(run.run_id for run in self.selected())
        self._kept_scroll = self.table.verticalScrollBar().value()

    def _restore_view(self) -> None:
        selection = self.table.selectionModel()
        flags = QItemSelectionModel.SelectionFlag.Select | QItemSelectionModel.SelectionFlag.Rows
        for run_id in self._kept_selection:
            row = self._controller.model.row_of(run_id)
            if row is not None:
                selection.select(self._controller.model.index(row, 0), flags)
        self.table.verticalScrollBar().setValue(self._kept_scroll if self._kept_selection else 0)

    def _on_busy_changed(self, busy: bool) -> None:
        if busy:
            self._busy.start()
        else:
            self._busy.stop()

    def _show_busy(self) -> None:
        if not self._controller.model.total:
            self._state.set_content("clock", "Reading the history…", "This takes a moment.")
            self._stack.setCurrentIndex(1)

    def _on_answered(self) -> None:
        total = self._controller.model.total
        self._filters.set_count(total)
        self._stack.setCurrentIndex(0 if total else 1)
        if total:
            return
        if self._filters.is_filtered:
            self._state.set_content("search", "No run matches", "Search for less, or show all runs.", "Show all runs")
        else:
            sentence = "Every training, compression and measurement is kept here with its curves, log and results."
            self._state.set_content("runs", "No runs yet", sentence, "Start the first run")

    def _on_failed(self, notice: Notice) -> None:
        self._state.set_content("error", notice.message, notice.hint, "Try again")
        self._stack.setCurrentIndex(1)

    def _on_state_triggered(self) -> None:
        if self._state.button.text() == "Try again":
            self._controller.reload()
        elif self._filters.is_filtered:
            self._filters.clear()
        else:
            self._on_new()

    def _on_kinds_loaded(self, kinds: tuple[RunKindInfo, ...]) -> None:
        self._filters.set_kinds(kinds)
        self._controller.model.set_kind_titles({info.kind: info.title for info in kinds})

    def _on_deleted(self, gone: DeletedRuns) -> None:
        count = len(gone.run_ids)
        words = "The run is in the bin." if count == 1 else f"{count} runs are in the bin."
        self._undo.offer(words, lambda: self._actions.restore(gone.run_ids))
