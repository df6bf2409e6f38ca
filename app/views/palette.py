"""The command palette (Ctrl+K): type, choose with the arrow keys, Enter does it, Escape leaves."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QModelIndex, QObject, QPersistentModelIndex, QRect, QSize, Qt
from PySide6.QtGui import QKeyEvent, QPainter
from PySide6.QtWidgets import (
    QFrame,
    QLabel,
    QLineEdit,
    QListView,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QVBoxLayout,
    QWidget,
)

from app.controllers.palette_controller import PaletteController
from app.viewmodels.palette_model import DETAIL_ROLE, ICON_ROLE, PaletteEntry, PaletteModel
from app.views.icons import icon, icon_pixmap
from app.views.theme import SPACE, set_kind, theme

_WIDTH = 620
_ROW = 38
_ROWS_SHOWN = 9
_MOVES = {Qt.Key.Key_Down: 1, Qt.Key.Key_Up: -1, Qt.Key.Key_PageDown: 8, Qt.Key.Key_PageUp: -8}


class _EntryDelegate(QStyledItemDelegate):
    def paint(
        self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> None:
        tokens = theme()
        box: QRect = option.rect.adjusted(SPACE.xs, 1, -SPACE.xs, -1)  # pyright: ignore[reportAttributeAccessIssue]
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        if option.state & QStyle.StateFlag.State_Selected:  # pyright: ignore[reportAttributeAccessIssue]
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(tokens.accent_soft)
            painter.drawRoundedRect(box, 6, 6)
        ratio = painter.device().devicePixelRatioF()
        top = box.center().y() - 8
        painter.drawPixmap(box.left() + SPACE.s, top, icon_pixmap(str(index.data(ICON_ROLE)), 18, None, ratio))
        detail = str(index.data(DETAIL_ROLE) or "")
        words = box.adjusted(SPACE.s + 28, 0, -SPACE.s, 0)
        painter.setPen(tokens.text_faint)
        painter.drawText(words, Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignRight, detail)
        room = words.width() - painter.fontMetrics().horizontalAdvance(detail) - SPACE.m
        painter.setPen(tokens.text)
        title = painter.fontMetrics().elidedText(str(index.data()), Qt.TextElideMode.ElideRight, room)
        painter.drawText(words, Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft, title)
        painter.restore()

    def sizeHint(self, _option: QStyleOptionViewItem, _index: QModelIndex | QPersistentModelIndex) -> QSize:
        return QSize(100, _ROW)


class CommandPalette(QFrame):
    """The palette, over the middle of its window."""

    def __init__(self, controller: PaletteController, window: QWidget) -> None:
        super().__init__(window)
        self._controller = controller
        self._window = window
        self.setObjectName("palette")
        self.setProperty("floating", True)
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground, on=True)
        self.setAccessibleName("Command palette")
        self.model = PaletteModel(self)
        self.field = QLineEdit()
        self.field.setObjectName("palette_field")
        self.field.setPlaceholderText("Search pages, commands and runs")
        self.field.setAccessibleName("Search pages, commands and runs")
        self.field.addAction(icon("search"), QLineEdit.ActionPosition.LeadingPosition)
        self.field.installEventFilter(self)
        self.list = QListView()
        self.list.setModel(self.model)
        self.list.setItemDelegate(_EntryDelegate(self.list))
        self.list.setFrameShape(QFrame.Shape.NoFrame)
        self.list.setProperty("bare", True)
        self.list.setUniformItemSizes(True)
        self.list.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.list.setAccessibleName("Results")
        self._nothing = QLabel("Nothing fits. Try another word.")
        set_kind(self._nothing, "muted")
        self._nothing.setAlignment(Qt.AlignmentFlag.AlignCenter)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(SPACE.s + 4, SPACE.s + 4, SPACE.s + 4, SPACE.s)
        layout.setSpacing(SPACE.s)
        for widget in (self.field, self.list, self._nothing):
            layout.addWidget(widget)
        self.field.textChanged.connect(self._on_typed)
        self.list.clicked.connect(lambda index: self._run(index.row()))
        controller.found.connect(self._on_found)
        window.installEventFilter(self)
        self.hide()

    def open(self) -> None:
        """Show it, empty and focused."""
        self.model.set_found(())
        self.model.set_entries(self._controller.entries())
        self.field.clear()
        self._on_typed("")
        self.show()
        self._place()
        self.raise_()
        self.field.setFocus(Qt.FocusReason.ShortcutFocusReason)

    def close_palette(self) -> None:
        """Hide it and give the focus back to the window."""
        self._controller.cancel()
        self.hide()
        self._window.setFocus(Qt.FocusReason.OtherFocusReason)

    def _on_typed(self, typed: str) -> None:
        self.model.set_typed(typed)
        self._controller.search(typed)
        self._refresh()

    def _on_found(self, entries: tuple[PaletteEntry, ...]) -> None:
        if self.isVisible():
            row = max(self.list.currentIndex().row(), 0)
            self.model.set_found(entries)
            self._refresh(row)

    def _refresh(self, row: int = 0) -> None:
        count = self.model.rowCount()
        self._nothing.setVisible(count == 0)
        self.list.setVisible(count > 0)
        self.list.setFixedHeight(min(max(count, 1), _ROWS_SHOWN) * _ROW + 2 * SPACE.xs)
        self.list.setCurrentIndex(self.model.index(min(row, max(count - 1, 0)), 0))
        self._place()

    def _place(self) -> None:
        self.adjustSize()
        self.resize(min(_WIDTH, self._window.width() - 2 * SPACE.l), self.sizeHint().height())
        self.move((self._window.width() - self.width()) // 2, max(self._window.height() // 8, SPACE.l))

    def _run(self, row: int) -> None:
        entry = self.model.entry(row)
        if entry is not None:
            self.close_palette()
            entry.run()

    def _move(self, step: int) -> None:
        count = self.model.rowCount()
        if count:
            self.list.setCurrentIndex(self.model.index((self.list.currentIndex().row() + step) % count, 0))

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Take the keys that move and choose while the field has the focus; leave when the focus goes."""
        if watched is self._window:
            if event.type() == QEvent.Type.Resize and self.isVisible():
                self._place()
            return False
        if (
            event.type() == QEvent.Type.FocusOut
            and self.isVisible()
            and not self.isAncestorOf(self._window.focusWidget() or self)
        ):
            self.close_palette()
        if not isinstance(event, QKeyEvent) or event.type() != QEvent.Type.KeyPress:
            return False
        return self._key(Qt.Key(event.key()))

    def _key(self, key: Qt.Key) -> bool:
        if key is Qt.Key.Key_Escape:
            self.close_palette()
        elif key in {Qt.Key.Key_Return, Qt.Key.Key_Enter}:
            self._run(self.list.currentIndex().row())
        elif key in _MOVES:
            self._move(_MOVES[key])
        else:
            return False
        return True
