"""The output of a run: batched appends, bounded lines, follows its end, finds text, loads earlier parts on demand.

Only the lines in ``LogLines`` are ever in the document, so that the length of the log and of its lines does not matter.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtGui import (
    QColor,
    QGuiApplication,
    QKeySequence,
    QShortcut,
    QSyntaxHighlighter,
    QTextCharFormat,
    QTextCursor,
    QTextDocument,
)
from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPlainTextEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from app.viewmodels.log_lines import LogLines
from app.viewmodels.wording import size_text
from app.views.icons import icon
from app.views.theme import SPACE, Theme, mono_font, set_kind, set_role, theme, theme_host
from core.contracts.runs import LogChunk

_FLUSH_MS = 100
_ERROR = re.compile(r"\b(error|exception|traceback|fatal|failed)\b", re.IGNORECASE)
_WARNING = re.compile(r"\bwarn(?:ing)?\b", re.IGNORECASE)
_RANK = re.compile(r"^(?:[\w-]+ \| )?\[rank(\d+)\]")
_ALL_NODES, _ALL_RANKS = "All nodes", "All ranks"


class _LevelHighlighter(QSyntaxHighlighter):
    """Colours lines that speak of errors and warnings."""

    def __init__(self, document: QTextDocument) -> None:
        super().__init__(document)
        self._error = QTextCharFormat()
        self._warning = QTextCharFormat()
        self.set_theme(theme())

    def set_theme(self, tokens: Theme) -> None:
        self._error.setForeground(QColor(tokens.danger))
        self._warning.setForeground(QColor(tokens.warning))
        self.rehighlight()

    def highlightBlock(self, text: str) -> None:
        if _ERROR.search(text):
            self.setFormat(0, len(text), self._error)
        elif _WARNING.search(text):
            self.setFormat(0, len(text), self._warning)


class LogView(QWidget):
    """Shows a log. Its parts: ``log_text``, ``log_search``, ``log_earlier``, ``log_follow``, ``log_node``, ``log_rank``.

    Signals:
        earlier_wanted: Byte offset (int) before which more is wanted.
        node_wanted: Name of the node (str) whose output alone is wanted; empty for that of all.
    """

    earlier_wanted = Signal(object)
    node_wanted = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.lines = LogLines()
        self._pending: list[LogChunk] = []
        self._total = 0
        self._hides = False
        self._build()
        self._flush_timer = QTimer(self, interval=_FLUSH_MS, singleShot=True)
        self._flush_timer.timeout.connect(self._flush)
        theme_host().changed.connect(self._highlighter.set_theme)
        self._show_state()

    def reset(self, chunk: LogChunk) -> None:
        """Show only this chunk."""
        self._pending.clear()
        self.lines = LogLines()
        lines = self.lines.reset(chunk)
        self._total = chunk.total
        self.text.setPlainText("\n".join(lines))
        self._hide_other_ranks(0)
        self._scroll_to_end()
        self._show_state()

    def append(self, chunk: LogChunk) -> None:
        """Add a chunk at the end; several within a tenth of a second become one change of the document."""
        self._pending.append(chunk)
        if not self._flush_timer.isActive():
            self._flush_timer.start()

    def prepend(self, chunk: LogChunk) -> None:
        """Add the chunk before what is shown, keeping the place."""
        self._follow.setChecked(False)
        lines = self.lines.prepend(chunk)
        self._total = max(self._total, chunk.total)
        if lines:
            bar = self.text.verticalScrollBar()
            below = bar.maximum() - bar.value()
            cursor = QTextCursor(self.text.document())
            cursor.insertText("\n".join(lines) + "\n")
            self._hide_other_ranks(0)
            bar.setValue(bar.maximum() - below)
        self._show_state()

    def set_sources(self, nodes: Sequence[tuple[str, str]], ranks: int) -> None:
        """Offer a choice of nodes (name, title) and of ranks, where there are several."""
        if [self._node.itemData(n) for n in range(1, self._node.count())] != [name for name, _ in nodes]:
            chosen = self._node.currentData()
            self._node.clear()
            self._node.addItem(_ALL_NODES, "")
            for name, title in nodes:
                self._node.addItem(title, name)
            self._node.setCurrentIndex(max(self._node.findData(chosen), 0))
        if self._rank.count() - 1 != ranks:
            self._rank.clear()
            self._rank.addItem(_ALL_RANKS, None)
            for rank in range(ranks):
                self._rank.addItem(f"Rank {rank}", rank)
        self._node.setVisible(len(nodes) > 1)
        self._rank.setVisible(ranks > 1)

    def choose_node(self, name: str) -> None:
        """Choose a node, as the user does."""
        index = self._node.findData(name)
        if index >= 0 and index != self._node.currentIndex():
            self._node.setCurrentIndex(index)
            self.node_wanted.emit(name)

    def clear(self) -> None:
        """Show nothing."""
        self.set_sources((), 0)
        self.reset(LogChunk(text="", start=0, end=0, total=0))
        self._follow.setChecked(True)

    def _build(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, SPACE.s, 0, 0)
        layout.setSpacing(SPACE.s)
        layout.addLayout(self._build_bar())
        self.text = QPlainTextEdit()
        self.text.setObjectName("log_text")
        self.text.setAccessibleName("Log")
        self.text.setReadOnly(True)
        self.text.setUndoRedoEnabled(False)
        self.text.setFont(mono_font(12))
        self.text.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self.text.setPlaceholderText("Nothing was printed yet.")
        self.text.verticalScrollBar().valueChanged.connect(self._on_scrolled)
        self._highlighter = _LevelHighlighter(self.text.document())
        layout.addWidget(self.text, 1)

    def _build_bar(self) -> QHBoxLayout:
        bar = QHBoxLayout()
        bar.setSpacing(SPACE.s)
        self.search = QLineEdit()
        self.search.setObjectName("log_search")
        self.search.setPlaceholderText("Find in log (Enter: next, Shift+Enter: previous)")
        self.search.setAccessibleName("Find in log")
        self.search.setClearButtonEnabled(True)
        self.search.setMaximumWidth(360)
        self.search.addAction(icon("search"), QLineEdit.ActionPosition.LeadingPosition)
        self.search.returnPressed.connect(self._on_search)
        self._build_sources()
        self._found = QLabel()
        set_kind(self._found, "caption")
        self._earlier = QPushButton("Load earlier")
        self._earlier.setObjectName("log_earlier")
        set_role(self._earlier, "ghost")
        self._earlier.clicked.connect(lambda: self.earlier_wanted.emit(self.lines.start))
        self._state = QLabel()
        set_kind(self._state, "caption")
        self._follow = QCheckBox("Follow")
        self._follow.setObjectName("log_follow")
        self._follow.setChecked(True)
        self._follow.setToolTip("Stay at the end while lines arrive.")
        self._follow.toggled.connect(lambda on: self._scroll_to_end() if on else None)
        copy = QPushButton("Copy all")
        copy.setIcon(icon("copy"))
        set_role(copy, "ghost")
        copy.setToolTip("Copy the lines that are loaded.")
        copy.clicked.connect(lambda: QGuiApplication.clipboard().setText(self.text.toPlainText()))
        bar.addWidget(self.search, 1)
        bar.addWidget(self._node)
        bar.addWidget(self._rank)
        bar.addWidget(self._found)
        bar.addStretch(1)
        for widget in (self._state, self._earlier, copy, self._follow):
            bar.addWidget(widget)
        find = QShortcut(QKeySequence(QKeySequence.StandardKey.Find), self)
        find.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
        find.activated.connect(self.search.setFocus)
        return bar

    def _build_sources(self) -> None:
        self._node, self._rank = QComboBox(), QComboBox()
        for box, name, words in ((self._node, "log_node", "Node"), (self._rank, "log_rank", "Rank")):
            box.setObjectName(name)
            box.setAccessibleName(f"{words} whose lines to show")
            box.hide()
        self._node.addItem(_ALL_NODES, "")
        self._rank.addItem(_ALL_RANKS, None)
        self._node.activated.connect(lambda _: self.node_wanted.emit(str(self._node.currentData() or "")))
        self._rank.activated.connect(lambda _: self._on_rank())

    def _flush(self) -> None:
        chunks, self._pending = self._pending, []
        if not chunks:
            return
        whole = LogChunk(
            text="".join(chunk.text for chunk in chunks),
            start=chunks[0].start,
            end=chunks[-1].end,
            total=chunks[-1].total,
        )
        change = self.lines.append(whole)
        self._total = whole.total
        cursor = QTextCursor(self.text.document())
        first_new = self.text.blockCount() - change.replaces_last - change.num_removed_first
        cursor.beginEditBlock()
        cursor.movePosition(QTextCursor.MoveOperation.End)
        if change.replaces_last:
            cursor.movePosition(QTextCursor.MoveOperation.StartOfBlock, QTextCursor.MoveMode.KeepAnchor)
            cursor.removeSelectedText()
        elif not self.text.document().isEmpty():
            cursor.insertBlock()
        cursor.insertText("\n".join(change.lines))
        self._remove_first(cursor, change.num_removed_first)
        cursor.endEditBlock()
        self._hide_other_ranks(first_new)
        if self._follow.isChecked():
            self._scroll_to_end()
        self._show_state()

    def _hide_other_ranks(self, first: int) -> None:
        """Hide lines of other ranks than the chosen one, from a line on; a line without a rank goes with the one before."""
        wanted = self._rank.currentData()
        if wanted is None and not self._hides:
            return
        self._hides = wanted is not None
        document = self.text.document()
        block = document.findBlockByNumber(max(first, 0))
        before = block.previous()
        start, shows = block.position(), not self._hides or not before.isValid() or before.isVisible()
        while block.isValid():
            found = _RANK.match(block.text())
            if found is not None and self._hides:
                shows = int(found[1]) == wanted
            block.setVisible(shows)
            block = block.next()
        document.markContentsDirty(start, document.characterCount() - start)
        self.text.viewport().update()

    def _on_rank(self) -> None:
        self._hides = True
        self._hide_other_ranks(0)
        if self._follow.isChecked():
            self._scroll_to_end()

    @staticmethod
    def _remove_first(cursor: QTextCursor, count: int) -> None:
        if count:
            cursor.movePosition(QTextCursor.MoveOperation.Start)
            cursor.movePosition(QTextCursor.MoveOperation.NextBlock, QTextCursor.MoveMode.KeepAnchor, count)
            cursor.removeSelectedText()

    def _scroll_to_end(self) -> None:
        bar = self.text.verticalScrollBar()
        bar.setValue(bar.maximum())

    def _on_scrolled(self, value: int) -> None:
        # The user scrolled up by hand: following would pull the text away from under the eyes.
        if self._follow.isChecked() and value < self.text.verticalScrollBar().maximum() and self.text.underMouse():
            self._follow.setChecked(False)

    def _on_search(self) -> None:
        words = self.search.text()
        if not words:
            return
        shift = QGuiApplication.keyboardModifiers() & Qt.KeyboardModifier.ShiftModifier
        flags = QTextDocument.FindFlag.FindBackward if shift else QTextDocument.FindFlag(0)
        self._follow.setChecked(False)
        if self.text.find(words, flags):
            self._found.setText("")
            return
        edge = QTextCursor.MoveOperation.End if shift else QTextCursor.MoveOperation.Start
        before = self.text.textCursor()
        self.text.moveCursor(edge)
        if not self.text.find(words, flags):
            self.text.setTextCursor(before)
            self._found.setText("Not in the lines that are loaded.")
        else:
            self._found.setText("Went on from the other end.")

    def _show_state(self) -> None:
        self._earlier.setVisible(self.lines.start > 0)
        shown = max(self.lines.end - self.lines.start, 0)
        size = size_text(self._total)
        self._state.setText(
            "" if not self._total else (f"last {size_text(shown)} of {size}" if self.lines.start else size)
        )
