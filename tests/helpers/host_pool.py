"""Connections of tests to their hosts, made when asked for: what ``core.fleet.pool`` is to the program, without agents."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from core.contracts.errors import EnvironmentProblem
from core.contracts.hosts import HostRecord, NobodyToAsk, Progress
from core.contracts.links import Link
from core.security.secrets import Secrets
from core.ssh.connection import connect


class Connections:
    """Gives real connections to the hosts of a test; ``close`` ends them."""

    def __init__(self, records: Mapping[str, HostRecord], known_hosts: Path, folder: Path) -> None:
        """Files of its own go to ``folder``; no ssh config is read."""
        self.records = dict(records)
        self._known_hosts = known_hosts
        self._secrets = Secrets.open(folder / "secrets")
        self._config = folder / "no-ssh-config"
        self._config.touch()
        self._links: dict[str, Link] = {}

    def link(self, name: str) -> Link:
        """Return the connection to a host."""
        if name not in self.records:
            raise EnvironmentProblem(f"{name} cannot be reached.", "Look at its network.")
        link = self._links.get(name)
        if link is None or not link.is_alive():
            link = connect(
                self.records[name],
                asker=NobodyToAsk(),
                secrets=self._secrets,
                known_hosts=self._known_hosts,
                config_file=self._config,
            )
            self._links[name] = link
        return link

    def close(self) -> None:
        """Close all."""
        for link in self._links.values():
            link.close()


class Watching:
    """A ``Watcher`` that remembers, and cancels at a stage (``cancel_at``) once ``cancel_line`` is in its log."""

    def __init__(self, cancel_at: str = "", cancel_line: str = "") -> None:
        self.stages: list[str] = []
        self.lines: list[str] = []
        self._cancel_at = cancel_at
        self._cancel_line = cancel_line
        self._is_cancelled = False

    def report(self, progress: Progress) -> None:
        if progress.stage not in self.stages:
            self.stages.append(progress.stage)
        if progress.line:
            self.lines.append(progress.line)
        if self._cancel_at and progress.stage == self._cancel_at and self._cancel_line in progress.line:
            self._is_cancelled = True

    def is_cancelled(self) -> bool:
        return self._is_cancelled
