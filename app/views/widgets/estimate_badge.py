"""What a rank is expected to need of its device's memory: a verdict, a bar of components, and what it rests on."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QHBoxLayout, QLabel, QVBoxLayout, QWidget

from app.viewmodels.wording import size_text
from app.views.theme import SPACE, set_kind
from app.views.widgets.chip import Chip
from app.views.widgets.stacked_bar import BarPart, StackedBar
from core.contracts.estimates import MemoryEstimate, MemoryFit

_VERDICTS = {
    MemoryFit.FITS: ("Fits", "success", "success"),
    MemoryFit.TIGHT: ("Tight", "warning", "warning"),
    MemoryFit.TOO_LARGE: ("Does not fit", "danger", "error"),
    MemoryFit.UNKNOWN: ("Estimated", "info", "memory"),
}


class EstimateBadge(QWidget):
    """Hidden while there is no estimate."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("estimate")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(SPACE.s)
        head = QHBoxLayout()
        head.setSpacing(SPACE.s)
        self.chip = Chip("Estimated", "info", "memory")
        self.words = QLabel()
        self.words.setTextFormat(Qt.TextFormat.PlainText)
        self.words.setWordWrap(True)
        head.addWidget(self.chip, 0, Qt.AlignmentFlag.AlignTop)
        head.addWidget(self.words, 1)
        self._bar = StackedBar(size_text)
        self._basis = QLabel()
        self._basis.setTextFormat(Qt.TextFormat.PlainText)
        self._basis.setWordWrap(True)
        set_kind(self._basis, "caption")
        column.addLayout(head)
        column.addWidget(self._bar)
        column.addWidget(self._basis)
        self.hide()

    def show_estimate(self, estimate: MemoryEstimate | None) -> None:
        """Show an estimate; None hides the badge."""
        self.setVisible(estimate is not None)
        if estimate is None:
            return
        self.chip.set_content(*_VERDICTS[estimate.fit])
        need = f"about {size_text(estimate.total_bytes)} a rank"
        limit = estimate.device_bytes
        self.words.setText(need if limit is None else f"{need}, of {size_text(limit)} ({estimate.device})")
        self._bar.show_parts(
            [BarPart(name=part.name, size=float(part.size_bytes)) for part in estimate.parts],
            None if limit is None else float(limit),
        )
        self._basis.setText(estimate.basis)
