"""A label of one line that shortens what does not fit and shows the whole in its tooltip."""

from __future__ import annotations

from PySide6.QtCore import QSize, Qt
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QLabel, QSizePolicy, QWidget

from app.views.theme import LabelKind, set_kind


class ElidedLabel(QLabel):
    """Shows one line of plain text, with an ellipsis where it is too long."""

    def __init__(self, text: str = "", kind: LabelKind = "body", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        set_kind(self, kind)
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self._whole = ""
        self.set_whole(text)

    def set_whole(self, text: str) -> None:
        """Change the text; line breaks become spaces."""
        whole = " ".join(text.split())
        if whole == self._whole:
            return
        self._whole = whole
        self._elide()

    def whole(self) -> str:
        """Return the text without any ellipsis."""
        return self._whole

    def _elide(self) -> None:
        shown = self.fontMetrics().elidedText(self._whole, Qt.TextElideMode.ElideRight, max(self.width(), 24))
        self.setText(shown)
        self.setToolTip(self._whole if shown != self._whole else "")
        self.setAccessibleName(self._whole)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Shorten to the new width."""
        super().resizeEvent(event)
        self._elide()

    def minimumSizeHint(self) -> QSize:
        """Let layouts make it narrower, never lower than a line."""
        return QSize(24, self.sizeHint().height())

    def sizeHint(self) -> QSize:
        """Want the room that the whole text needs."""
        return QSize(self.fontMetrics().horizontalAdvance(self._whole) + 2, super().sizeHint().height())
