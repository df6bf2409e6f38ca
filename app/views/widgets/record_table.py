"""A read-only table over ``RecordTableModel``: rows are chosen whole, columns are sorted by their head, Ctrl+C copies."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import QModelIndex, Qt, Signal
from PySide6.QtGui import QGuiApplication, QKeyEvent, QKeySequence
from PySide6.QtWidgets import QAbstractItemView, QTableView, QWidget

from app.viewmodels.record_table import RecordTableModel

_ROW = 32


class RecordTable(QTableView):
    """The table.

    Signals:
        record_activated: The record of a row that was double-clicked, or chosen with Enter.
    """

    record_activated = Signal(object)

    def __init__(self, model: RecordTableModel, name: str, words: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._model = model
        self.setObjectName(name)
        self.setAccessibleName(words)
        self.setModel(model)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setTabKeyNavigation(False)
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(_ROW)
        self.horizontalHeader().setHighlightSections(False)
        self.horizontalHeader().setStretchLastSection(True)
        self.horizontalHeader().setSortIndicator(-1, Qt.SortOrder.AscendingOrder)
        self.setSortingEnabled(True)
        self.doubleClicked.connect(self._on_activated)

    def chosen(self) -> Any | None:
        """Return the record of the chosen row; None when there is none."""
        index = self.currentIndex()
        return self._model.record(index.row()) if index.isValid() else None

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Choose with Enter; copy the chosen rows with Ctrl+C."""
        if event.key() in {Qt.Key.Key_Return, Qt.Key.Key_Enter}:
            self._on_activated(self.currentIndex())
        elif event.matches(QKeySequence.StandardKey.Copy):
            rows = sorted({index.row() for index in self.selectedIndexes()})
            records = (self._model.record(row) for row in rows)
            lines = ("\t".join(column.text(record) for column in self._model.columns) for record in records)
            QGuiApplication.clipboard().setText("\n".join(lines))
        else:
            super().keyPressEvent(event)

    def _on_activated(self, index: QModelIndex) -> None:
        if index.isValid():
            self.record_activated.emit(self._model.record(index.row()))
