"""The trials of a sweep as a table model that sorts by what cells mean, and keeps to the trials that a filter lets through."""

from __future__ import annotations

import math
from collections.abc import Set as AbstractSet
from typing import Any

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QObject, QPersistentModelIndex, QSortFilterProxyModel, Qt

from app.viewmodels.sweep_axes import choice_text
from app.viewmodels.wording import number_text, span_text
from core.contracts.sweeps import SweepReport, SweepTrial

AnyIndex = QModelIndex | QPersistentModelIndex

STATE_WORDS = {
    "waiting": "Waiting",
    "running": "Running",
    "finished": "Finished",
    "pruned": "Pruned",
    "failed": "Failed",
}
_FIRST = ("Trial", "State")
_LAST = ("Step", "Duration", "Note")


class SweepTableModel(QAbstractTableModel):
    """One row a trial: number, state, value of the metric, value of every parameter, step, duration, note. Thread: UI."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._report: SweepReport | None = None
        self._titles: tuple[str, ...] = ()

    def show_report(self, report: SweepReport | None) -> None:
        """Show a sweep; rows change in place while its columns stay, so that selection and order do."""
        titles = () if report is None else _titles(report)
        trials = () if report is None else report.trials
        if titles != self._titles or len(trials) < self.rowCount():
            self.beginResetModel()
            self._report, self._titles = report, titles
            self.endResetModel()
            return
        old = () if self._report is None else self._report.trials
        if len(trials) > len(old):
            self.beginInsertRows(QModelIndex(), len(old), len(trials) - 1)
            self._report = report
            self.endInsertRows()
        self._report = report
        changed = [row for row, before in enumerate(old) if trials[row] != before]
        if changed:
            self.dataChanged.emit(self.index(changed[0], 0), self.index(changed[-1], len(titles) - 1))

    def rowCount(self, parent: AnyIndex | None = None) -> int:
        """Return the number of trials."""
        return 0 if self._report is None or (parent is not None and parent.isValid()) else len(self._report.trials)

    def columnCount(self, parent: AnyIndex | None = None) -> int:
        """Return the number of columns."""
        return 0 if parent is not None and parent.isValid() else len(self._titles)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return a column's title."""
        if orientation is Qt.Orientation.Horizontal and role == Qt.ItemDataRole.DisplayRole:
            return self._titles[section]
        if orientation is Qt.Orientation.Horizontal and role == Qt.ItemDataRole.TextAlignmentRole:
            return int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        return None

    def data(self, index: AnyIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return a cell's words, what it sorts by, or its trial."""
        if self._report is None or not index.isValid():
            return None
        trial = self._report.trials[index.row()]
        if role in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.ToolTipRole):
            return self._text(trial, index.column())
        return None

    def trial_at(self, row: int) -> SweepTrial | None:
        """Return the trial of a row."""
        return None if self._report is None or row >= len(self._report.trials) else self._report.trials[row]

    def _cells(self, trial: SweepTrial) -> tuple[Any, ...]:
        assert self._report is not None
        parameters = (trial.values.get(p.path) for p in self._report.parameters)
        took = None if trial.started is None or trial.ended is None else trial.ended - trial.started
        return (trial.number, trial.state, trial.value, *parameters, trial.step, took, trial.message)

    def _text(self, trial: SweepTrial, column: int) -> str:
        cell = self._cells(trial)[column]
        if column == 1:
            return STATE_WORDS[trial.state]
        if column == 2 and trial.value is not None:
            return number_text(trial.value)
        if column == len(self._titles) - 2:
            return "" if cell is None else span_text(cell)
        return "" if cell is None else choice_text(cell)

    def sort_key(self, row: int, column: int) -> tuple[int, float, str]:
        """Return what a cell sorts by: what is missing last, numbers as numbers."""
        trial = self.trial_at(row)
        cell = None if trial is None else self._cells(trial)[column]
        if cell is None or (isinstance(cell, float) and math.isnan(cell)):
            return (1, 0.0, "")
        return (0, 0.0, cell) if isinstance(cell, str) else (0, float(cell), "")


def _titles(report: SweepReport) -> tuple[str, ...]:
    return (*_FIRST, report.metric, *(p.label for p in report.parameters), *_LAST)


class SweepTableOrder(QSortFilterProxyModel):
    """The order and the choice of the rows; cells without a value stay at the end either way. Thread: UI."""

    def __init__(self, source: SweepTableModel, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._source = source
        self._kept: AbstractSet[int] | None = None
        self.setSourceModel(source)
        self.setDynamicSortFilter(True)

    def keep(self, numbers: AbstractSet[int] | None) -> None:
        """Show these trials only; None shows all."""
        if numbers != self._kept:
            self.beginFilterChange()
            self._kept = numbers
            self.endFilterChange()

    def filterAcceptsRow(self, source_row: int, source_parent: AnyIndex) -> bool:
        """Tell whether a row is shown."""
        del source_parent
        trial = self._source.trial_at(source_row)
        return self._kept is None or (trial is not None and trial.number in self._kept)

    def lessThan(self, source_left: AnyIndex, source_right: AnyIndex) -> bool:
        """Compare two cells of a column."""
        left = self._source.sort_key(source_left.row(), source_left.column())
        right = self._source.sort_key(source_right.row(), source_right.column())
        if left[0] != right[0]:
            return (left[0] < right[0]) == (self.sortOrder() is Qt.SortOrder.AscendingOrder)
        return left < right

    def trial_at(self, index: AnyIndex) -> SweepTrial | None:
        """Return the trial of a shown row."""
        return self._source.trial_at(self.mapToSource(index).row()) if index.isValid() else None

    def row_of(self, number: int) -> int | None:
        """Return the shown row of a trial."""
        found = self.mapFromSource(self._source.index(number, 0))
        return found.row() if found.isValid() else None
