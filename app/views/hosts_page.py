"""Hosts: this computer and those reached by SSH; what they are, how they fare, whether they are ready, and their queues.

The list is at the left, the chosen host at the right. Buttons of the head: ``hosts_add``, ``probe_again``.
"""

from __future__ import annotations

from typing import ClassVar

from PySide6.QtCore import Qt, QTimer
from PySide6.QtWidgets import QMessageBox, QPushButton, QSplitter, QWidget

from app.controllers.fleet_controller import FleetController
from app.controllers.routes import Route, Router
from app.controllers.telemetry_controller import TelemetryController
from app.viewmodels.host_list import HostList
from app.viewmodels.reading_history import TelemetrySample
from app.views.hosts.host_detail import HostDetail
from app.views.hosts.host_dialog import HostDialog
from app.views.hosts.host_index import HostIndex
from app.views.hosts.runtime_dialog import RuntimeDialog
from app.views.icons import icon
from app.views.page import Page
from app.views.theme import set_role
from core.contracts.hosts import LOCAL_HOST, HostRecord, HostStatus, LinkState
from core.contracts.ids import RunId
from core.contracts.notices import Notice

_TICK_MS = 1000
_LIST_WIDTH = 300
_DETAIL_WIDTH = 900


class HostsPage(Page):
    """All hosts."""

    title: ClassVar[str] = "Hosts"
    icon_name: ClassVar[str] = "hosts"
    subtitle: ClassVar[str] = "This computer"

    def __init__(
        self,
        telemetry: TelemetryController,
        fleet: FleetController,
        router: Router,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._telemetry = telemetry
        self._fleet = fleet
        self._router = router
        self.model = HostList(self)
        self._build()
        self._connect()
        self._tick = QTimer(self, interval=_TICK_MS)
        self._tick.timeout.connect(self.detail.tick)
        if fleet.is_loaded:
            self._on_loaded(fleet.hosts)
        self.show_host(LOCAL_HOST)

    def activate(self) -> None:
        """Read the hosts and keep them connected while the page is seen."""
        self._fleet.start()
        self._fleet.hold(self)
        self._tick.start()
        self.detail.show_book()

    def deactivate(self) -> None:
        """Let the hosts be."""
        self._tick.stop()
        self._fleet.release(self)

    def open(self, route: Route) -> None:
        """Show the host that the route names."""
        if route.text:
            self.show_host(route.text)

    def show_host(self, name: str) -> None:
        """Choose a host, as a click on it does."""
        self.index.choose(name)
        self.detail.show_host(name)

    def _build(self) -> None:
        self.detail = HostDetail(self._fleet, self._telemetry)
        again = QPushButton("Probe again")
        again.setIcon(icon("refresh"))
        again.setObjectName("probe_again")
        again.setToolTip("Look at the hardware anew, after something was plugged in or installed.")
        again.clicked.connect(self.detail.probe)
        self.add_action(again)
        add = QPushButton("Add host")
        add.setIcon(icon("plus", "on_accent"))
        add.setObjectName("hosts_add")
        set_role(add, "primary")
        add.clicked.connect(self._on_add)
        self.add_action(add)
        self._add = add
        self.index = HostIndex(self.model)
        split = QSplitter(Qt.Orientation.Horizontal)
        split.setChildrenCollapsible(False)
        split.setHandleWidth(16)
        split.addWidget(self.index)
        split.addWidget(self.detail)
        self.index.setMinimumWidth(220)
        split.setStretchFactor(1, 1)
        split.setSizes([_LIST_WIDTH, _DETAIL_WIDTH])
        self.body.addWidget(split, 1)

    def _connect(self) -> None:
        self.index.chosen.connect(self.detail.show_host)
        self.index.add_wanted.connect(self._on_add)
        self.detail.edit_wanted.connect(self._on_edit)
        self.detail.remove_wanted.connect(self._on_remove)
        self.detail.set_up_wanted.connect(self._on_set_up)
        self.detail.unset_wanted.connect(self._on_unset)
        self.detail.run_wanted.connect(lambda run_id: self._router.open_run(RunId(run_id)))
        self._telemetry.sampled.connect(self._on_sampled)
        self._fleet.loaded.connect(self._on_loaded)
        self._fleet.load_failed.connect(self._on_load_failed)
        self._fleet.status_changed.connect(self._on_status)
        self._fleet.book_changed.connect(self._on_book)

    def _on_loaded(self, hosts: tuple[HostRecord, ...]) -> None:
        self.model.set_hosts(hosts, self._fleet.statuses())
        self.index.show_total()
        self._add.setVisible(bool(hosts))
        self._show_heading()
        if self._fleet.record(self.detail.name) is None and self.detail.name not in {LOCAL_HOST, ""}:
            self.show_host(LOCAL_HOST)
        elif self.detail.name:
            self.detail.show_status()
            self.detail.show_book()

    def _on_load_failed(self, notice: Notice) -> None:
        self.set_heading(self.title, f"{notice.message} {notice.hint}".strip())

    def _on_status(self, status: HostStatus) -> None:
        self.model.set_status(status)
        if self.isVisible():
            self.detail.on_status(status)
            self._show_heading()

    def _on_book(self, name: str) -> None:
        if name == self.detail.name:
            self.detail.show_book()

    def _on_sampled(self, sample: TelemetrySample) -> None:
        self.model.set_sample(sample)
        if self.isVisible():
            self.detail.on_sample(sample)

    def _show_heading(self) -> None:
        hosts = self._fleet.hosts
        if not hosts:
            self.set_heading(self.title, "This computer, and any other that you reach by SSH")
            return
        states = [self._fleet.status(record.name).state for record in hosts]
        parts = [f"{len(hosts)} host{'s' if len(hosts) > 1 else ''} besides this computer"]
        for state, word in (
            (LinkState.ONLINE, "online"),
            (LinkState.UNREACHABLE, "not answering"),
            (LinkState.REFUSED, "refused"),
        ):
            count = states.count(state)
            if count:
                parts.append(f"{count} {word}")
        self.set_heading(self.title, " · ".join(parts))

    def _on_add(self) -> None:
        dialog = HostDialog(self._fleet, None, self)
        dialog.accepted.connect(lambda: self._on_added(dialog.record))
        dialog.finished.connect(dialog.deleteLater)
        dialog.open()

    def _on_added(self, record: HostRecord | None) -> None:
        if record is not None:
            self._fleet.loaded.connect(lambda _: self.show_host(record.name), Qt.ConnectionType.SingleShotConnection)

    def _on_edit(self) -> None:
        record = self._fleet.record(self.detail.name)
        if record is not None:
            dialog = HostDialog(self._fleet, record, self)
            dialog.finished.connect(dialog.deleteLater)
            dialog.open()

    def _on_remove(self) -> None:
        name = self.detail.name
        if self._confirms(
            "confirm_host",
            f"Forget the host {name}?",
            "Nothing on it is changed; runs there go on, and their history stays here.",
            "Remove",
        ):
            self._fleet.remove(name).start()

    def _on_set_up(self) -> None:
        record = self._fleet.record(self.detail.name)
        if record is None:
            return
        dialog = RuntimeDialog(record.name, record.runtime, self)

        def install() -> None:
            if dialog.choice is not None:
                self._fleet.install(record.name, dialog.choice)
                self.detail.tabs.setCurrentWidget(self.detail.runtime)

        dialog.accepted.connect(install)
        dialog.finished.connect(dialog.deleteLater)
        dialog.open()

    def _on_unset(self) -> None:
        name = self.detail.name
        if self._confirms(
            "confirm_runtime",
            f"Remove Pilothouse's environment from {name}?",
            "Runs there cannot be started until it is set up again. An interpreter of your own is left as it is.",
            "Remove",
        ):
            self._fleet.remove_runtime(name)

    def _confirms(self, name: str, question: str, sentence: str, yes_text: str) -> bool:
        box = QMessageBox(self)
        box.setObjectName(name)
        box.setIcon(QMessageBox.Icon.Question)
        box.setWindowTitle("Pilothouse")
        box.setText(question)
        box.setInformativeText(sentence)
        yes = box.addButton(yes_text, QMessageBox.ButtonRole.DestructiveRole)
        no = box.addButton("Keep", QMessageBox.ButtonRole.RejectRole)
        box.setDefaultButton(no)
        box.exec()
        box.deleteLater()
        return box.clickedButton() is yes
