"""From a target to a logged-in transport: hop by hop, each host's key checked before anything is told to it."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.contracts.errors import Cancelled
from core.contracts.hosts import Asker, HostKeyQuestion
from core.ssh.authentication import Authentication
from core.ssh.config import Target
from core.ssh.known_hosts import Judgement, KnownHosts, Verdict, fingerprint, known_as
from core.ssh.login import Answers, KeptSecrets, Login
from core.ssh.problems import Refused, Unreachable
from core.ssh.sockets import ProxyProcess, connected

_ALGORITHMS = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}
"""Types of key in known_hosts that are asked for by another name."""
_KEEP_ALIVE_S = 20
_AUTHENTICATION_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Whom to ask and where to look while connecting."""

    asker: Asker
    secrets: KeptSecrets
    known_hosts: Path
    is_cancelled: Callable[[], bool]


class Chain:
    """The transports to a host over all its jumps; the last one is the host's. Close it after use."""

    def __init__(self) -> None:
        self._closers: list[Callable[[], None]] = []
        self._transport: Any = None

    @property
    def transport(self) -> Any:
        """The host's own transport."""
        return self._transport

    def open(self, target: Target, trust: Trust, answers: Answers) -> None:
        """Connect over all hops.

        Raises:
            Unreachable: A hop does not answer.
            Refused: A hop's key or our log-in is refused.
            Cancelled: The user cancelled.
        """
        quiet_paramiko()
        login = Login(asker=trust.asker, secrets=trust.secrets, answers=answers, is_cancelled=trust.is_cancelled)
        for hop in (*target.jumps, target):
            stream = self._stream(hop, trust)
            transport = self._started(hop, stream, trust)
            _check_key(transport, hop, trust)
            with self._closed_on_cancel(trust.is_cancelled):
                Authentication(transport, hop, login).run()
            transport.set_keepalive(_KEEP_ALIVE_S)
            self._transport = transport

    def close(self) -> None:
        """Close all, the innermost first; never raises."""
        while self._closers:
            with contextlib.suppress(Exception):
                self._closers.pop()()

    def _stream(self, hop: Target, trust: Trust) -> Any:
        if self._transport is not None:
            return self._through(hop)
        if hop.proxy_command:
            process = ProxyProcess(hop.proxy_command)
            self._closers.append(process.close)
            return process.socket
        connection = connected(hop.hostname, hop.port, hop.connect_timeout_s, trust.is_cancelled)
        self._closers.append(connection.close)
        return connection

    def _through(self, hop: Target) -> Any:
        """Return a channel of the hop before; it is closed with that hop's transport."""
        from paramiko import SSHException

        where = (hop.hostname, hop.port)
        try:
            return self._transport.open_channel("direct-tcpip", where, ("127.0.0.1", 0), timeout=hop.connect_timeout_s)
        except (SSHException, EOFError, OSError) as error:
            raise Unreachable(
                f"{hop.hostname}:{hop.port} cannot be reached from the host that is hopped over.",
                "Check that it is on, and that the jump host allows forwarding (AllowTcpForwarding).",
            ) from error

    def _started(self, hop: Target, stream: Any, trust: Trust) -> Any:
        """Return a transport with a key exchange done, its host not yet trusted."""
        import paramiko

        transport: Any = paramiko.Transport(stream)
        self._closers.append(transport.close)
        transport.daemon = True
        transport.banner_timeout = hop.connect_timeout_s
        transport.auth_timeout = _AUTHENTICATION_TIMEOUT_S
        _prefer_known_types(transport, hop, trust)
        try:
            with self._closed_on_cancel(trust.is_cancelled):
                transport.start_client(timeout=hop.connect_timeout_s)
            transport.get_remote_server_key()  # after a timeout, start_client returns as if all were well
        except (paramiko.SSHException, EOFError, OSError) as error:
            if trust.is_cancelled():
                raise Cancelled from error
            raise _not_started(hop, error) from error
        return transport

    @contextmanager
    def _closed_on_cancel(self, is_cancelled: Callable[[], bool]) -> Generator[None]:
        """Close the newest transport when the user cancels: whatever waits on it then ends."""
        is_done = threading.Event()
        close = self._closers[-1]

        def watch() -> None:
            while not is_done.wait(0.1):
                if is_cancelled():
                    close()
                    return

        watcher = threading.Thread(target=watch, name="ssh-cancel", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            is_done.set()
            watcher.join()


def quiet_paramiko() -> None:
    """Keep its tracebacks out of the terminal and of our log: every failure is told by an exception."""
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)


