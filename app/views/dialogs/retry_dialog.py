"""Start an ended run again from its last checkpoint: on the same hosts, on those that are left, or on others.

Widgets: ``retry_same``, ``retry_left``, ``retry_others``, and the host list of the wizard.
"""

from __future__ import annotations

from PySide6.QtWidgets import QButtonGroup, QRadioButton, QWidget

from app.controllers.fleet_controller import FleetController
from app.viewmodels.host_wording import host_title
from app.views.dialogs.work_dialog import WorkDialog
from app.views.wizards.host_picker import HostPicker
from core.contracts.hosts import LOCAL_HOST
from core.contracts.nodes import NodeStatus
from core.contracts.states import RunState


class RetryDialog(WorkDialog):
    """Ends with Accepted; ``hosts`` is then where to: None for the same."""

    def __init__(self, fleet: FleetController, nodes: tuple[NodeStatus, ...], parent: QWidget) -> None:
        super().__init__("Start the run again", "It goes on from its last checkpoint.", "Start again", parent)
        self.setObjectName("retry_dialog")
        self.hosts: tuple[str, ...] | None = None
        names = tuple(dict.fromkeys(node.host for node in nodes))
        self._left = left_hosts(nodes)
        self._same = self._radio("retry_same", f"On the same hosts: {_list(names)}")
        self._less = self._radio("retry_left", f"On those that are left: {_list(self._left)}")
        self._less.setVisible(bool(self._left) and self._left != names)
        self._others = self._radio("retry_others", "On hosts that I choose")
        self._others.setVisible(bool(fleet.hosts))
        group = QButtonGroup(self)
        for button in (self._same, self._less, self._others):
            group.addButton(button)
            button.toggled.connect(self._show_picker)
        self._picker = HostPicker(fleet)
        self._picker.set_hosts(fleet.hosts)
        self._picker.set_chosen(self._left or names, spans_nodes=len(nodes) > 1)
        self.column.addWidget(self._picker)
        (self._less if not self._less.isHidden() else self._same).setChecked(True)
        self._show_picker()

    def accept(self) -> None:
        """Take what was chosen; says what is wrong instead."""
        if self._others.isChecked():
            chosen = tuple(self._picker.chosen())
            if not chosen:
                self.say("Choose at least one host.", is_wrong=True)
                return
            self.hosts = chosen
        else:
            self.hosts = self._left if self._less.isChecked() else None
        super().accept()

    def _radio(self, name: str, text: str) -> QRadioButton:
        button = QRadioButton(text)
        button.setObjectName(name)
        self.column.addWidget(button)
        return button

    def _show_picker(self) -> None:
        self._picker.setVisible(self._others.isChecked())
        self.say("")


def left_hosts(nodes: tuple[NodeStatus, ...]) -> tuple[str, ...]:
    """Return the hosts of a run that answer and were not lost, the head first."""
    found = (node.host for node in nodes if node.is_reachable and node.state is not RunState.LOST and node.host)
    return tuple(dict.fromkeys(found))


def _list(names: tuple[str, ...]) -> str:
    titles = [host_title(name or LOCAL_HOST) for name in names]
    return ", ".join(titles[:4]) + (f" and {len(titles) - 4} more" if len(titles) > 4 else "")
