"""A workspace with hosts: real sshd's on small computers of their own, agents, and the toy kind installed on all of them."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from core.contracts.hosts import RuntimeRecord
from core.contracts.ids import RunId
from core.contracts.runs import RunSummary
from core.plugins.decode import decode_spec
from core.workspace.workspace import Workspace
from tests.helpers.host_lab import HostLab, opened_host_lab
from tests.helpers.toy_plugin import install_toy
from tests.helpers.waiting import wait_for


@dataclass(frozen=True, slots=True)
class RemoteLab:
    """A workspace and the hosts ``h1``, ``h2``, ... that it knows."""

    workspace: Workspace
    hosts: HostLab

    def run_dir(self, run_id: RunId) -> Path:
        """Return the mirror."""
        return self.workspace.home.run_dir(run_id)

    def there(self, host: str, run_id: RunId) -> Path:
        """Return the run directory on a host; the hosts share this machine's file system."""
        return self.hosts.home(host) / ".pilothouse" / "runs" / run_id

    def launch(self, *hosts: str, launch: dict[str, object] | None = None, **fields: object) -> RunId:
        """Launch the toy on hosts."""
        asked = {"kind": "test.toy", **fields, "launch": {"hosts": list(hosts), **(launch or {})}}
        return self.workspace.launch_spec(decode_spec(asked))

    def updated(self, run_id: RunId) -> RunSummary:
        """Return the run as it stands once what is here was taken in."""
        self.workspace.fleet.following.follow(run_id)
        self.workspace.sync()
        return self.workspace.summary(run_id)

    def at_step(self, run_id: RunId, step: int) -> None:
        """Wait until the run is that far."""
        wait_for(lambda: (self.updated(run_id).step or 0) >= step, f"step {step}")

    def is_same(self, host: str, run_id: RunId, node: str) -> bool:
        """Tell whether all logs of a node are the same here and there, byte for byte."""
        here, there = self.run_dir(run_id), self.there(host, run_id)
        names = [path.name for path in there.iterdir() if path.suffix in (".jsonl", ".index") or "stdout" in path.name]
        own = [name for name in names if f".{node}." in name]
        return bool(own) and all((here / name).read_bytes() == (there / name).read_bytes() for name in own)

    def left(self, run_id: RunId) -> dict[str, dict[int, str]]:
        """Return, by host, the processes that carry the run's id in their words."""
        found = {host: self.hosts.jobs(host) for host in self.hosts.names}
        return {host: {p: w for p, w in jobs.items() if run_id in w} for host, jobs in found.items()}


def runtime(folder: Path) -> RuntimeRecord:
    """Return this project's own Python as the hosts' environment, with the toy kind on its path."""
    added = [str(folder / "plugin"), str(Path(__file__).parent / "toy")]
    return RuntimeRecord(kind="interpreter", python=sys.executable, worker_dir=os.pathsep.join(added))


@contextmanager
def opened_remote_lab(folder: Path, monkeypatch: pytest.MonkeyPatch, count: int = 2) -> Generator[RemoteLab]:
    """Yield a workspace with ``count`` hosts; skips where there can be none."""
    install_toy(folder / "plugin", monkeypatch)
    with opened_host_lab(count) as hosts:
        workspace = Workspace.open(folder / "home")
        shutil.copy(hosts.known_hosts, workspace.home.known_hosts)
        for name in hosts.names:
            workspace.fleet.add(hosts.record_by_hand(name, runtime=runtime(folder)))
        try:
            yield RemoteLab(workspace, hosts)
        finally:
            workspace.close()
