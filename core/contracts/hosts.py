"""Hosts: what the user told us of them, what we found there, and what is asked of the user on the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Literal, Protocol

import msgspec
from msgspec import Meta

HOST_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
LOCAL_HOST = "local"
"""Name of this machine among the hosts; always there, never in the hosts file."""

RuntimeKind = Literal["none", "managed", "interpreter"]


class RuntimeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The Python environment that runs use on a host.

    Attributes:
        kind: ``managed``: made by us with uv below the host's work folder; ``interpreter``: one that the user named
            (of a venv, a conda environment, ...), never changed by us: the worker package lies beside it and is put on
            its path; ``none``: not set up yet.
        python: The interpreter, absolute on the host.
        worker_dir: Folder on the host with the unpacked worker package for ``interpreter``; empty for ``managed``.
        prelude: Shell lines run (by ``bash``) before the interpreter is started, such as ``module load cuda/12.4`` or
            ``source /opt/conda/bin/activate train``. The user's own words; the only text that a shell ever sees.
        wrapper: Words put before the interpreter, such as ``("apptainer", "exec", "--nv", "image.sif")``.
        torch_backend: As for ``uv --torch-backend``: ``auto``, ``cpu``, ``cu128``, ...; of ``managed``.
        extras: What ``managed`` holds beyond the worker's own small packages: groups of the worker package (``train``,
            ``infer``, ``compress``, ``torch``) and requirements such as ``transformers>=4.50``.
        worker_version: Version of the worker package that was last put there.
        checked: Unix seconds of the last self-test that passed; None when none did.
    """

    kind: RuntimeKind = "none"
    python: str = ""
    worker_dir: str = ""
    prelude: tuple[str, ...] = ()
    wrapper: tuple[str, ...] = ()
    torch_backend: str = "auto"
    extras: tuple[str, ...] = ()
    worker_version: str = ""
    checked: float | None = None


class HostRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A host that the user added. Kept in ``hosts.toml`` of the home folder; holds no secrets.

    Attributes:
        alias: ``Host`` name in the user's ssh config that is resolved at each connect; the fields below that are not
            empty take precedence over it. Empty when the host was entered by hand.
        port: 0 for the config's, else 22.
        jump: Hosts to hop over, outermost first, each ``[user@]host[:port]`` or an alias.
        work_dir: Folder on the host for runs, runtimes and the queue; ``~`` is the user's home there.
        peer_address: Address by which other hosts reach it; empty: found.
        interface: Network interface for the traffic between hosts; empty: found.
        is_slurm: Slurm's commands are there: it can be named as a cluster.
    """

    name: Annotated[str, Meta(pattern=HOST_NAME_PATTERN)]
    address: str = ""
    alias: str = ""
    port: Annotated[int, Meta(ge=0, le=65535)] = 0
    user: str = ""
    identity_file: str = ""
    jump: tuple[str, ...] = ()
    connect_timeout_s: Annotated[float, Meta(gt=0, le=600)] = 15.0
    work_dir: str = "~/.pilothouse"
    peer_address: str = ""
    interface: str = ""
    is_slurm: bool = False
    runtime: RuntimeRecord = RuntimeRecord()


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigHost:
    """A host named in the user's ssh config; its ``alias`` is what a ``HostRecord`` needs to follow the config."""

    alias: str
    hostname: str
    user: str
    port: int


class LinkState(StrEnum):
    """How the connection to a host stands. ``unreachable`` says nothing about the runs there."""

    IDLE = "idle"
    CONNECTING = "connecting"
    ONLINE = "online"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostStatus:
    """A host as it stands now.

    Attributes:
        since: Unix seconds at which ``state`` began.
        message: What is wrong, as a sentence; empty when nothing is.
        hint: The remedy; may be empty.
        next_try: Unix seconds of the next attempt to connect; None when none is planned.
        latency_s: Round trip of the last probe.
        readings: Latest telemetry by name (``cpu.percent``, ``gpu.0.memory_used_bytes``, ...); empty until known.
        readings_ts: Unix seconds of the readings (the host's clock); None until known.
        clock_skew_s: The host's clock minus ours; None until known.
    """

    name: str
    state: LinkState = LinkState.IDLE
    since: float = 0.0
    message: str = ""
    hint: str = ""
    next_try: float | None = None
    latency_s: float | None = None
    readings: dict[str, float | None] = field(default_factory=dict[str, "float | None"])
    readings_ts: float | None = None
    clock_skew_s: float | None = None


