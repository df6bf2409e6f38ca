"""How much of the metric's variance each parameter of a sweep explains, as bars, the most important first."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QColor, QFontMetrics, QPainter, QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QWidget

from app.views.theme import SPACE, theme, theme_host
from core.contracts.sweeps import SweepParameter

_ROW = 28
_BAR = 10
_VALUE_WIDTH = 48
_MAX_NAME = 180
_MAX_ROWS = 12


class ImportanceBars(QWidget):
    """One bar a parameter; only parameters whose importance is known are shown."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("importance_bars")
        self._rows: list[tuple[str, float]] = []
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        theme_host().changed.connect(self.update)

    @property
    def rows(self) -> list[tuple[str, float]]:
        """Name and share (0 to 1) of the parameters shown, the most important first."""
        return list(self._rows)

    def show_parameters(self, parameters: Sequence[SweepParameter]) -> None:
        """Show these parameters."""
        known = [(p.label, p.importance) for p in parameters if p.importance is not None]
        rows = sorted(known, key=lambda row: -row[1])[:_MAX_ROWS]
        if rows != self._rows:
            self._rows = rows
            words = ", ".join(f"{name} {share:.0%}" for name, share in rows)
            self.setAccessibleName(f"Importance of parameters: {words}")
            self.setToolTip("Share of the metric's variance over the finished trials that each parameter explains.")
            self.updateGeometry()
            self.update()

    def sizeHint(self) -> QSize:
        """Return the wanted size."""
        return QSize(260, max(len(self._rows), 1) * _ROW)

    def paintEvent(self, _event: QPaintEvent) -> None:
        """Paint name, bar and per cent of each."""
        tokens, metrics = theme(), QFontMetrics(self.font())
        widest = max((metrics.horizontalAdvance(name) for name, _ in self._rows), default=0)
        name_width = min(widest + SPACE.s, _MAX_NAME, self.width() // 2)
        room = max(self.width() - name_width - _VALUE_WIDTH - SPACE.s, 1)
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        for row, (name, share) in enumerate(self._rows):
            top = row * _ROW
            painter.setPen(QColor(tokens.text))
            shown = metrics.elidedText(name, Qt.TextElideMode.ElideRight, name_width)
            middle = Qt.AlignmentFlag.AlignVCenter
            painter.drawText(QRectF(0, top, name_width, _ROW), Qt.AlignmentFlag.AlignLeft | middle, shown)
            bar_top = top + (_ROW - _BAR) / 2
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(QColor(tokens.pressed))
            painter.drawRoundedRect(QRectF(name_width + SPACE.s, bar_top, room, _BAR), _BAR / 2, _BAR / 2)
            painter.setBrush(QColor(tokens.accent))
            length = max(room * share, _BAR if share > 0 else 0)
            painter.drawRoundedRect(QRectF(name_width + SPACE.s, bar_top, length, _BAR), _BAR / 2, _BAR / 2)
            painter.setPen(QColor(tokens.text_muted))
            box = QRectF(self.width() - _VALUE_WIDTH, top, _VALUE_WIDTH, _ROW)
            painter.drawText(box, Qt.AlignmentFlag.AlignRight | middle, f"{share:.0%}")
        painter.end()