def _not_started(hop: Target, error: BaseException) -> Unreachable | Refused:
    from paramiko.ssh_exception import IncompatiblePeer

    if isinstance(error, IncompatiblePeer):
        return Refused(f"{hop.name} and this program have no way to encrypt in common.", "Update the SSH server there.")
    if hop.proxy_command:
        return Unreachable(
            f"The ProxyCommand for {hop.name} does not lead to an SSH server.",
            f"Try it in a terminal: {hop.proxy_command}",
        )
    return Unreachable(
        f"{hop.hostname}:{hop.port} accepts connections, but does not answer as an SSH server does.",
        "It may hang, be overloaded, or the port may belong to something else; check it, or try again later.",
    )


def _known_name(hop: Target) -> tuple[str, int]:
    return (hop.key_alias, 22) if hop.key_alias else (hop.hostname, hop.port)


def _prefer_known_types(transport: Any, hop: Target, trust: Trust) -> None:
    """Ask first for a type of key by which the host is known: others would look like a new one."""
    known = KnownHosts(trust.known_hosts, hop.known_hosts).types(*_known_name(hop))
    wanted = [name for key_type in known for name in _ALGORITHMS.get(key_type, (key_type,))]
    options = transport.get_security_options()
    offered = tuple(options.key_types)
    options.key_types = tuple(sorted(offered, key=lambda name: name not in wanted))


def _check_key(transport: Any, hop: Target, trust: Trust) -> None:
    """Let nobody pass who is not who they were; ask about the unknown.

    Raises:
        Refused: The key changed, is revoked, or the user does not trust it.
    """
    shown = transport.get_remote_server_key()
    key_type, key = shown.get_name(), shown.asbytes()
    known = KnownHosts(trust.known_hosts, hop.known_hosts)
    host, port = _known_name(hop)
    judgement = known.judge(host, port, key_type, key)
    if judgement.verdict is Verdict.KNOWN:
        return
    if judgement.verdict in {Verdict.CHANGED, Verdict.REVOKED}:
        raise _changed(hop, judgement, key_type, key)
    where = known_as(hop.hostname, hop.port)
    question = HostKeyQuestion(
        host=hop.name if hop.name == where else f"{hop.name} ({where})",
        key_type=key_type,
        fingerprint=fingerprint(key),
        is_new_type=judgement.verdict is Verdict.NEW_TYPE,
    )
    if not trust.asker.trust_host_key(question):
        if trust.is_cancelled():
            raise Cancelled
        raise Refused(
            f"The key of {hop.name} is not known, and was not accepted: {key_type} {fingerprint(key)}.",
            "Compare it with what ssh-keygen -l shows on the host, connect again, and accept it.",
        )
    known.add(host, port, key_type, key)


def _changed(hop: Target, judgement: Judgement, key_type: str, key: bytes) -> Refused:
    line = judgement.rests_on
    where = f"line {line.line} of {line.file}" if line is not None else "the known hosts"
    if judgement.verdict is Verdict.REVOKED:
        return Refused(f"The key of {hop.name} was revoked ({where}).", "Do not connect; ask who looks after the host.")
    host, port = _known_name(hop)
    file = line.file if line is not None else ""
    return Refused(
        f"The key of {hop.name} is not the one it had: it shows {key_type} {fingerprint(key)}, {where} names another.",
        "Somebody may be listening in between. If the host was set up anew, forget the old key: "
        f"ssh-keygen -f '{file}' -R '{known_as(host, port)}'",
    )
