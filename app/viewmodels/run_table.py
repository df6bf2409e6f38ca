"""The run history as a table model that knows how many runs there are and fetches only the pages that are looked at.

A row that is not here yet shows a placeholder and asks for its page by ``page_wanted``; the controller answers with
``set_page``. Live summaries change their row in place. Sorting is the query's work, never the model's. Texts come
from ``app.viewmodels.wording``; colours and chips are the view's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from enum import IntEnum
from typing import Any

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QObject, QPersistentModelIndex, Qt, Signal

from app.viewmodels.wording import (
    duration_text,
    hosts_text,
    main_metric,
    metric_text,
    moment_text,
    progress_text,
    state_text,
)
from core.contracts.ids import RunId
from core.contracts.runs import RunPage, RunSummary

PAGE_SIZE = 200
SUMMARY_ROLE = int(Qt.ItemDataRole.UserRole) + 1

AnyIndex = QModelIndex | QPersistentModelIndex


class RunColumn(IntEnum):
    """Columns, in order."""

    STATE = 0
    NAME = 1
    KIND = 2
    PROGRESS = 3
    METRIC = 4
    STARTED = 5
    DURATION = 6
    HOST = 7
    TAGS = 8
    LAST_LINE = 9


TITLES = ("State", "Name", "Kind", "Progress", "Main metric", "Started", "Duration", "Host", "Tags", "Last line")
SORT_KEYS = ("state", "name", "kind", "progress", "metric", "started", "duration", "host", "", "")
"""How the query calls each column's order; empty where the history keeps none."""


