"""The pre-flight check of a host: what was found, the remedies, and a button to look again.

Widgets: ``check_run``, ``check_all``, ``check_verdict``.
"""

from __future__ import annotations

import time

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from app.controllers.fleet_controller import HostBook
from app.viewmodels.host_wording import age_text, check_text
from app.views.icons import icon
from app.views.page import scroll_area
from app.views.theme import SPACE, set_kind, set_role
from app.views.widgets.card import Card
from app.views.widgets.empty_state import EmptyState
from app.views.widgets.finding_list import FindingList
from app.views.widgets.task_panel import TaskPanel


class CheckTab(QWidget):
    """Shows the last check of one host.

    Signals:
        check_wanted: Check this host.
        check_all_wanted: Check all hosts at once.
    """

    check_wanted = Signal()
    check_all_wanted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, SPACE.m, 0, 0)
        column.setSpacing(SPACE.m)
        column.addLayout(self._build_bar())
        self.panel = TaskPanel(has_log=False)
        column.addWidget(self.panel)
        self._empty = EmptyState(
            "shield",
            "Not checked yet",
            "A check looks at everything a run needs there: system, drivers, space, memory, free devices, the runtime.",
            "Check now",
        )
        self._empty.button.setObjectName("check_first")
        self._empty.triggered.connect(self.check_wanted)
        column.addWidget(self._empty)
        self._card = Card()
        self.findings = FindingList()
        self._card.body.addWidget(self.findings)
        body = QVBoxLayout()
        body.addWidget(self._card)
        body.addStretch(1)
        self._area = scroll_area(body, SPACE.s)
        column.addWidget(self._area, 1)
        column.addStretch(0)

    def show_book(self, book: HostBook) -> None:
        """Show what is known of a host."""
        is_checking = book.checking is not None
        self.panel.follow(book.checking)
        self._again.setEnabled(not is_checking)
        self._again.setVisible(book.report is not None or is_checking)
        self._empty.setVisible(book.report is None and not is_checking)
        self._area.setVisible(book.report is not None)
        if book.report is None:
            self._verdict.setText("")
            self._when.setText("")
            return
        self.findings.show_reports((book.report,))
        self._verdict.setText(check_text(book.report))
        self._when.setText("" if book.checked is None else age_text(time.time() - book.checked))

    def _build_bar(self) -> QHBoxLayout:
        bar = QHBoxLayout()
        bar.setSpacing(SPACE.s)
        self._verdict = QLabel()
        self._verdict.setObjectName("check_verdict")
        set_kind(self._verdict, "h2")
        self._when = QLabel()
        set_kind(self._when, "caption")
        self._again = QPushButton("Check again")
        self._again.setObjectName("check_run")
        self._again.setIcon(icon("refresh"))
        self._again.clicked.connect(self.check_wanted)
        everyone = QPushButton("Check all hosts")
        everyone.setObjectName("check_all")
        set_role(everyone, "ghost")
        everyone.clicked.connect(self.check_all_wanted)
        self.check_all = everyone
        bar.addWidget(self._verdict)
        bar.addWidget(self._when)
        bar.addStretch(1)
        bar.addWidget(everyone)
        bar.addWidget(self._again)
        return bar
