"""One host of a run through its agent: everything that planning, launching and ending a run asks of it.

A thin layer that gives the agent's requests the names that ``plan`` and ``remote_runs`` use, and their problems the
host's name.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from core.contracts.agent import (
    CheckSpec,
    Connect,
    Connected,
    ContinueRun,
    Done,
    EndLeftovers,
    EndListen,
    FileList,
    FreePorts,
    GpuList,
    Gpus,
    InterfaceList,
    Interfaces,
    ListedFile,
    Listen,
    Listing,
    PauseRun,
    PidList,
    PortList,
    PrepareRun,
    ProblemList,
    Processes,
    ProfileRun,
    RemoveRun,
    StartRun,
    StopRun,
)
from core.contracts.errors import EnvironmentProblem, FieldProblem, UserError
from core.contracts.hosts import HostGpu, HostRecord
from core.contracts.links import Link
from core.contracts.placement import Placement
from core.contracts.specs import RunSpec
from core.fleet.plan import Reached
from core.fleet.pool import HostPool
from core.plugins.decode import encode_spec

_PREPARE_LIMIT_S = 120.0
_START_LIMIT_S = 150.0
_HASH_LIMIT_S = 3600.0


class AgentHost:
    """A connected host. Thread-safe; blocks. EnvironmentProblem when the host does not answer or cannot do it."""

    def __init__(self, pool: HostPool, record: HostRecord) -> None:
        """Connect; raises as ``HostPool.agent``."""
        self.record = record
        self._pool = pool
        self._agent = pool.agent(record.name)

    @property
    def name(self) -> str:
        """Name of the host."""
        return self.record.name

    @property
    def work_dir(self) -> str:
        """Its work folder, absolute."""
        return self._agent.hello.work_dir

    @property
    def python(self) -> str:
        """The interpreter that its agent runs on."""
        return self._agent.hello.python

    @property
    def link(self) -> Link:
        """The connection, for bulk."""
        return self._pool.link(self.record.name)

    def gpus(self) -> tuple[HostGpu, ...]:
        """Return its accelerators and who holds them."""
        return self._agent.ask(Gpus(), GpuList).gpus

    def interfaces(self) -> tuple[tuple[str, str], ...]:
        """Return names and addresses of its network interfaces that are up."""
        return self._interfaces

    @cached_property
    def _interfaces(self) -> tuple[tuple[str, str], ...]:
        found = self._agent.ask(Interfaces(), InterfaceList).interfaces
        return tuple((one.name, one.address) for one in found if not one.is_loopback)

    def free_ports(self, count: int) -> tuple[int, ...]:
        """Return TCP ports that nobody listens on."""
        return self._agent.ask(FreePorts(count=count), PortList).ports

    def listen(self, port: int, token: str) -> None:
        """Answer connections that bring the token, until ``end_listen``."""
        self._agent.ask(Listen(token=token, port=port), PortList)

    def end_listen(self, token: str) -> None:
        """Stop answering."""
        self._agent.ask(EndListen(token=token), Done)

    def connect(self, address: str, port: int, token: str) -> Reached:
        """Try to reach a host that listens."""
        try:
            answer = self._agent.ask(Connect(address=address, port=port, token=token), Connected)
        except (EnvironmentProblem, UserError) as error:
            if not self._agent.is_alive():
                raise
            return Reached(problem=error.message)
        return Reached(own_address=answer.own_address)

    def prepare(self, run_id: str, spec: RunSpec, placement: Placement) -> None:
        """Make the run directory there, or renew its placement for a further attempt."""
        request = PrepareRun(run_id=run_id, spec_toml=encode_spec(spec), placement=placement)
        self._agent.ask(request, Done, _PREPARE_LIMIT_S)

    def check_spec(self, run_id: str, node: str) -> tuple[FieldProblem, ...]:
        """Let the kind look at the spec there; the problems name the host."""
        found = self._agent.ask(CheckSpec(run_id=run_id, node=node), ProblemList, _PREPARE_LIMIT_S).problems
        return tuple(
            FieldProblem(field=one.field, message=f"{self.name}: {one.message}", hint=one.hint) for one in found
        )

    def start(self, run_id: str, node: str, attempt: int) -> None:
        """Start the node's supervisor."""
        self._agent.ask(StartRun(run_id=run_id, node=node, attempt=attempt), Done, _START_LIMIT_S)

    def stop(self, run_id: str) -> None:
        """Ask the run to save and end there."""
        self._agent.ask(StopRun(run_id=run_id), Done)

    def pause(self, run_id: str) -> None:
        """Ask the run to pause there."""
        self._agent.ask(PauseRun(run_id=run_id), Done)

    def proceed(self, run_id: str) -> None:
        """Let a paused run go on."""
        self._agent.ask(ContinueRun(run_id=run_id), Done)

    def profile(self, run_id: str, steps: int, ranks: tuple[int, ...]) -> None:
        """Ask ranks of the run there for a profile of their next steps."""
        self._agent.ask(ProfileRun(run_id=run_id, steps=steps, ranks=ranks), Done)

    def end_leftovers(self, run_id: str, *, is_forced: bool = False) -> tuple[int, ...]:
        """End what is left of a run without a supervisor, or with one too; return what could not be ended."""
        return self._agent.ask(EndLeftovers(run_id=run_id, is_forced=is_forced), PidList).pids

    def processes(self, run_id: str) -> tuple[int, ...]:
        """Return the live processes of a run there."""
        return self._agent.ask(Processes(run_id=run_id), PidList).pids

    def remove(self, run_id: str) -> None:
        """Remove the directory of an ended run there."""
        self._agent.ask(RemoveRun(run_id=run_id), Done, _PREPARE_LIMIT_S)

    def listing(self, run_id: str, folder: str) -> Sequence[ListedFile]:
        """Return the files below a folder of the run there, with their hashes."""
        return self._agent.ask(Listing(run_id=run_id, folder=folder), FileList, _HASH_LIMIT_S).files
