"""The hosts of one home behind one facade: their records, connections, runtimes, queues, and what a launch would do there.

It ties the parts together and does no work itself: ``core.settings.hosts_file`` keeps the records, ``core.fleet.pool``
the connections, ``preflight`` and ``runtimes`` look and install, ``remote_runs`` launches. Nothing heavy is imported,
nothing connected, before it is needed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from core.contracts.agent import Done, GpuList, Gpus, Hardware, MoveQueued, Probe, Queue, QueueList
from core.contracts.errors import EnvironmentProblem, UserError
from core.contracts.hosts import (
    LOCAL_HOST,
    Asker,
    CheckReport,
    HostGpu,
    HostRecord,
    HostStatus,
    LinkState,
    NobodyToAsk,
    QueueEntry,
    RuntimeRecord,
    Watcher,
)
from core.contracts.specs import RunSpec
from core.contracts.telemetry import HardwareReport
from core.fleet.following import Following
from core.settings.home import Home
from core.settings.hosts_file import HostsFile, checked

if TYPE_CHECKING:
    from core.fleet.pool import HostPool
    from core.fleet.remote_runs import RemoteRuns
    from core.fleet.slurm import SlurmInfo
    from core.security.secrets import Secrets
    from core.ssh.config import ConfigHost

OnStatus = Callable[[HostStatus], None]


class Fleet:
    """All hosts of a home. Thread-safe; whatever asks a host blocks: keep off the UI thread.

    Methods that ask a host raise ``EnvironmentProblem`` where it cannot be reached or is not as needed, and
    ``UserError`` for a name that is no host's or one without a runtime.
    """

    def __init__(self, home: Home, *, config_file: Path | None = None) -> None:
        self._home = home
        self._config_file = config_file
        self._file = HostsFile(home.hosts_file)
        self._asker: Asker = NobodyToAsk()
        self._making = threading.RLock()
        self._pool: HostPool | None = None
        self._following = Following(home, lambda: self.pool)

    # -- records ---------------------------------------------------------------------------------------------------

    def hosts(self) -> tuple[HostRecord, ...]:
        """Return the hosts that the user added, in that order; UserError when their file is damaged."""
        return self._file.hosts()

    def host(self, name: str) -> HostRecord:
        """Return one host; ``local`` is this machine. UserError when there is none of the name."""
        return self._file.host(name)

    def config_hosts(self) -> tuple[ConfigHost, ...]:
        """Return the hosts named in the user's ssh config; patterns are left out."""
        from core.ssh.config import list_hosts

        return list_hosts(self._config_file)

    def add(self, record: HostRecord) -> None:
        """Keep a new host; UserError when its name is taken or cannot be a host's. Connects to nothing."""
        self._file.add(record)

    def update(self, record: HostRecord) -> None:
        """Change what is known of a host; an open connection is closed, so that the next one follows the new record."""
        self._file.update(record)
        self.disconnect(record.name)

    def remove(self, name: str) -> None:
        """Forget a host and close its connection; nothing on it is changed."""
        self._file.remove(name)
        self.disconnect(name)

    # -- connections -----------------------------------------------------------------------------------------------

    @property
    def pool(self) -> HostPool:
        """The connections; made on first use."""
        with self._making:
            if self._pool is None:
                from core.fleet.pool import HostPool

                self._pool = HostPool(
                    self.host, self._asker, self._secrets, self._home.known_hosts, config_file=self._config_file
                )
            return self._pool

    @property
    def following(self) -> Following:
        """Who brings runs elsewhere here."""
        return self._following

    @cached_property
    def runs(self) -> RemoteRuns:
        """Launches and acts on runs of these hosts."""
        from core.fleet.remote_runs import RemoteRuns

        return RemoteRuns(self._home, self)

    @cached_property
    def _secrets(self) -> Secrets:
        from core.security.secrets import Secrets

        return Secrets.open(self._home.secrets_file)

    def set_asker(self, asker: Asker) -> None:
        """Say who is asked for unknown host keys and secrets from now on; nobody, until this is called."""
        with self._making:
            self._asker = asker
            if self._pool is not None:
                self._pool.set_asker(asker)

    def try_out(self, record: HostRecord, asker: Asker, watcher: Watcher) -> HostStatus:
        """Connect once to a host that need not be kept yet, and say how that went.

        Returns:
            Online with the round trip, or unreachable or refused with the sentence and the remedy.

        Raises:
            Cancelled: The user cancelled.
        """
        from core.ssh.connection import connect
        from core.ssh.problems import Refused

        name = checked(record).name
        began = time.time()
        try:
            link = connect(
                record,
                asker=asker,
                secrets=self._secrets,
                known_hosts=self._home.known_hosts,
                config_file=self._config_file,
                is_cancelled=watcher.is_cancelled,
            )
        except (EnvironmentProblem, UserError) as error:
            state = LinkState.REFUSED if isinstance(error, (Refused, UserError)) else LinkState.UNREACHABLE
            return HostStatus(name=name, state=state, since=began, message=error.message, hint=error.hint)
        try:
            return HostStatus(name=name, state=LinkState.ONLINE, since=time.time(), latency_s=link.probe())
        finally:
            link.close()

    def status(self, name: str) -> HostStatus:
        """Return how the connection to a host stands; asks nobody."""
        return HostStatus(name=name) if self._pool is None else self._pool.status(name)

    def on_status(self, callback: OnStatus) -> None:
        """Call back whenever a connection's state or a host's readings change; on a background thread."""
        self.pool.on_status(callback)

    def watch(self, name: str) -> None:
        """Keep a host connected, with back-off, and its readings coming."""
        self.pool.watch(name)

    def unwatch(self, name: str) -> None:
        """Let a host be, as far as ``watch`` is concerned."""
        if self._pool is not None:
            self._pool.unwatch(name)

    def disconnect(self, name: str) -> None:
        """Close the connection to a host, if there is one."""
        if self._pool is not None:
            self._pool.disconnect(name)

    def close(self) -> None:
        """Close all connections; runs go on."""
        with self._making:
            pool = self._pool
        if pool is not None:
            pool.close()  # first, so that nobody waits on a host
        self._following.close()

    # -- what is on a host -----------------------------------------------------------------------------------------

    def hardware(self, name: str) -> HardwareReport:
        """Return what a host is made of; needs a runtime on it."""
        if name == LOCAL_HOST:
            from core.hardware.probe import probe

            return probe()

        return self.pool.agent(name).ask(Probe(), Hardware).report

    def gpus(self, name: str) -> tuple[HostGpu, ...]:
        """Return a host's accelerators and who holds them."""
        return self.pool.agent(name).ask(Gpus(), GpuList).gpus

    def check(self, names: tuple[str, ...], spec: RunSpec | None, watcher: Watcher) -> tuple[CheckReport, ...]:
        """Look at hosts before a launch: all findings at once, each with a remedy; needs no runtime on them."""
        from core.fleet.preflight import check_hosts

        return check_hosts(self.pool, tuple(self.pool.record(name) for name in names), spec, watcher)

    def install(
        self, name: str, choice: RuntimeRecord, watcher: Watcher, wheels_from_here: bool | None = None
    ) -> HostRecord:
        """Make, renew or take into use the Python environment of a host, and keep what is known of it then.

        Packages are downloaded here and sent when ``wheels_from_here``; None: when the host reaches no package index.
        """
        from core.fleet.runtimes import install

        record = install(self.pool, self.host(name), choice, watcher, wheels_from_here)
        self.update(record)
        return record

    def repair_runtime(self, name: str, watcher: Watcher, wheels_from_here: bool | None = None) -> HostRecord:
        """Try a host's environment out, and renew it where it does not work or is of another version."""
        from core.fleet.runtimes import repair

        record = repair(self.pool, self.host(name), watcher, wheels_from_here)
        self.update(record)
        return record

    def remove_runtime(self, name: str, watcher: Watcher) -> HostRecord:
        """Remove what ``install`` put on a host; an environment of the user's own stays."""
        from core.fleet.runtimes import remove

        record = remove(self.pool, self.host(name), watcher)
        self.update(record)
        return record

    # -- the queue of a host ---------------------------------------------------------------------------------------

    def queue(self, name: str) -> tuple[QueueEntry, ...]:
        """Return the runs that hold devices of a host or wait for them, in order."""
        if name == LOCAL_HOST:
            from core.jobs.queue import entries

            return entries(self._home.path)
        return self.pool.agent(name).ask(Queue(), QueueList).entries

    def move(self, name: str, run_id: str, position: int) -> None:
        """Give a waiting run another place in its host's queue; 1 is the next."""
        if name == LOCAL_HOST:
            from core.jobs.queue import move

            move(self._home.path, run_id, position)
            return
        self.pool.agent(name).ask(MoveQueued(run_id=run_id, position=position), Done)

    # -- clusters --------------------------------------------------------------------------------------------------

    def preview(self, spec: RunSpec) -> str:
        """Return what a launch would do, as text: the ``sbatch`` script, the manifest, or the plan for each host."""
        return self.runs.preview(spec)

    def slurm_info(self, name: str) -> SlurmInfo:
        """Return partitions and their state of the Slurm that a host (or this machine) has."""
        from core.fleet.slurm import cluster_of

        return cluster_of(self.pool, self.host(name)).info()

    def kubernetes_contexts(self) -> tuple[str, ...]:
        """Return the contexts of the user's kubeconfig; empty without one."""
        from core.fleet.kubernetes import contexts

        return contexts()
