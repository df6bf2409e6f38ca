"""One host: head with its connection, and tabs for what it is, whether it is ready, its runtime and its queue.

Widgets: ``host_tabs``, ``host_connect``, ``host_edit``, ``host_remove``, ``host_words``.
"""

from __future__ import annotations

import time

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QHBoxLayout, QLabel, QPushButton, QTabWidget, QVBoxLayout, QWidget

from app.controllers.fleet_controller import FleetController
from app.controllers.telemetry_controller import TelemetryController
from app.viewmodels.host_wording import (
    address_text,
    age_text,
    host_title,
    link_look,
    link_sentence,
    readings_age_s,
)
from app.viewmodels.reading_history import TelemetrySample
from app.views.hosts.check_tab import CheckTab
from app.views.hosts.overview_tab import OverviewTab
from app.views.hosts.queue_tab import QueueTab
from app.views.hosts.runtime_tab import RuntimeTab
from app.views.icons import icon
from app.views.theme import SPACE, set_kind, set_role
from app.views.widgets.chip import Chip
from app.views.widgets.elided_label import ElidedLabel
from core.contracts.hosts import LOCAL_HOST, HostStatus, LinkState
from core.contracts.notices import Notice
from core.contracts.telemetry import HardwareReport

_STALE_S = 5.0


