"""A meter: a name, a value with its unit, and a thin bar of how full it is."""

from __future__ import annotations

from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QColor, QPainter, QPaintEvent
from PySide6.QtWidgets import QGridLayout, QLabel, QSizePolicy, QWidget

from app.views.theme import SPACE, set_kind, theme

_WARN_SHARE = 0.85
_FULL_SHARE = 0.95


class FillBar(QWidget):
    """A thin bar of how full something is; its colour warns when little is left."""

    def __init__(self, *, warns: bool = True, width: int = 0, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._share: float | None = None
        self._warns = warns
        if width:
            self.setFixedSize(width, 5)
        else:
            self.setFixedHeight(5)
            self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def set_share(self, share: float | None) -> None:
        """Show a share from 0 to 1; None leaves the bar empty."""
        if share != self._share:
            self._share = share
            self.update()

    def sizeHint(self) -> QSize:
        """Return the wanted size."""
        return QSize(80, 5)

    def paintEvent(self, _event: QPaintEvent) -> None:
        """Paint track and fill."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        box = QRectF(self.rect())
        painter.setBrush(QColor(theme().border))
        painter.drawRoundedRect(box, 2.5, 2.5)
        if self._share:
            box.setWidth(max(box.width() * min(self._share, 1.0), 5))
            painter.setBrush(QColor(self._colour(self._share)))
            painter.drawRoundedRect(box, 2.5, 2.5)
        painter.end()

    def _colour(self, share: float) -> str:
        if self._warns and share >= _FULL_SHARE:
            return theme().danger
        return theme().warning if self._warns and share >= _WARN_SHARE else theme().accent


class Meter(QWidget):
    """A name, a value and a bar, in two rows."""

    def __init__(self, name: str, *, warns: bool = True, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setVerticalSpacing(SPACE.xs + 2)
        self._name = QLabel(name)
        set_kind(self._name, "caption")
        self._value = QLabel("—")
        self._value.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self._bar = FillBar(warns=warns)
        grid.addWidget(self._name, 0, 0)
        grid.addWidget(self._value, 0, 1)
        grid.addWidget(self._bar, 1, 0, 1, 2)
        self.setAccessibleName(name)

    def set_reading(self, value: str, share: float | None) -> None:
        """Show a value and how full it is."""
        self._value.setText(value)
        self._bar.set_share(share)
        self._bar.setVisible(share is not None)
        self.setAccessibleDescription(value)
