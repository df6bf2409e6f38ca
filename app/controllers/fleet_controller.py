"""The window's hands on other hosts: the list of them, live readings, checks, runtimes, queues, and the user's answers.

The fleet is opened on first need, in the background; nothing here loads an SSH library. Hosts are watched (kept
connected) while a page that shows them is seen, and for a while longer. What takes long is a ``Task``; one of a kind
runs on a host at a time. Statuses arrive on threads of the fleet and reach the UI thread as queued signals.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QObject, Qt, QTimer, Signal, Slot

from app.controllers.ops import Op
from app.controllers.questions import Questions
from app.controllers.services import Services
from app.controllers.tasks import Task
from app.viewmodels.host_wording import slurm_text
from app.viewmodels.reading_history import ReadingHistory, TelemetrySample
from core.contracts.hosts import LOCAL_HOST, CheckReport, HostRecord, HostStatus, LinkState, QueueEntry, RuntimeRecord
from core.contracts.notices import Notice
from core.contracts.telemetry import HardwareReport

if TYPE_CHECKING:
    from core.contracts.specs import RunSpec
    from core.fleet.fleet import Fleet

SECONDS_KEPT = 600
LINGER_MS = 60_000
START_DELAY_MS = 1500


@dataclass(slots=True)
class HostBook:
    """What is known of one host besides its record.

    Attributes:
        history: Its readings of the last ten minutes.
        hardware: What it is made of; None until probed.
        problem: Why it could not be probed.
        report: Outcome of the last check, with the Unix seconds of its end.
        task: The check, set-up or removal that goes on there.
        task_log: Lines of the last task, for whoever looks later.
        queue: Runs that wait or hold devices; None until read.
    """

    history: ReadingHistory = field(default_factory=lambda: ReadingHistory(SECONDS_KEPT))
    hardware: HardwareReport | None = None
    problem: Notice | None = None
    report: CheckReport | None = None
    checked: float | None = None
    checking: Task | None = None
    setting_up: Task | None = None
    queue: tuple[QueueEntry, ...] | None = None
    queue_problem: Notice | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmOffer:
    """What a Slurm cluster offers, in words and as names to choose from."""

    text: str
    partitions: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()
    qos: tuple[str, ...] = ()


class FleetController(QObject):
    """Access to the hosts. Thread: UI.

    Attributes:
        questions: Where questions of the fleet arrive.
        hosts: The hosts the user added, without this computer; empty until they are read.

    Signals:
        loaded: The hosts were read: tuple of ``HostRecord``; again whenever one is added, changed or removed.
        load_failed: A ``Notice``.
        status_changed: A ``HostStatus``.
        book_changed: Name of the host (str) of which something else is known now.
    """

    loaded = Signal(object)
    load_failed = Signal(object)
    status_changed = Signal(object)
    book_changed = Signal(object)
    _status_arrived = Signal(object)

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self._services = services
        self.questions = Questions(self)
        self.hosts: tuple[HostRecord, ...] = ()
        self.is_loaded = False
        self._is_listening = False
        self._loading: Op[Any] | None = None
        self._statuses: dict[str, HostStatus] = {}
        self._books: dict[str, HostBook] = {}
        self._watched: set[str] = set()
        self._viewers: set[object] = set()
        self._linger = QTimer(self, singleShot=True, interval=LINGER_MS)
        self._linger.timeout.connect(self._unwatch_all)
        self._status_arrived.connect(self._on_status, Qt.ConnectionType.QueuedConnection)
        services.opened.connect(self._on_opened)

    # -- what is known ---------------------------------------------------------------------------------------------

    def record(self, name: str) -> HostRecord | None:
        """Return a host's record; None for this computer and for unknown names."""
        return next((record for record in self.hosts if record.name == name), None)

    def status(self, name: str) -> HostStatus:
        """Return how a host stands."""
        if name == LOCAL_HOST:
            return HostStatus(name=LOCAL_HOST, state=LinkState.ONLINE)
        return self._statuses.get(name, HostStatus(name=name))

    def statuses(self) -> dict[str, HostStatus]:
        """Return how all hosts stand, by name."""
        return dict(self._statuses)

    def book(self, name: str) -> HostBook:
        """Return what else is known of a host."""
        return self._books.setdefault(name, HostBook())

    @property
    def is_watching(self) -> bool:
        """True while hosts are kept connected."""
        return bool(self._watched)

    # -- opening and closing ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Read the hosts, unless that was done or is under way."""
        if not self.is_loaded:
            self.reload()

    def reload(self) -> None:
        """Read the hosts anew; ``loaded`` or ``load_failed`` follows."""
        if self._loading is None and self._services.is_open:
            self._loading = (
                Op(self._read)
                .succeeded(self._on_loaded)
                .failed(self.load_failed.emit)
                .finished(self._on_load_finished)
                .start()
            )

    def close(self) -> None:
        """Refuse all questions, end all tasks. Before the workspace is closed."""
        self._linger.stop()
        self.questions.close()
        for task in self.findChildren(Task):
            task.cancel()

    def hold(self, viewer: object) -> None:
        """Keep the hosts connected for a page that is seen."""
        self._linger.stop()
        self._viewers.add(viewer)
        self._watch_all()

    def release(self, viewer: object) -> None:
        """Say that a page is seen no more; connections are let go of a minute later."""
        self._viewers.discard(viewer)
        if not self._viewers and self._watched:
            self._linger.start()

    def try_again(self, name: str) -> None:
        """Connect to a host now, whatever was planned."""
        self.run_quietly(lambda fleet: (fleet.unwatch(name), fleet.watch(name)))
        self._watched.add(name)

    # -- changing the list -----------------------------------------------------------------------------------------

    def add(self, record: HostRecord) -> Task:
        """Add a host; the task has its name."""
        return self._change("Add", lambda fleet: fleet.add(record))

    def update(self, record: HostRecord) -> Task:
        """Change a host's record."""
        return self._change("Save", lambda fleet: fleet.update(record))

    def remove(self, name: str) -> Task:
        """Forget a host; nothing on it is touched."""
        self._watched.discard(name)
        self._books.pop(name, None)
        self._statuses.pop(name, None)
        return self._change("Remove", lambda fleet: fleet.remove(name))

    def _change(self, title: str, act: Callable[[Fleet], object]) -> Task:
        task = self.task(title, lambda fleet, _watcher: act(fleet))
        task.ended.connect(self.reload)
        return task

    # -- work on hosts ---------------------------------------------------------------------------------------------

    def task(self, title: str, work: Callable[[Fleet, Task], object]) -> Task:
        """Return a task, not started yet, that is given the fleet; it is deleted after its end."""
        task = Task(title, lambda watcher: work(self._services.workspace.fleet, watcher), self)  # pyright: ignore[reportArgumentType]
        task.ended.connect(task.deleteLater)
        return task

    def try_out(self, record: HostRecord) -> Task:
        """Return a task that connects once as the record says; it succeeds with a ``HostStatus``."""
        return self.task("Test", lambda fleet, watcher: fleet.try_out(record, self.questions, watcher))

    def check(self, names: tuple[str, ...], spec: RunSpec | None = None) -> Task:
        """Check hosts at once; each book has its report at the end, the task succeeds with all of them."""
        task = self.task("Check", lambda fleet, watcher: fleet.check(names, spec, watcher))
        books = [(name, self.book(name)) for name in names]
        for name, book in books:
            book.checking = task
            self.book_changed.emit(name)

        def end() -> None:
            for name, book in books:
                book.checking = None
                self.book_changed.emit(name)

        task.succeeded.connect(self._on_checked)
        task.ended.connect(end)
        task.start()
        return task

    def install(self, name: str, choice: RuntimeRecord) -> Task:
        """Set up, repair or upgrade a host's runtime."""
        return self._set_up(name, "Set up", lambda fleet, watcher: fleet.install(name, choice, watcher))

    def repair(self, name: str) -> Task:
        """Set up a host's runtime once more as it is recorded, and test it."""
        return self._set_up(name, "Check and repair", lambda fleet, watcher: fleet.repair_runtime(name, watcher))

    def remove_runtime(self, name: str) -> Task:
        """Remove what we installed on a host."""
        return self._set_up(name, "Remove", lambda fleet, watcher: fleet.remove_runtime(name, watcher))

    def _set_up(self, name: str, title: str, work: Callable[[Fleet, Task], object]) -> Task:
        book = self.book(name)
        if book.setting_up is not None:
            return book.setting_up
        task = self.task(title, work)
        book.setting_up = task

        def end() -> None:
            book.setting_up = None
            self.reload()
            self.book_changed.emit(name)

        task.ended.connect(end)
        task.start()
        self.book_changed.emit(name)
        return task

    def probe(self, name: str) -> None:
        """Look at a host's hardware; its book has it, or the reason why not."""
        book = self.book(name)

        def take(report: HardwareReport) -> None:
            book.hardware, book.problem = report, None

        def complain(notice: Notice) -> None:
            book.problem = notice

        self.ask(lambda fleet: fleet.hardware(name)).succeeded(take).failed(complain).finished(
            lambda: self.book_changed.emit(name)
        ).start(may_wait=True)

    def read_queue(self, name: str) -> None:
        """Read a host's queue into its book."""
        self._queue_op(name, lambda fleet: fleet.queue(name))

    def move(self, name: str, run_id: str, position: int) -> None:
        """Move a waiting run to another place (1 is the next one) and read the queue anew."""

        def act(fleet: Fleet) -> tuple[QueueEntry, ...]:
            fleet.move(name, run_id, position)
            return fleet.queue(name)

        self._queue_op(name, act)

    def _queue_op(self, name: str, read: Callable[[Fleet], tuple[QueueEntry, ...]]) -> None:
        book = self.book(name)

        def take(entries: tuple[QueueEntry, ...]) -> None:
            book.queue, book.queue_problem = entries, None

        def complain(notice: Notice) -> None:
            book.queue_problem = notice

        self.ask(read).succeeded(take).failed(complain).finished(lambda: self.book_changed.emit(name)).start(
            may_wait=True
        )

    def ask(self, read: Callable[[Fleet], Any]) -> Op[Any]:
        """Return a background call that is given the fleet; the caller adds callbacks and starts it."""
        return Op(lambda: read(self._services.workspace.fleet))

    def slurm_offer(self, name: str) -> Op[SlurmOffer]:
        """Return a background call that asks a cluster what it offers."""

        def read(fleet: Fleet) -> SlurmOffer:
            info = fleet.slurm_info(name)
            partitions = tuple(partition.name for partition in info.partitions)
            return SlurmOffer(text=slurm_text(info), partitions=partitions, accounts=info.accounts, qos=info.qos)

        return self.ask(read)

    def run_quietly(self, act: Callable[[Fleet], object]) -> None:
        """Do something with the fleet in the background; failures become notices."""
        self.ask(act).start(may_wait=True)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _on_opened(self, _workspace: object) -> None:
        QTimer.singleShot(START_DELAY_MS, self, self.start)

    def _read(self) -> tuple[HostRecord, ...]:
        fleet = self._services.workspace.fleet
        hosts = tuple(record for record in fleet.hosts() if record.name != LOCAL_HOST)
        if hosts and not self._is_listening:
            # Connections are made ready on the first host: who has none pays nothing for them.
            self._is_listening = True
            fleet.set_asker(self.questions)
            fleet.on_status(self._status_arrived.emit)
        return hosts

    def _on_loaded(self, hosts: tuple[HostRecord, ...]) -> None:
        self.hosts = hosts
        self.is_loaded = True
        if self._viewers:
            self._watch_all()
        self.loaded.emit(self.hosts)

    def _on_load_finished(self) -> None:
        self._loading = None

    def _watch_all(self) -> None:
        new = [record.name for record in self.hosts if record.name not in self._watched]
        self._watched.update(new)
        if new:
            self.run_quietly(lambda fleet: [fleet.watch(name) for name in new])

    def _unwatch_all(self) -> None:
        names, self._watched = tuple(self._watched), set()
        self.run_quietly(lambda fleet: [fleet.unwatch(name) for name in names])

    @Slot(object)
    def _on_status(self, status: HostStatus) -> None:
        before = self._statuses.get(status.name)
        self._statuses[status.name] = status
        if status.readings_ts is not None and (before is None or before.readings_ts != status.readings_ts):
            self.book(status.name).history.append(TelemetrySample(ts=status.readings_ts, values=status.readings))
        self.status_changed.emit(status)

    def _on_checked(self, reports: tuple[CheckReport, ...]) -> None:
        for report in reports:
            book = self.book(report.host)
            book.report, book.checked = report, time.time()