class HostDetail(QWidget):
    """Shows the host that is chosen.

    Signals:
        edit_wanted: Change this host's record.
        remove_wanted: Forget this host.
        set_up_wanted: Choose and set up its runtime.
        unset_wanted: Remove its runtime.
        run_wanted: Id of a run to open (str).
    """

    edit_wanted = Signal()
    remove_wanted = Signal()
    set_up_wanted = Signal()
    unset_wanted = Signal()
    run_wanted = Signal(str)

    def __init__(self, fleet: FleetController, telemetry: TelemetryController, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._fleet = fleet
        self._telemetry = telemetry
        self.name = ""
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(SPACE.s)
        column.addLayout(self._build_head())
        self._words = QLabel()
        self._words.setObjectName("host_words")
        self._words.setWordWrap(True)
        self._words.setTextFormat(Qt.TextFormat.PlainText)
        self._words.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        column.addWidget(self._words)
        self.overview, self.check, self.runtime, self.queue = OverviewTab(), CheckTab(), RuntimeTab(), QueueTab()
        self.tabs = QTabWidget()
        self.tabs.setObjectName("host_tabs")
        self.tabs.setDocumentMode(True)
        for widget, title in (
            (self.overview, "Overview"),
            (self.check, "Check"),
            (self.runtime, "Runtime"),
            (self.queue, "Queue"),
        ):
            self.tabs.addTab(widget, title)
        column.addWidget(self.tabs, 1)
        self._connect()

    def show_host(self, name: str) -> None:
        """Show another host."""
        self.name = name
        self.overview.clear()
        self.runtime.forget()
        self.check.panel.follow(None)
        self.show_status()
        self._show_overview()
        self.show_book()
        self._on_tab()

    def show_book(self) -> None:
        """Show what changed about the host."""
        book = self._fleet.book(self.name)
        self.check.show_book(book)
        self.check.check_all.setVisible(bool(self._fleet.hosts))
        self.runtime.show_book(self.name, self._fleet.record(self.name), book)
        self.queue.show_book(book)
        self._show_hardware()

    def show_status(self) -> None:
        """Show how its connection stands."""
        status, record = self._fleet.status(self.name), self._fleet.record(self.name)
        is_local = self.name == LOCAL_HOST
        self._title.set_whole(host_title(self.name))
        look = link_look(status)
        self._chip.setVisible(not is_local)
        self._chip.set_content(look.word, look.colour, look.icon)
        self._address.set_whole("" if record is None else address_text(record))
        sentence = "" if is_local else link_sentence(status)
        set_kind(self._words, "error" if status.state is LinkState.REFUSED else "muted")
        self._words.setText(sentence)
        self._words.setVisible(bool(sentence))
        for button in (self._edit, self._remove):
            button.setVisible(record is not None)
        can_connect = status.state not in {LinkState.ONLINE, LinkState.CONNECTING}
        self._connect_button.setVisible(record is not None and can_connect)

    def on_status(self, status: HostStatus) -> None:
        """Take a status of any host."""
        if status.name == self.name:
            had = self._fleet.book(self.name).hardware is not None
            self.show_status()
            self._show_readings()
            if status.state is LinkState.ONLINE and not had:
                self._show_overview()

    def on_sample(self, _sample: TelemetrySample) -> None:
        """Take a reading of this computer."""
        if self.name == LOCAL_HOST:
            self._show_readings()

    def tick(self) -> None:
        """Show what grows old by itself."""
        self.show_status()
        if self.name != LOCAL_HOST:
            self.overview.show_age(self._age())

    def probe(self) -> None:
        """Look at the hardware anew."""
        if self.name == LOCAL_HOST:
            self._telemetry.probe()
        else:
            self._fleet.probe(self.name)

    def _build_head(self) -> QHBoxLayout:
        head = QHBoxLayout()
        head.setSpacing(SPACE.s)
        self._title = ElidedLabel(kind="h2")
        self._title.setSizePolicy(self._title.sizePolicy().Policy.Preferred, self._title.sizePolicy().verticalPolicy())
        self._chip = Chip()
        self._address = ElidedLabel(kind="muted")
        head.addWidget(self._title)
        head.addWidget(self._chip)
        head.addWidget(self._address, 1)
        self._connect_button = QPushButton("Connect now")
        self._edit = QPushButton("Change…")
        self._remove = QPushButton("Remove…")
        for button, name, icon_name in (
            (self._connect_button, "host_connect", "refresh"),
            (self._edit, "host_edit", "settings"),
            (self._remove, "host_remove", "trash"),
        ):
            button.setObjectName(name)
            button.setIcon(icon(icon_name))
            head.addWidget(button)
        set_role(self._remove, "danger")
        return head

    def _connect(self) -> None:
        self._connect_button.clicked.connect(lambda: self._fleet.try_again(self.name))
        self._edit.clicked.connect(self.edit_wanted)
        self._remove.clicked.connect(self.remove_wanted)
        self.tabs.currentChanged.connect(self._on_tab)
        self.overview.state.triggered.connect(self._on_state)
        self.check.check_wanted.connect(lambda: self._fleet.check((self.name,)))
        self.check.check_all_wanted.connect(
            lambda: self._fleet.check(tuple(record.name for record in self._fleet.hosts))
        )
        self.runtime.install_wanted.connect(self.set_up_wanted)
        self.runtime.remove_wanted.connect(self.unset_wanted)
        self.runtime.repair_wanted.connect(lambda: self._fleet.repair(self.name))
        self.queue.read_wanted.connect(lambda: self._fleet.read_queue(self.name))
        self.queue.move_wanted.connect(lambda run_id, place: self._fleet.move(self.name, run_id, place))
        self.queue.open_wanted.connect(self.run_wanted)
        self._telemetry.probed.connect(self._on_local_report)
        self._telemetry.probe_failed.connect(self._on_local_problem)

    def _on_tab(self, _index: int = 0) -> None:
        if self.tabs.currentWidget() is self.queue and self.name:
            self._fleet.read_queue(self.name)

    def _show_overview(self) -> None:
        self._show_readings()
        self._show_hardware()
        if self.name == LOCAL_HOST:
            if self._telemetry.report is None:
                self._telemetry.probe()
            return
        status, record, book = self._fleet.status(self.name), self._fleet.record(self.name), self._fleet.book(self.name)
        if book.hardware is not None:
            return
        if record is not None and record.runtime.kind == "none":
            self.overview.show_state(
                "script",
                "Set it up to see what it is made of",
                "Readings and hardware come from Pilothouse's own small program there. A check needs nothing on the host.",
                "Set up…",
            )
        elif status.state is LinkState.ONLINE:
            self.overview.show_state("clock", "Looking at the hardware…", "")
            self._fleet.probe(self.name)
        else:
            look = link_look(status)
            self.overview.show_state("network", look.word, "Its hardware and readings are shown once it answers.")

    def _show_hardware(self) -> None:
        if self.name == LOCAL_HOST:
            if self._telemetry.report is not None:
                self.overview.show_report(self._telemetry.report)
            return
        book = self._fleet.book(self.name)
        if book.hardware is not None:
            self.overview.show_report(book.hardware)
        elif book.problem is not None:
            self.overview.show_problem(book.problem)

    def _show_readings(self) -> None:
        if self.name == LOCAL_HOST:
            self.overview.show_history(self._telemetry.history)
        elif self.name:
            self.overview.show_history(self._fleet.book(self.name).history, self._age())

    def _age(self) -> str:
        status = self._fleet.status(self.name)
        age_s = readings_age_s(status, time.time())
        if age_s is None:
            return ""
        return f"Readings from {age_text(age_s)}" if age_s >= _STALE_S else "Live readings"

    def _on_state(self) -> None:
        record = self._fleet.record(self.name)
        if record is not None and record.runtime.kind == "none":
            self.set_up_wanted.emit()
        else:
            self.probe()

    def _on_local_report(self, report: HardwareReport) -> None:
        if self.name == LOCAL_HOST:
            self.overview.show_report(report)

    def _on_local_problem(self, notice: Notice) -> None:
        if self.name == LOCAL_HOST:
            self.overview.show_problem(notice)
