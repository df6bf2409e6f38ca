"""A time line of a run's stability events: a row for each signal, a mark for each event, coloured by what was done.

Thousands of events cost one mark per pixel column. A press asks for the event nearest to it.
"""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QEvent, QPoint, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QFont, QHelpEvent, QMouseEvent, QPainter, QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QToolTip, QWidget

from app.viewmodels.stability_events import event_text, signal_title
from app.views.theme import theme, theme_host
from core.contracts.runs import MarkerRecord

_ROW = 20
_LABEL = 140
_MARK = 3
_AXIS = 18
_REACH = 6
_COLOURS = {
    "note": "info",
    "clip": "warning",
    "skip": "warning",
    "lower-lr": "warning",
    "raise-accumulation": "warning",
}


class EventStrip(QWidget):
    """The time line.

    Signals:
        marker_wanted: ``MarkerRecord`` that was pressed.
    """

    marker_wanted = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._rows: dict[str, list[MarkerRecord]] = {}
        self._last = 1
        self.setObjectName("stability_strip")
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        theme_host().changed.connect(self._on_theme)

    def show_events(self, events: Sequence[MarkerRecord]) -> None:
        """Show these events; those without a step have no place here."""
        self._rows = {}
        for event in events:
            if event.step is not None:
                self._rows.setdefault(event.signal, []).append(event)
        self._last = max((event.step or 0 for event in events), default=1) or 1
        self.setVisible(bool(self._rows))
        self.setAccessibleName(f"{len(events)} events over {self._last} steps")
        self.setFixedHeight(self.sizeHint().height())
        self.update()

    def sizeHint(self) -> QSize:
        """Return the height of all rows."""
        return QSize(400, len(self._rows) * _ROW + _AXIS)

    def paintEvent(self, _event: QPaintEvent) -> None:
        """Paint the rows."""
        tokens = theme()
        painter = QPainter(self)
        font = QFont(self.font())
        font.setPixelSize(11)
        painter.setFont(font)
        left = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
        right = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        for n, (signal, events) in enumerate(self._rows.items()):
            top = n * _ROW
            painter.setPen(QColor(tokens.text_muted))
            painter.drawText(QRectF(0, top, _LABEL - 8, _ROW), left, signal_title(signal))
            painter.fillRect(QRectF(_LABEL, top + _ROW / 2, self.width() - _LABEL, 1), QColor(tokens.border))
            # The gravest of those that fall on one column is drawn last.
            marks = {(round(self._x(event)), _colour_of(event)) for event in events}
            for x, colour in sorted(marks, key=lambda mark: mark[1] == "danger"):
                painter.fillRect(QRectF(x - 1, top + 4, _MARK, _ROW - 8), QColor(getattr(tokens, colour)))
        foot = QRectF(_LABEL, len(self._rows) * _ROW, self.width() - _LABEL, _AXIS)
        painter.setPen(QColor(tokens.text_faint))
        painter.drawText(foot, left, "step 0")
        painter.drawText(foot, right, f"{self._last:,}".replace(",", "\u202f"))
        painter.end()

    def event_at(self, at: QPoint) -> MarkerRecord | None:
        """Return the event nearest to a point; None when none is near."""
        row = at.y() // _ROW
        events = list(self._rows.values())[row] if 0 <= row < len(self._rows) else []
        nearest = min(events, key=lambda event: abs(self._x(event) - at.x()), default=None)
        return nearest if nearest is not None and abs(self._x(nearest) - at.x()) <= _REACH else None

    def event(self, event: QEvent) -> bool:
        """Answer tooltips with the event's reason."""
        if event.type() is QEvent.Type.ToolTip and isinstance(event, QHelpEvent):
            found = self.event_at(event.pos())
            if found is not None:
                QToolTip.showText(event.globalPos(), f"Step {found.step}\n{event_text(found)}", self)
                return True
        return super().event(event)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """Ask for the event that was pressed."""
        found = self.event_at(event.position().toPoint())
        if found is not None and event.button() is Qt.MouseButton.LeftButton:
            self.marker_wanted.emit(found)
        super().mouseReleaseEvent(event)

    def _x(self, event: MarkerRecord) -> float:
        return _LABEL + (self.width() - _LABEL - _MARK) * (event.step or 0) / self._last

    def _on_theme(self) -> None:
        self.update()


def _colour_of(event: MarkerRecord) -> str:
    return _COLOURS.get(event.action, "danger")
