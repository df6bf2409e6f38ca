"""What a check of hosts found: errors first, then warnings, with their remedies; what is in order is folded away.

Findings of several hosts stand under the host's name. The switch that unfolds is called ``findings_all``.
"""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from app.viewmodels.host_wording import LEVEL_LOOKS, check_text, host_title
from app.views.theme import SPACE, set_kind, set_role
from app.views.widgets.sentence_row import sentence_row
from core.contracts.hosts import CheckReport, Finding, FindingLevel

_ORDER = (FindingLevel.ERROR, FindingLevel.WARNING, FindingLevel.OK)


class FindingList(QWidget):
    """Findings as rows."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._reports: tuple[CheckReport, ...] = ()
        self._shows_all = False
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.setSpacing(SPACE.s)

    def show_reports(self, reports: Sequence[CheckReport]) -> None:
        """Show these reports; nothing is rebuilt when they are those shown."""
        if tuple(reports) == self._reports:
            return
        self._reports = tuple(reports)
        self._rebuild()

    def _rebuild(self) -> None:
        while (item := self._column.takeAt(0)) is not None:
            widget = item.widget()
            if widget is not None:
                widget.hide()
                widget.deleteLater()
        num_ok = 0
        for report in self._reports:
            if len(self._reports) > 1:
                self._column.addWidget(_heading(report))
            for level in _ORDER:
                found = [finding for finding in report.findings if finding.level is level]
                if level is FindingLevel.OK:
                    num_ok += len(found)
                    found = found if self._shows_all else []
                for finding in found:
                    self._column.addWidget(finding_row(finding, self.devicePixelRatioF()))
        if num_ok:
            self._column.addWidget(self._fold_button(num_ok), 0, Qt.AlignmentFlag.AlignLeft)

    def _fold_button(self, num_ok: int) -> QPushButton:
        what = "1 thing that is" if num_ok == 1 else f"{num_ok} things that are"
        button = QPushButton(f"{'Hide' if self._shows_all else 'Show'} {what} in order")
        button.setObjectName("findings_all")
        set_role(button, "ghost")
        button.clicked.connect(self._on_fold)
        return button

    def _on_fold(self) -> None:
        self._shows_all = not self._shows_all
        self._rebuild()


def _heading(report: CheckReport) -> QWidget:
    box = QWidget()
    row = QHBoxLayout(box)
    row.setContentsMargins(0, SPACE.s, 0, 0)
    name = QLabel(host_title(report.host))
    name.setTextFormat(Qt.TextFormat.PlainText)
    set_kind(name, "h3")
    outcome = QLabel(check_text(report))
    set_kind(outcome, "caption")
    row.addWidget(name)
    row.addWidget(outcome)
    row.addStretch(1)
    return box


def finding_row(finding: Finding, ratio: float) -> QWidget:
    """Return a row of icon, sentence and remedy."""
    look = LEVEL_LOOKS[finding.level]
    box = sentence_row(look.icon, look.colour, finding.what, finding.remedy, ratio)
    box.setAccessibleName(f"{look.word}: {finding.what} {finding.remedy}".strip())
    return box
