"""The network of the host as the agent sees it: interfaces, free ports, and whether another host can be reached."""

from __future__ import annotations

import contextlib
import ipaddress
import secrets
import socket
import threading
import time

import psutil

from core.contracts import agent as said
from core.contracts.errors import EnvironmentProblem

_LISTEN_LIMIT_S = 60.0
_TALK_LIMIT_S = 5.0
_FAMILIES = (socket.AF_INET, socket.AF_INET6)


def interfaces() -> tuple[said.Interface, ...]:
    """Return the addresses of all interfaces that are up, IPv4 first; link-local ones are left out."""
    states = psutil.net_if_stats()
    found: list[said.Interface] = []
    for name, addresses in psutil.net_if_addrs().items():
        if name not in states or not states[name].isup:
            continue
        for address in addresses:
            if address.family not in _FAMILIES:
                continue
            ip = ipaddress.ip_address(address.address.partition("%")[0])
            if ip.is_link_local:
                continue
            network = ipaddress.ip_network(f"{ip}/{_prefix(address.netmask, ip.max_prefixlen)}", strict=False)
            found.append(
                said.Interface(
                    name=name,
                    address=str(ip),
                    network=str(network),
                    is_loopback=ip.is_loopback,
                    mbps=max(states[name].speed, 0),
                )
            )
    return tuple(sorted(found, key=lambda one: (":" in one.address, one.is_loopback, one.name)))


def _prefix(netmask: str | None, longest: int) -> int:
    """Return a netmask's length: psutil writes it as an address, for both families."""
    return longest if not netmask else int(ipaddress.ip_address(netmask)).bit_count()


def free_ports(count: int) -> tuple[int, ...]:
    """Return TCP ports that nobody listened on a moment ago, all different."""
    with contextlib.ExitStack() as stack:
        ports: list[int] = []
        for _ in range(max(count, 1)):
            probe = stack.enter_context(socket.socket())
            probe.bind(("", 0))
            ports.append(int(probe.getsockname()[1]))
        return tuple(ports)


class Listeners:
    """Ports listened on for a test of reachability. Who knows the token gets it back signed; others get nothing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sockets: dict[str, socket.socket] = {}

    def listen(self, token: str, port: int) -> int:
        """Listen until ``end``, or for a minute; return the port.

        Raises:
            EnvironmentProblem: The port is taken.
        """
        try:
            listener = socket.create_server(("", port))
        except OSError as error:
            raise EnvironmentProblem(
                f"Port {port} cannot be listened on: {error.strerror}.", "Let a free port be chosen."
            ) from error
        listener.settimeout(1.0)
        with self._lock:
            self._sockets[token] = listener
        threading.Thread(target=self._serve, args=(token, listener), name="reachability", daemon=True).start()
        return int(listener.getsockname()[1])

    def _serve(self, token: str, listener: socket.socket) -> None:
        deadline = time.monotonic() + _LISTEN_LIMIT_S
        while time.monotonic() < deadline:
            try:
                caller, _ = listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            with caller, contextlib.suppress(OSError):
                caller.settimeout(_TALK_LIMIT_S)
                if secrets.compare_digest(_read(caller, len(token)), token.encode()):
                    caller.sendall(token[::-1].encode())
        self.end(token)

    def end(self, token: str) -> None:
        """Stop listening for a token."""
        with self._lock:
            listener = self._sockets.pop(token, None)
        if listener is not None:
            # The thread that waits in accept would keep the port for up to a second: the run needs it at once.
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def close(self) -> None:
        """Stop listening for all."""
        for token in list(self._sockets):
            self.end(token)


def _read(connection: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length and (more := connection.recv(length - len(data))):
        data += more
    return data


def connect(asked: said.Connect) -> said.AnyAnswer:
    """Connect to a listening agent and exchange the token; Refused tells why it cannot be reached."""
    began = time.monotonic()
    where = f"{asked.address} port {asked.port}"
    try:
        with socket.create_connection((asked.address, asked.port), asked.timeout_s) as connection:
            connection.settimeout(asked.timeout_s)
            connection.sendall(asked.token.encode())
            if _read(connection, len(asked.token)) != asked.token[::-1].encode():
                return said.Refused(message=f"Something else answers at {where}.", is_environment=True)
            own = str(connection.getsockname()[0])
    except OSError as error:
        why = "no answer" if isinstance(error, TimeoutError) else (error.strerror or str(error)).lower()
        return said.Refused(
            message=f"{where} cannot be reached: {why}.",
            hint="Open the firewall between the hosts, or name the address and interface to use.",
            is_environment=True,
        )
    return said.Connected(own_address=own, round_trip_s=time.monotonic() - began)
