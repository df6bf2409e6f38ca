"""Add or change a host: chosen from the ssh config or typed in, tested before it is kept.

Widgets: ``host_source``, ``host_name``, ``host_address``, ``host_user``, ``host_port``, ``host_identity``, ``host_jump``,
``host_work_dir``, ``host_slurm``, ``host_more``, ``host_test``.
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
from PySide6.QtWidgets import QCheckBox, QComboBox, QFileDialog, QHBoxLayout, QLineEdit, QPushButton, QWidget

from app.controllers.fleet_controller import FleetController
from app.controllers.tasks import Task
from app.viewmodels.wording import span_text
from app.views.dialogs.work_dialog import WorkDialog, caption, form_layout
from app.views.theme import SPACE
from core.contracts.hosts import HOST_NAME_PATTERN, LOCAL_HOST, ConfigHost, HostRecord, HostStatus, LinkState
from core.contracts.notices import Notice

_BY_HAND = "Enter an address"
_NAME = re.compile(HOST_NAME_PATTERN)
_MAX_PORT = 65535


class HostDialog(WorkDialog):
    """Ends with Accepted once the host is kept; ``record`` is then what was kept."""

    def __init__(self, fleet: FleetController, record: HostRecord | None, parent: QWidget) -> None:
        title = "Add a host" if record is None else f"Change {record.name}"
        super().__init__(title, "Any machine that you reach by SSH.", "Add" if record is None else "Save", parent)
        self.setObjectName("host_dialog")
        self._fleet = fleet
        self._old = record
        self.record: HostRecord | None = record
        self._task: Task | None = None
        self._has_typed_name = record is not None
        self._build()
        if record is not None:
            self._fill(record)
        fleet.ask(lambda core: core.config_hosts()).succeeded(self._on_config).start()
        self._show_source()

    def draft(self) -> HostRecord:
        """Return the record as it is filled in; ValueError with a sentence says what is wrong."""
        name = self._name.text().strip()
        if not _NAME.match(name):
            raise ValueError("Give the host a name of letters, digits, dots, dashes and underscores.")
        if name == LOCAL_HOST or (name != getattr(self._old, "name", None) and self._fleet.record(name) is not None):
            raise ValueError(f"There is a host called {name} already.")
        address, alias = self._address.text().strip(), self._alias()
        if not address and not alias:
            raise ValueError("Enter the host's address, or choose it from the ssh config.")
        port = self._port.text().strip()
        if port and not (port.isdigit() and 0 < int(port) <= _MAX_PORT):
            raise ValueError("The port is a number from 1 to 65535.")
        hops = tuple(hop.strip() for hop in self._jump.text().split(",") if hop.strip())
        return msgspec.structs.replace(
            self._old or HostRecord(name=name),
            name=name,
            address=address,
            alias=alias,
            user=self._user.text().strip(),
            port=int(port or 0),
            identity_file=self._identity.text().strip(),
            jump=hops,
            work_dir=self._work_dir.text().strip() or HostRecord(name=name).work_dir,
            is_slurm=self._slurm.isChecked(),
        )

    def accept(self) -> None:
        """Keep the host; the dialog closes once that has worked."""
        record = self._checked_draft()
        if record is None or self._is_busy:
            return
        task = self._fleet.add(record) if self._old is None else self._fleet.update(record)

        def done(_: object) -> None:
            self.record = record
            super(HostDialog, self).accept()

        self._run(task, done)

    def reject(self) -> None:
        """Close; a test under way is cancelled."""
        if self._task is not None:
            self._task.cancel()
            self._fleet.questions.refuse(self._name.text().strip())
        super().reject()

    @property
    def _is_busy(self) -> bool:
        return self._task is not None

    def _build(self) -> None:
        form = form_layout()
        self._source = QComboBox()
        self._source.setObjectName("host_source")
        self._source.setAccessibleName("Where the host is from")
        self._source.addItem(_BY_HAND, None)
        self._source.activated.connect(self._on_source)
        form.addRow("From", self._source)
        self._name = self._line(form, "host_name", "Name", "Short; runs and commands use it, such as lab-3")
        self._name.textEdited.connect(self._on_name_edited)
        self._address = self._line(form, "host_address", "Address", "gpu3.example.org or 10.0.0.3")
        self._address.textEdited.connect(self._on_address_edited)
        self._user = self._line(form, "host_user", "User", "As in the ssh config, else your name here")
        self._port = self._line(form, "host_port", "Port", "22")
        self._identity = QLineEdit()
        self._prepare(self._identity, "host_identity", "Key file", "Your agent and the usual keys")
        browse = QPushButton("Browse…")
        browse.setAutoDefault(False)
        browse.setAccessibleName("Browse for a key file")
        browse.clicked.connect(self._on_browse)
        row = QHBoxLayout()
        row.setSpacing(SPACE.s)
        row.addWidget(self._identity, 1)
        row.addWidget(browse)
        form.addRow("Key file", row)
        self._jump = self._line(form, "host_jump", "Over", "Hosts to hop over, in order: gate.example.org, me@inner")
        self._work_dir = self._line(form, "host_work_dir", "Work folder", "~/.pilothouse")
        self._slurm = QCheckBox("Slurm takes jobs here")
        self._slurm.setObjectName("host_slurm")
        form.addRow("", self._slurm)
        self.column.addLayout(form)
        self.column.addWidget(
            caption(
                "Passwords are asked for when they are needed. Kept ones go to the keyring, or encrypted to a file where there is none."
            )
        )
        self._test = QPushButton("Test")
        self._test.setObjectName("host_test")
        self._test.setAutoDefault(False)
        self._test.setToolTip("Connect once, without keeping the host.")
        self._test.clicked.connect(self._on_test)
        self.buttons.insertWidget(0, self._test)

    def _line(self, form: object, name: str, label: str, hint: str) -> QLineEdit:
        edit = QLineEdit()
        self._prepare(edit, name, label, hint)
        form.addRow(label, edit)  # pyright: ignore[reportAttributeAccessIssue]
        return edit

    @staticmethod
    def _prepare(edit: QLineEdit, name: str, label: str, hint: str) -> None:
        edit.setObjectName(name)
        edit.setAccessibleName(label)
        edit.setPlaceholderText(hint)

    def _fill(self, record: HostRecord) -> None:
        self._name.setText(record.name)
        self._name.setReadOnly(True)
        self._address.setText(record.address)
        self._user.setText(record.user)
        self._port.setText(str(record.port or ""))
        self._identity.setText(record.identity_file)
        self._jump.setText(", ".join(record.jump))
        self._work_dir.setText(record.work_dir)
        self._slurm.setChecked(record.is_slurm)
        if record.alias:
            self._source.addItem(f"{record.alias} in the ssh config", record.alias)
            self._source.setCurrentIndex(1)

    def _alias(self) -> str:
        return str(self._source.currentData() or "")

    def _on_config(self, found: tuple[ConfigHost, ...]) -> None:
        known = {self._source.itemData(index) for index in range(self._source.count())}
        for host in found:
            if host.alias not in known:
                where = f" · {host.hostname}" if host.hostname and host.hostname != host.alias else ""
                self._source.addItem(f"{host.alias} in the ssh config{where}", host.alias)

    def _on_source(self, _index: int) -> None:
        alias = self._alias()
        if alias and not self._has_typed_name:
            self._name.setText(_as_name(alias))
        self._show_source()

    def _show_source(self) -> None:
        from_config = bool(self._alias())
        self._address.setPlaceholderText("As in the ssh config" if from_config else "gpu3.example.org or 10.0.0.3")
        self._port.setPlaceholderText("As in the ssh config" if from_config else "22")
        self.say("")

    def _on_name_edited(self, text: str) -> None:
        self._has_typed_name = bool(text)

    def _on_address_edited(self, text: str) -> None:
        if not self._has_typed_name:
            first = text if text.replace(".", "").isdigit() else text.partition(".")[0]
            self._name.setText(_as_name(first))

    def _on_browse(self) -> None:
        chosen, _ = QFileDialog.getOpenFileName(self, "Key file", str(Path.home() / ".ssh"))
        if chosen:
            self._identity.setText(chosen)

    def _on_test(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._fleet.questions.refuse(self._name.text().strip())
            return
        record = self._checked_draft()
        if record is not None:
            self.say(f"Connecting to {record.name}…")
            self._run(self._fleet.try_out(record), self._on_tested)

    def _on_tested(self, status: HostStatus) -> None:
        if status.state is LinkState.ONLINE:
            took = "" if status.latency_s is None else f"; it answers in {span_text(status.latency_s)}"
            self.say(f"It works{took}.")
        else:
            self.say(f"{status.message} {status.hint}".strip(), is_wrong=True)

    def _checked_draft(self) -> HostRecord | None:
        try:
            return self.draft()
        except ValueError as error:
            self.say(str(error), is_wrong=True)
            return None

    def _run(self, task: Task, done: object) -> None:
        self._task = task
        self._show_busy()
        task.succeeded.connect(done)  # pyright: ignore[reportArgumentType]
        task.failed.connect(self._on_failed)
        task.ended.connect(self._on_ended)
        task.start()

    def _on_failed(self, notice: Notice) -> None:
        self.say(f"{notice.message} {notice.hint}".strip(), is_wrong=True)

    def _on_ended(self) -> None:
        if self._task is not None and self._task.is_cancelled():
            self.say("Cancelled.")
        self._task = None
        self._show_busy()

    def _show_busy(self) -> None:
        self._test.setText("Stop the test" if self._is_busy else "Test")
        self.accept_button.setEnabled(not self._is_busy)


def _as_name(text: str) -> str:
    """Return a host name made of a text: what may not be in one becomes a dash."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:63]
