"""A host over a real sshd of this machine, and a home here that runs of it are mirrored in."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from core.contracts import agent as said
from core.contracts.hosts import HostRecord, NobodyToAsk, RuntimeRecord
from core.contracts.ids import RunId, new_run_id
from core.contracts.mirrors import LinkRecord
from core.contracts.placement import NodePlacement, Placement
from core.fleet.pool import HostPool
from core.jobs.records import write_record
from core.runlog.layout import RunLayout
from core.security.secrets import Secrets
from core.settings.home import Home
from tests.helpers.ssh_server import SshServer, opened_ssh_server


class RemoteHome:
    """A host ``box`` with the project's own Python, and a pool that connects to it.

    Attributes:
        home: The home here; ``there`` is the host's work folder.
    """

    def __init__(self, folder: Path, server: SshServer) -> None:
        self.server = server
        self.home = Home(folder / "here's höme")
        self.home.prepare()
        self.there = Home(folder / "there $(x) 'q'")
        path = os.pathsep.join(entry for entry in sys.path if entry)
        runtime = RuntimeRecord(
            kind="interpreter", python=sys.executable, prelude=(f"export PYTHONPATH={shlex.quote(path)}",)
        )
        self.record = server.record("box", work_dir=str(self.there.path), runtime=runtime)
        self.home.path.joinpath("known_hosts").write_bytes(server.known_hosts.read_bytes())
        self.pool = self.new_pool()

    def new_pool(self) -> HostPool:
        """Return a pool of its own, as another window has one."""
        secrets = Secrets.open(self.home.path / "secrets")
        return HostPool(self._host, NobodyToAsk(), secrets, self.home.path / "known_hosts")

    def _host(self, name: str) -> HostRecord:
        assert name == "box"
        return self.record

    def prepared(self, spec: str, name: str = "toy") -> RunId:
        """Make a run on the host and its mirror here; started by ``start``."""
        run_id = new_run_id(name)
        run_dir = self.there.path / "runs" / run_id
        node = NodePlacement(
            node="box", host="box", work_dir=str(self.there.path), run_dir=str(run_dir), python=sys.executable
        )
        placement = Placement(nodes=(node,))
        self.pool.agent("box").ask(said.PrepareRun(run_id=run_id, spec_toml=spec, placement=placement), said.Done)
        here = RunLayout(self.home.run_dir(run_id))
        here.control.mkdir(parents=True)
        here.spec.write_text(spec)
        write_record(here.placement, placement)
        return run_id

    def start(self, run_id: RunId, attempt: int = 1) -> None:
        """Start the supervisor of a prepared run."""
        self.pool.agent("box").ask(said.StartRun(run_id=run_id, node="box", attempt=attempt), said.Done, 120)

    def standing(self, run_id: RunId) -> said.NodeStanding:
        """Return where the host says that a run stands."""
        asked = said.StandingOf(run_id=run_id, nodes=("box",))
        return self.pool.agent("box").ask(asked, said.StandingList).standings[0]

    def link(self, run_id: RunId) -> LinkRecord:
        """Return what is noted here of the run's node."""
        return msgspec.json.decode(RunLayout(self.home.run_dir(run_id)).link("box").read_bytes(), type=LinkRecord)

    def differences(self, run_id: RunId) -> list[str]:
        """Return the append-only files whose mirror is not what the host has."""
        here, there = self.home.run_dir(run_id), self.there.run_dir(run_id)
        logs = [
            path.name for path in there.iterdir() if path.suffix in (".jsonl", ".log", ".index") or "exit." in path.name
        ]
        return [name for name in logs if _content(here / name) != _content(there / name)]


def _content(path: Path) -> bytes:
    """Return a file's bytes; an empty file and none are the same to a reader."""
    return path.read_bytes() if path.exists() else b""


@contextmanager
def opened_remote_home(folder: Path) -> Generator[RemoteHome]:
    """Yield a host and a home; skip where there is no sshd."""
    with opened_ssh_server(folder) as server:
        scene = RemoteHome(folder, server)
        try:
            yield scene
        finally:
            scene.pool.close()