class FindingLevel(StrEnum):
    """How much a finding matters: ``error`` stands against a launch."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a pre-flight check found.

    Attributes:
        what: One sentence.
        remedy: What to do about it; empty when nothing is wrong.
        topic: What was looked at, such as ``python`` or ``disk``; stable, for tests and for grouping.
    """

    level: FindingLevel
    what: str
    remedy: str = ""
    topic: str = ""


class CheckReport(msgspec.Struct, frozen=True, kw_only=True):
    """All findings about one host; ``ok`` is false when one of them is an error."""

    host: str
    ok: bool
    findings: tuple[Finding, ...]


class HostGpu(msgspec.Struct, frozen=True, kw_only=True):
    """One accelerator of a host and who holds it (a run of ours, or ``user (pid program)``; empty when free)."""

    index: int
    name: str
    memory_bytes: int
    memory_used_bytes: int = 0
    held_by: tuple[str, ...] = ()


class QueueEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A run that waits for devices of a host, or holds some.

    Attributes:
        position: 0 for one that holds its devices; else how many are ahead of it, plus one.
        devices: What it holds, or how many it asks for (``asked``).
    """

    run_id: str
    name: str
    position: int
    asked: int
    devices: tuple[int, ...] = ()
    since: float = 0.0


class HostKeyQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """The host is unknown: shall its key be trusted from now on?

    Attributes:
        host: As the user knows it, with the address where that differs.
        key_type: Such as ``ssh-ed25519``.
        fingerprint: ``SHA256:...`` as ``ssh-keygen -l`` shows it.
        is_new_type: The host is known by a key of another type, which did not change.
    """

    host: str
    key_type: str
    fingerprint: str
    is_new_type: bool = False


class SecretQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """A secret is needed.

    Attributes:
        kind: ``passphrase`` (of a key file), ``password``, or ``prompt`` (keyboard-interactive).
        about: The key file, ``user@host``, or the server's prompt.
        host: Name of the host.
        is_retry: The one given before was wrong.
        echo: What is typed may be shown (some prompts).
        can_keep: The answer may be kept in the keyring.
    """

    kind: Literal["passphrase", "password", "prompt"]
    about: str
    host: str
    is_retry: bool = False
    echo: bool = False
    can_keep: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretAnswer:
    """What the user typed. Never logged: its text shows nothing."""

    secret: str = field(repr=False)
    keep: bool = False


class Asker(Protocol):
    """Asks the user. Called on a background thread; blocks until answered; ``None`` or False means refused."""

    def trust_host_key(self, question: HostKeyQuestion) -> bool:
        """Return whether to trust the key and remember it."""
        ...

    def secret(self, question: SecretQuestion) -> SecretAnswer | None:
        """Return what the user typed."""
        ...


class NobodyToAsk:
    """An ``Asker`` that refuses everything: for work in the background."""

    def trust_host_key(self, question: HostKeyQuestion) -> bool:
        """Refuse."""
        del question
        return False

    def secret(self, question: SecretQuestion) -> SecretAnswer | None:
        """Refuse."""
        del question
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a long piece of work is.

    Attributes:
        stage: What it does, in the user's words.
        done: 0 to 1; None when it cannot be told.
        line: A line for its log; may be empty.
    """

    stage: str
    done: float | None = None
    line: str = ""


class Watcher(Protocol):
    """Follows a long piece of work and may end it. Called on the thread that does the work."""

    def report(self, progress: Progress) -> None:
        """Show how far it is."""
        ...

    def is_cancelled(self) -> bool:
        """Return whether the user cancelled; the work then raises ``Cancelled`` soon and undoes what is half done."""
        ...


class NoWatcher:
    """A ``Watcher`` that shows nothing and never cancels."""

    def report(self, progress: Progress) -> None:
        """Show nothing."""

    def is_cancelled(self) -> bool:
        """Never."""
        return False
