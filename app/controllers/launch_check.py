"""Before a launch elsewhere: the hosts are looked at, all at once, and what the launch would do is shown as text.

Both go on in the background for the spec asked about last; an answer to an earlier one is dropped. A run on this computer
needs neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, Signal

from app.controllers.fleet_controller import FleetController
from app.controllers.tasks import Task
from app.viewmodels.where import Where, hosts_to_check, where_of
from core.contracts.forms import FormValue
from core.contracts.hosts import CheckReport
from core.contracts.notices import Notice

if TYPE_CHECKING:
    from core.contracts.specs import RunSpec


class LaunchCheck(QObject):
    """Looks before the leap. Thread: UI.

    Signals:
        check_started: The ``Task`` that looks at the hosts.
        checked: Tuple of ``CheckReport``.
        check_failed: A ``Notice``: the check itself could not be carried out.
        previewed: What the launch would do (str).
        preview_failed: A ``Notice``.
    """

    check_started = Signal(object)
    checked = Signal(object)
    check_failed = Signal(object)
    previewed = Signal(object)
    preview_failed = Signal(object)

    def __init__(self, fleet: FleetController, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._fleet = fleet
        self._check: Task | None = None
        self._preview: Task | None = None
        self._toml = ""

    @property
    def is_checking(self) -> bool:
        """True while hosts are looked at."""
        return self._check is not None

    def begin(self, values: Mapping[str, FormValue], toml: str) -> bool:
        """Look at what a spec with these values needs; False when it stays on this computer."""
        self.cancel()
        self._toml = toml
        if where_of(values) is Where.LOCAL:
            return False
        self._start_preview()
        if hosts_to_check(values):
            self._start_check(hosts_to_check(values))
        return True

    def again(self, values: Mapping[str, FormValue]) -> None:
        """Look at the hosts once more."""
        if self._check is None and hosts_to_check(values):
            self._start_check(hosts_to_check(values))

    def cancel(self) -> None:
        """Drop what is under way."""
        for task in (self._check, self._preview):
            if task is not None:
                task.cancel()
        self._check = self._preview = None

    def _start_check(self, names: tuple[str, ...]) -> None:
        toml = self._toml
        task = self._fleet.task("Checking the hosts", lambda fleet, watcher: fleet.check(names, _spec(toml), watcher))
        self._check = task

        def take(reports: tuple[CheckReport, ...]) -> None:
            if task is self._check:
                self.checked.emit(reports)

        def complain(notice: Notice) -> None:
            if task is self._check:
                self.check_failed.emit(notice)

        def end() -> None:
            if task is self._check:
                self._check = None

        task.ended.connect(end)
        task.succeeded.connect(take)
        task.failed.connect(complain)
        task.start()
        self.check_started.emit(task)

    def _start_preview(self) -> None:
        toml = self._toml
        task = self._fleet.task("Preview", lambda fleet, _watcher: fleet.preview(_spec(toml)))
        self._preview = task

        def take(text: str) -> None:
            if task is self._preview:
                self.previewed.emit(text)

        def complain(notice: Notice) -> None:
            if task is self._preview:
                self.preview_failed.emit(notice)

        task.succeeded.connect(take)
        task.failed.connect(complain)
        task.start()


def _spec(toml: str) -> RunSpec:
    from core.plugins.decode import decode_spec, parse_toml

    return decode_spec(parse_toml(toml))