class RunTableModel(QAbstractTableModel):
    """Rows are ``RunSummary`` records. Thread: UI.

    Signals:
        page_wanted: Offset (int) of a page that came into view and is not here.
    """

    page_wanted = Signal(object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._rows: dict[int, RunSummary] = {}
        self._row_of: dict[RunId, int] = {}
        self._total = 0
        self._asked: set[int] = set()
        self._kind_titles: dict[str, str] = {}

    @property
    def total(self) -> int:
        """Number of runs that match the query."""
        return self._total

    def set_kind_titles(self, titles: dict[str, str]) -> None:
        """Set the names for people of the kinds of run."""
        self._kind_titles = dict(titles)
        self._refresh_columns(RunColumn.KIND, RunColumn.KIND)

    def start_over(self, page: RunPage) -> None:
        """Show another query's answer: its first page."""
        self.beginResetModel()
        self._rows.clear()
        self._row_of.clear()
        self._asked = {0}
        self._total = page.total
        self._store(0, page.rows)
        self.endResetModel()

    def set_page(self, offset: int, page: RunPage) -> None:
        """Take in one page of the same query."""
        self.set_pages(((offset, page),))

    def set_pages(self, pages: Sequence[tuple[int, RunPage]]) -> None:
        """Take in pages, by offset, of the same query; selection and current row stay with their runs where rows moved."""
        if not pages:
            return
        total = pages[-1][1].total
        if total > self._total:
            self._grow(total)
        before = {row: summary.run_id for row, summary in self._rows.items()}
        new = {row: summary for offset, page in pages for row, summary in enumerate(page.rows, offset)}
        changed = [row for row, summary in new.items() if self._rows.get(row) != summary]
        has_moved = any(row in before and before[row] != summary.run_id for row, summary in new.items())
        if has_moved:
            self.layoutAboutToBeChanged.emit()
        for offset, page in pages:
            self._store(offset, page.rows)
            self._asked.add(offset)
        if has_moved:
            self._move_persistent(before)
            self.layoutChanged.emit()
        if total < self._total:
            self._shrink(total)
        changed = [row for row in changed if row < self._total]
        if changed:
            self.dataChanged.emit(self.index(min(changed), 0), self.index(max(changed), len(TITLES) - 1))

    def forget_pages(self) -> tuple[int, ...]:
        """Return the offsets of the pages held; they may be asked for again while the old rows stay on view."""
        offsets = tuple(sorted({row // PAGE_SIZE * PAGE_SIZE for row in self._rows}))
        self._asked.clear()
        return offsets

    def retry_page(self, offset: int) -> None:
        """Allow a page whose loading failed to be asked for again."""
        self._asked.discard(offset)

    def apply(self, summary: RunSummary) -> bool:
        """Put a live run's new summary into its row; False when the run is not on a page held."""
        row = self._row_of.get(summary.run_id)
        if row is None:
            return False
        if self._rows[row] != summary:
            self._rows[row] = summary
            self.dataChanged.emit(self.index(row, 0), self.index(row, len(TITLES) - 1))
        return True

    def tick(self) -> None:
        """Redraw what grows old by itself: how long ago, how long so far."""
        self._refresh_columns(RunColumn.STARTED, RunColumn.DURATION)

    def summary_at(self, row: int) -> RunSummary | None:
        """Return the run of a row, None while its page is not here."""
        return self._rows.get(row)

    def common_metric(self) -> str | None:
        """Return the main metric that most of the rows held show; None when none has any."""
        found = Counter(metric[0] for summary in self._rows.values() if (metric := main_metric(summary)) is not None)
        return found.most_common(1)[0][0] if found else None

    def row_of(self, run_id: RunId) -> int | None:
        """Return the row of a run, None when it is not on a page held."""
        return self._row_of.get(run_id)

    def rowCount(self, parent: AnyIndex = QModelIndex()) -> int:  # noqa: B008 - Qt's signature
        """Return the number of runs that match."""
        return 0 if parent.isValid() else self._total

    def columnCount(self, parent: AnyIndex = QModelIndex()) -> int:  # noqa: B008 - Qt's signature
        """Return the number of columns."""
        return 0 if parent.isValid() else len(TITLES)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return a column's title."""
        if orientation is Qt.Orientation.Horizontal and 0 <= section < len(TITLES):
            if role == Qt.ItemDataRole.DisplayRole:
                return TITLES[section]
            if role == Qt.ItemDataRole.TextAlignmentRole:
                return int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        return None

    def data(self, index: AnyIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return a cell; asks for the page of a row that is not here."""
        if not index.isValid() or not 0 <= index.row() < self._total:
            return None
        summary = self._rows.get(index.row())
        if summary is None:
            self._want(index.row())
            return "…" if role == Qt.ItemDataRole.DisplayRole and index.column() == RunColumn.NAME else None
        return self._cell(summary, RunColumn(index.column()), role)

    def _cell(self, summary: RunSummary, column: RunColumn, role: int) -> Any:
        if role == SUMMARY_ROLE:
            return summary
        if role in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.AccessibleTextRole):
            return self._text(summary, column)
        if role == Qt.ItemDataRole.ToolTipRole:
            return self._tool_tip(summary, column)
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        return None

    def _text(self, summary: RunSummary, column: RunColumn) -> str:
        plain = {
            RunColumn.STATE: state_text(summary),
            RunColumn.NAME: summary.name or summary.run_id,
            RunColumn.KIND: self._kind_titles.get(summary.kind, summary.kind),
            RunColumn.HOST: hosts_text(summary.host),
            RunColumn.TAGS: ", ".join(summary.tags),
            RunColumn.LAST_LINE: (summary.last_line or summary.message)[:400],
        }
        if column in plain:
            return plain[column]
        if column is RunColumn.PROGRESS:
            return progress_text(summary)
        if column is RunColumn.METRIC:
            return metric_text(summary)
        return moment_text(summary.started) if column is RunColumn.STARTED else duration_text(summary)

    def _tool_tip(self, summary: RunSummary, column: RunColumn) -> str | None:
        if column is RunColumn.STATE:
            return f"{summary.message} {summary.hint}".strip()[:1000] or None
        if column is RunColumn.NAME:
            return f"{summary.name}\n{summary.run_id}"[:1000]
        return (summary.host if column is RunColumn.HOST else self._text(summary, column))[:1000] or None

    def _want(self, row: int) -> None:
        offset = row // PAGE_SIZE * PAGE_SIZE
        if offset not in self._asked:
            self._asked.add(offset)
            self.page_wanted.emit(offset)

    def _store(self, offset: int, rows: tuple[RunSummary, ...]) -> None:
        for row, summary in enumerate(rows, offset):
            before = self._rows.get(row)
            if before is not None and self._row_of.get(before.run_id) == row:
                del self._row_of[before.run_id]
            self._rows[row] = summary
            self._row_of[summary.run_id] = row

    def _move_persistent(self, before: dict[int, RunId]) -> None:
        for index in self.persistentIndexList():
            run_id = before.get(index.row())
            if run_id is None:
                continue
            row = self._row_of.get(run_id)
            moved = QModelIndex() if row is None else self.index(row, index.column())
            self.changePersistentIndex(index, moved)

    def _grow(self, total: int) -> None:
        self.beginInsertRows(QModelIndex(), self._total, total - 1)
        self._total = total
        self.endInsertRows()

    def _shrink(self, total: int) -> None:
        self.beginRemoveRows(QModelIndex(), total, self._total - 1)
        for row in [row for row in self._rows if row >= total]:
            gone = self._rows.pop(row)
            if self._row_of.get(gone.run_id) == row:
                del self._row_of[gone.run_id]
        self._total = total
        self.endRemoveRows()

    def _refresh_columns(self, first: RunColumn, last: RunColumn) -> None:
        if self._total:
            self.dataChanged.emit(self.index(0, first), self.index(self._total - 1, last))
