"""What is said between this machine and the agent on a host: requests, answers, and what the agent pushes.

Every message is a frozen struct told apart by its tag and travels as msgpack in a frame (``core.runlog.frames``). An
answer carries the number of its request, so that requests may be answered in any order. Paths are the host's.
"""

from __future__ import annotations

import msgspec

from core.contracts.hosts import HostGpu, QueueEntry
from core.contracts.placement import Placement
from core.contracts.states import RunState
from core.contracts.telemetry import HardwareReport

PROTOCOL_VERSION = 3


class Request(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Something the agent is asked; each is answered once."""


class Answer(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What the agent answers."""


class Done(Answer, frozen=True, kw_only=True):
    """It was done."""


class Refused(Answer, frozen=True, kw_only=True):
    """It could not be done, and why.

    Attributes:
        is_environment: The host is not as needed (``EnvironmentProblem``); else what was asked was wrong (``UserError``).
    """

    message: str
    hint: str = ""
    is_environment: bool = False


class Hello(Answer, frozen=True, kw_only=True):
    """Who answers; sent unasked as the first message.

    Attributes:
        version: Version of the worker package.
        ts: Unix seconds by the host's clock.
        home: The user's home folder there; ``work_dir`` the agent's own Pilothouse home, absolute and made.
        python: The interpreter that the agent runs on.
    """

    protocol: int
    version: str
    hostname: str
    boot_id: str
    ts: float
    home: str
    work_dir: str
    python: str
    pid: int


class Ping(Request, frozen=True, kw_only=True):
    """Ask for a sign of life."""


class Pong(Answer, frozen=True, kw_only=True):
    """The host's clock now, Unix seconds."""

    ts: float


class Probe(Request, frozen=True, kw_only=True):
    """Ask what the host is made of."""


class Hardware(Answer, frozen=True, kw_only=True):
    """What the host is made of."""

    report: HardwareReport


class Interfaces(Request, frozen=True, kw_only=True):
    """Ask for the network interfaces that are up and have an address."""


class Interface(msgspec.Struct, frozen=True, kw_only=True):
    """One address of an interface; ``network`` is its subnet, such as ``10.1.0.0/24``; ``mbps`` 0 when unknown."""

    name: str
    address: str
    network: str
    is_loopback: bool
    mbps: int = 0


class InterfaceList(Answer, frozen=True, kw_only=True):
    """The interfaces, IPv4 before IPv6."""

    interfaces: tuple[Interface, ...]


class FreePorts(Request, frozen=True, kw_only=True):
    """Ask for TCP ports that are free on all addresses of the host."""

    count: int = 1


class PortList(Answer, frozen=True, kw_only=True):
    """The ports, all different."""

    ports: tuple[int, ...]


class Listen(Request, frozen=True, kw_only=True):
    """Listen on a port (0: any free one) for a test of reachability; ended by ``EndListen``, or after a minute."""

    token: str
    port: int = 0


class EndListen(Request, frozen=True, kw_only=True):
    """Stop listening."""

    token: str


class Connect(Request, frozen=True, kw_only=True):
    """Connect to a listening agent of another host and exchange the token; Refused says why it cannot be reached."""

    address: str
    port: int
    token: str
    timeout_s: float = 5.0


class Connected(Answer, frozen=True, kw_only=True):
    """The other agent was reached; ``own_address`` is this host's end of the connection."""

    own_address: str
    round_trip_s: float


class PrepareRun(Request, frozen=True, kw_only=True):
    """Make the run directory (as a whole, by rename), or give an existing one the placement of a new attempt."""

    run_id: str
    spec_toml: str
    placement: Placement


class CheckSpec(Request, frozen=True, kw_only=True):
    """Let the kind look at the prepared run's spec on the host, paths moved as for its worker."""

    run_id: str
    node: str


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """As ``core.contracts.errors.FieldProblem``."""

    field: str
    message: str
    hint: str = ""


class ProblemList(Answer, frozen=True, kw_only=True):
    """What stands against a start; empty when nothing does."""

    problems: tuple[Problem, ...]


class StartRun(Request, frozen=True, kw_only=True):
    """Start the supervisor of a prepared run's node."""

    run_id: str
    node: str
    attempt: int


class StandingOf(Request, frozen=True, kw_only=True):
    """Ask where nodes of a run stand."""

    run_id: str
    nodes: tuple[str, ...]


class NodeStanding(msgspec.Struct, frozen=True, kw_only=True):
    """Where a node of a run stands, as ``core.jobs.reconcile.Standing``, judged on the host itself.

    Attributes:
        is_there: The host knows the run.
        attempt: The attempt that this holds for, 0 when unknown.
        pids: Live processes of the run on the host, its supervisor included; None when that was not looked at.
    """

    node: str
    is_there: bool = True
    state: RunState | None = None
    message: str = ""
    hint: str = ""
    started: float | None = None
    ended: float | None = None
    silent_since: float | None = None
    attempt: int = 0
    pids: tuple[int, ...] | None = None


class StandingList(Answer, frozen=True, kw_only=True):
    """One for each node asked for, in that order."""

    standings: tuple[NodeStanding, ...]


class StopRun(Request, frozen=True, kw_only=True):
    """Ask a run to save and end; one that has ended has its leftovers ended. Done also when there was nothing to do."""

    run_id: str


class PauseRun(Request, frozen=True, kw_only=True):
    """Ask a run to save, end its workers and wait."""

    run_id: str


class ContinueRun(Request, frozen=True, kw_only=True):
    """Let a paused run go on."""

    run_id: str


class ProfileRun(Request, frozen=True, kw_only=True):
    """Ask ranks of a run that train here to record a profile of their next steps."""

    run_id: str
    steps: int
    ranks: tuple[int, ...]


class EndLeftovers(Request, frozen=True, kw_only=True):
    """End every process of a run that has no supervisor any more; with ``is_forced`` those of one that has, and it too."""

    run_id: str
    grace_s: float = 2.0
    is_forced: bool = False


class Processes(Request, frozen=True, kw_only=True):
    """Ask for the live processes of a run, supervisors included."""

    run_id: str


class PidList(Answer, frozen=True, kw_only=True):
    """Process ids on the host."""

    pids: tuple[int, ...]


class RemoveRun(Request, frozen=True, kw_only=True):
    """Remove the run directory of an ended run; Refused while it goes on."""

    run_id: str


class Gpus(Request, frozen=True, kw_only=True):
    """Ask for accelerators and who holds them."""


class GpuList(Answer, frozen=True, kw_only=True):
    """The accelerators; empty on a host without."""

    gpus: tuple[HostGpu, ...]


class Queue(Request, frozen=True, kw_only=True):
    """Ask for the runs that hold devices of the host or wait for them."""


class QueueList(Answer, frozen=True, kw_only=True):
    """The queue in order."""

    entries: tuple[QueueEntry, ...]


class MoveQueued(Request, frozen=True, kw_only=True):
    """Give a waiting run another place; 1 is the next."""

    run_id: str
    position: int


class Packages(Request, frozen=True, kw_only=True):
    """Ask for versions of Python packages in the agent's environment."""

    names: tuple[str, ...]


class PackageVersions(Answer, frozen=True, kw_only=True):
    """Version by name; None for what is not installed."""

    versions: dict[str, str | None]


class Usage(Request, frozen=True, kw_only=True):
    """Ask for the space on the disk of a path (or of its nearest existing parent); empty: the work folder's."""

    path: str = ""


class DiskSpace(Answer, frozen=True, kw_only=True):
    """Bytes."""

    free_bytes: int
    total_bytes: int


class Listing(Request, frozen=True, kw_only=True):
    """Ask for a file of a run directory, or all below a folder such as ``checkpoints``; hashed on demand."""

    run_id: str
    folder: str
    hashed: bool = True


class ListedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file by its path relative to the run directory; ``sha256`` is empty when not asked for."""

    path: str
    size: int
    sha256: str = ""


class FileList(Answer, frozen=True, kw_only=True):
    """The files, by path."""

    files: tuple[ListedFile, ...]


class Follow(Request, frozen=True, kw_only=True):
    """Push what these nodes of a run wrote beyond the offsets, and go on pushing; replaces an earlier Follow of the run.

    Attributes:
        offsets: In the host's files, by name; absent means 0. Beyond a file's end, it is pushed anew from 0.
        stdout_backlog_bytes: Of a larger unread output only the last part is pushed (see ``FileChunk.restart``).
    """

    run_id: str
    nodes: tuple[str, ...]
    offsets: dict[str, int]
    stdout_backlog_bytes: int = 32 << 20
    stdout_tail_bytes: int = 8 << 20


class Unfollow(Request, frozen=True, kw_only=True):
    """Push no more of a run."""

    run_id: str


class Credit(Request, frozen=True, kw_only=True):
    """Say that so many pushed bytes were taken in: the agent keeps only a few megabytes on their way. Not answered."""

    amount: int


class Telemetry(Request, frozen=True, kw_only=True):
    """Push readings every ``period_s`` seconds; 0 ends it."""

    period_s: float


class Pushed(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Something that the agent sends unasked."""


class FileChunk(Pushed, frozen=True, kw_only=True):
    """New bytes of a followed file.

    Attributes:
        name: File name inside the run directory.
        offset: Where ``data`` begins in the host's file; 0 for a record.
        data: The bytes; for a record, all of it.
        is_record: The file is a small record that is replaced as a whole.
        restart: What comes before ``offset`` is left out: the file here is to be emptied first.
        size: Size of the host's file now.
    """

    run_id: str
    name: str
    offset: int
    data: bytes
    is_record: bool = False
    restart: bool = False
    size: int = 0


class CaughtUp(Pushed, frozen=True, kw_only=True):
    """Everything the nodes had written at ``began`` (the host's clock) has been pushed; sent when records change or on a beat."""

    run_id: str
    began: float
    standings: tuple[NodeStanding, ...]


class Unread(Pushed, frozen=True, kw_only=True):
    """What a run wrote cannot be read on the host now; it is tried again."""

    run_id: str
    message: str


class Readings(Pushed, frozen=True, kw_only=True):
    """Telemetry of the host."""

    ts: float
    values: dict[str, float | None]


AnyRequest = (
    Ping
    | Probe
    | Interfaces
    | FreePorts
    | Listen
    | EndListen
    | Connect
    | PrepareRun
    | CheckSpec
    | StartRun
    | StandingOf
    | StopRun
    | PauseRun
    | ContinueRun
    | ProfileRun
    | EndLeftovers
    | Processes
    | RemoveRun
    | Gpus
    | Queue
    | MoveQueued
    | Packages
    | Usage
    | Listing
    | Follow
    | Unfollow
    | Credit
    | Telemetry
)
AnyAnswer = (
    Done
    | Refused
    | Pong
    | Hardware
    | InterfaceList
    | PortList
    | Connected
    | ProblemList
    | StandingList
    | PidList
    | GpuList
    | QueueList
    | PackageVersions
    | DiskSpace
    | FileList
)


class Asked(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A request on its way to the agent."""

    number: int
    body: AnyRequest


class Answered(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """An answer on its way back, with the number of its request."""

    number: int
    body: AnyAnswer


OfRun = FileChunk | CaughtUp | Unread
FromAgent = Hello | Answered | FileChunk | CaughtUp | Unread | Readings
