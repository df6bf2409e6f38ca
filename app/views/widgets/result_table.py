"""A small table of results: numbers to the right, as wide as it needs to be, as high as its rows."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication, QKeyEvent, QKeySequence, QWheelEvent
from PySide6.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget, QTableWidgetItem, QWidget

from app.viewmodels.wording import number_text
from core.contracts.events import Cell
from core.contracts.runs import TableRecord

_ROW = 32
_MAX_SHOWN_ROWS = 14
_MAX_COLUMN_WIDTH = 420


class ResultTable(QTableWidget):
    """Read-only; Ctrl+C copies the chosen cells as tab-separated text."""

    def __init__(self, record: TableRecord, parent: QWidget | None = None) -> None:
        super().__init__(len(record.rows), len(record.columns), parent)
        self.setAccessibleName(record.name)
        self.setHorizontalHeaderLabels(list(record.columns))
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setShowGrid(False)
        self.setTabKeyNavigation(False)
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(_ROW)
        self.horizontalHeader().setHighlightSections(False)
        self._fill(record)
        self._fit(len(record.rows))

    def _fill(self, record: TableRecord) -> None:
        numeric = [_is_numeric(record, column) for column in range(len(record.columns))]
        right = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        left = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
        for row, cells in enumerate(record.rows):
            for column, cell in enumerate(cells[: len(record.columns)]):
                item = QTableWidgetItem(cell_text(cell))
                item.setTextAlignment(right if numeric[column] else left)
                item.setToolTip(str(cell)[:1000])
                self.setItem(row, column, item)
        for column, is_number in enumerate(numeric):
            header = self.horizontalHeaderItem(column)
            if header is not None:
                header.setTextAlignment(right if is_number else left)

    def _fit(self, rows: int) -> None:
        header = self.horizontalHeader()
        self.resizeColumnsToContents()
        for column in range(self.columnCount()):
            self.setColumnWidth(column, min(self.columnWidth(column) + 24, _MAX_COLUMN_WIDTH))
        header.setSectionResizeMode(QHeaderView.ResizeMode.Interactive)
        header.setStretchLastSection(True)
        shown = min(rows, _MAX_SHOWN_ROWS)
        self.setFixedHeight(36 + shown * _ROW + 6)

    def wheelEvent(self, arg__1: QWheelEvent) -> None:
        """Scroll the page where the table itself has nothing to scroll."""
        if self.verticalScrollBar().maximum() == 0:
            arg__1.ignore()
        else:
            super().wheelEvent(arg__1)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Copy the chosen cells."""
        if not event.matches(QKeySequence.StandardKey.Copy):
            super().keyPressEvent(event)
            return
        rows: dict[int, list[str]] = {}
        for item in sorted(self.selectedItems(), key=lambda item: (item.row(), item.column())):
            rows.setdefault(item.row(), []).append(item.text())
        QGuiApplication.clipboard().setText("\n".join("\t".join(cells) for cells in rows.values()))


def cell_text(cell: Cell) -> str:
    """Return a cell's value in words."""
    if cell is None:
        return "—"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return number_text(cell) if isinstance(cell, (int, float)) else " ".join(str(cell).split())


def _is_numeric(record: TableRecord, column: int) -> bool:
    cells = [row[column] for row in record.rows if column < len(row) and row[column] is not None]
    return bool(cells) and all(isinstance(cell, (int, float)) and not isinstance(cell, bool) for cell in cells)
