"""Cards in as many columns as the width allows; order kept, heights equal within a row."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QSize
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QGridLayout, QWidget

from app.views.theme import SPACE


class CardGrid(QWidget):
    """Lays out cards of at least ``min_width`` pixels."""

    def __init__(self, min_width: int = 320, max_columns: int = 4, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._min_width = min_width
        self._max_columns = max_columns
        self._cards: list[QWidget] = []
        self._columns = 0
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setSpacing(SPACE.m)

    def set_cards(self, cards: Sequence[QWidget]) -> None:
        """Show these cards; those no longer wanted are deleted."""
        if list(cards) == self._cards:
            return
        for gone in self._cards:
            if gone not in cards:
                self._grid.removeWidget(gone)
                gone.hide()
                gone.deleteLater()
        self._cards = list(cards)
        self._columns = 0
        self._arrange()

    def cards(self) -> list[QWidget]:
        """Return the cards shown."""
        return self._cards

    def _arrange(self) -> None:
        fitting = max((self.width() + SPACE.m) // (self._min_width + SPACE.m), 1)
        columns = min(fitting, self._max_columns, max(len(self._cards), 2))
        if columns == self._columns:
            return
        for column in range(max(self._columns, self._max_columns)):
            self._grid.setColumnStretch(column, 1 if column < columns else 0)
        self._columns = columns
        for index, card in enumerate(self._cards):
            self._grid.addWidget(card, index // columns, index % columns)

    def minimumSizeHint(self) -> QSize:
        """Let the page get narrower than the columns there are now: fewer columns follow."""
        return QSize(self._min_width, super().minimumSizeHint().height())

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Take more or fewer columns."""
        super().resizeEvent(event)
        self._arrange()
