"""The command palette's list: commands, pages and runs, ranked by what was typed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from PySide6.QtCore import QAbstractListModel, QModelIndex, QObject, QPersistentModelIndex, Qt

from app.viewmodels.fuzzy import fuzzy_score

ICON_ROLE = int(Qt.ItemDataRole.UserRole) + 1
DETAIL_ROLE = int(Qt.ItemDataRole.UserRole) + 2
MAX_ROWS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class PaletteEntry:
    """One thing to choose.

    Attributes:
        title: What it is called.
        detail: Shortcut, or the state of a run; right-aligned.
        icon: Name of its icon.
        words: More words by which it is found.
        run: Does it.
    """

    title: str
    icon: str
    run: Callable[[], object]
    detail: str = ""
    words: str = ""


class PaletteModel(QAbstractListModel):
    """Entries that fit, best first. UI thread."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._entries: tuple[PaletteEntry, ...] = ()
        self._found: tuple[PaletteEntry, ...] = ()
        self._shown: list[PaletteEntry] = []
        self._typed = ""

    def set_entries(self, entries: Sequence[PaletteEntry]) -> None:
        """Take the commands and pages."""
        self._entries = tuple(entries)
        self._rank()

    def set_found(self, entries: Sequence[PaletteEntry]) -> None:
        """Take what the history found for the text; it is not filtered again."""
        self._found = tuple(entries)
        self._rank()

    def set_typed(self, typed: str) -> None:
        """Rank anew for what was typed."""
        self._typed = typed
        self._rank()

    def entry(self, row: int) -> PaletteEntry | None:
        """Return the entry in a row."""
        return self._shown[row] if 0 <= row < len(self._shown) else None

    def _rank(self) -> None:
        scored = [(score, entry) for entry in self._entries if (score := self._score(entry)) is not None]
        scored.sort(key=lambda pair: -pair[0])
        self.beginResetModel()
        self._shown = [*(entry for _, entry in scored), *self._found][:MAX_ROWS]
        self.endResetModel()

    def _score(self, entry: PaletteEntry) -> int | None:
        scores = [
            score
            for text in (entry.title, entry.words)
            if text and (score := fuzzy_score(self._typed, text)) is not None
        ]
        return max(scores, default=None)

    def rowCount(self, parent: QModelIndex | QPersistentModelIndex = QModelIndex()) -> int:  # noqa: B008
        """Return the number of entries that fit."""
        return 0 if parent.isValid() else len(self._shown)

    def data(self, index: QModelIndex | QPersistentModelIndex, role: int = int(Qt.ItemDataRole.DisplayRole)) -> Any:
        """Return one property of an entry."""
        entry = self.entry(index.row()) if index.isValid() else None
        if entry is None:
            return None
        if role in {Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.AccessibleTextRole}:
            return entry.title
        return {ICON_ROLE: entry.icon, DETAIL_ROLE: entry.detail}.get(role)
