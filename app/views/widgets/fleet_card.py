"""The other hosts at a glance for Home: a cell for each, coloured by how busy it is; nothing is connected unasked.

Widgets: ``home_connect_hosts``, ``home_hosts``.
"""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QLabel, QPushButton, QWidget

from app.controllers.fleet_controller import FleetController
from app.viewmodels.host_list import busy_shares
from app.viewmodels.host_wording import link_look
from app.views.theme import set_kind, set_role
from app.views.widgets.card import Card
from app.views.widgets.heat_map import HeatMap
from core.contracts.hosts import HostRecord, HostStatus, LinkState


class FleetCard(Card):
    """Shows how busy the hosts are; hidden while there are none.

    Signals:
        host_wanted: Name of a host to open (str), empty for all.
    """

    host_wanted = Signal(str)

    def __init__(self, fleet: FleetController, parent: QWidget | None = None) -> None:
        super().__init__("Hosts", parent=parent)
        self._fleet = fleet
        details = QPushButton("Details")
        details.setObjectName("home_hosts")
        set_role(details, "ghost")
        details.setProperty("compact", True)
        details.setAccessibleName("Details of the hosts")
        details.clicked.connect(lambda: self.host_wanted.emit(""))
        self.title_row.addWidget(details)
        self._caption = QLabel()
        set_kind(self._caption, "caption")
        self.heat = HeatMap("Host")
        self.heat.pressed.connect(self._on_pressed)
        self._connect_button = QPushButton("Connect to them")
        self._connect_button.setObjectName("home_connect_hosts")
        set_role(self._connect_button, "secondary")
        self._connect_button.clicked.connect(self._on_connect)
        for widget in (self._caption, self.heat, self._connect_button):
            self.body.addWidget(widget)
        fleet.loaded.connect(self._on_loaded)
        fleet.status_changed.connect(self._on_status)
        self.setVisible(False)

    def activate(self) -> None:
        """Show what is known; go on watching where that was begun."""
        if self._fleet.is_watching:
            self._fleet.hold(self)
        self.show_hosts()

    def deactivate(self) -> None:
        """Let the hosts be."""
        self._fleet.release(self)

    def show_hosts(self) -> None:
        """Show how all hosts stand."""
        hosts = self._fleet.hosts
        self.setVisible(bool(hosts))
        if not hosts:
            return
        statuses = [self._fleet.status(record.name) for record in hosts]
        self.heat.set_percents([_busy(status) for status in statuses], [_words(status) for status in statuses])
        online = sum(status.state is LinkState.ONLINE for status in statuses)
        wrong = sum(status.state in {LinkState.UNREACHABLE, LinkState.REFUSED} for status in statuses)
        parts = [f"{len(hosts)} host{'s' if len(hosts) > 1 else ''}"]
        parts += [f"{online} online"] if online else []
        parts += [f"{wrong} not answering"] if wrong else []
        idle = all(status.state is LinkState.IDLE for status in statuses)
        self._caption.setText(" · ".join(parts) + (" · not connected" if idle else ""))
        self._connect_button.setVisible(idle)

    def _on_loaded(self, _hosts: tuple[HostRecord, ...]) -> None:
        self.show_hosts()

    def _on_status(self, _status: HostStatus) -> None:
        if self.isVisible():
            self.show_hosts()

    def _on_connect(self) -> None:
        self._fleet.hold(self)

    def _on_pressed(self, index: int) -> None:
        if index < len(self._fleet.hosts):
            self.host_wanted.emit(self._fleet.hosts[index].name)


def _busy(status: HostStatus) -> float | None:
    """Return how busy a host is in percent: its GPUs where it has some, else its processors."""
    if status.state is not LinkState.ONLINE:
        return None
    cpu, gpu = busy_shares(status.readings)
    share = gpu if gpu is not None else cpu
    return None if share is None else share * 100


def _words(status: HostStatus) -> str:
    cpu, gpu = busy_shares(status.readings) if status.state is LinkState.ONLINE else (None, None)
    parts = [f"{status.name}: {link_look(status).word}"]
    parts += [f"processor {cpu:.0%}"] if cpu is not None else []
    parts += [f"GPUs {gpu:.0%}"] if gpu is not None else []
    return ", ".join(parts)
