"""The byte streams that SSH runs on: TCP sockets that notice a dead peer, and the user's ProxyCommand.

Paramiko's own sockets have Nagle's algorithm on (40 ms more for each command) and never notice a pulled cable.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import subprocess
import time
from collections.abc import Callable

from core.contracts.errors import Cancelled
from core.ssh.problems import Unreachable

DEAD_AFTER_S = 9
"""A peer that acknowledges nothing for so long is gone."""
_POLL_S = 0.1


def connected(host: str, port: int, timeout_s: float, is_cancelled: Callable[[], bool]) -> socket.socket:
    """Return a socket connected to a host, each of its addresses tried in turn.

    Raises:
        Unreachable: No address answered in time; says how they failed.
        Cancelled: The user cancelled.
    """
    deadline = time.monotonic() + timeout_s
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Unreachable(
            f"The name {host} is not known here.", "Check its spelling, the network, and whether a VPN is needed."
        ) from error
    failure = "it does not answer"
    for family, kind, protocol, _, address in addresses:
        connection = socket.socket(family, kind, protocol)
        try:
            _connect(connection, address, deadline, is_cancelled)
        except OSError as error:
            connection.close()
            failure = _in_words(error, timeout_s)
            continue
        except BaseException:
            connection.close()
            raise
        _watch(connection)
        return connection
    raise Unreachable(
        f"{host}:{port} cannot be reached: {failure}.",
        "Check that it is on, its address and port, the network, and whether a VPN is needed.",
    )


def _connect(connection: socket.socket, address: object, deadline: float, is_cancelled: Callable[[], bool]) -> None:
    connection.setblocking(False)
    code = connection.connect_ex(address)  # pyright: ignore[reportArgumentType] - as getaddrinfo gave it
    if code not in {0, errno.EINPROGRESS, errno.EWOULDBLOCK}:
        raise OSError(code, os.strerror(code))
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_WRITE)
        while not selector.select(_POLL_S):
            if is_cancelled():
                raise Cancelled
            if time.monotonic() > deadline:
                raise TimeoutError
    code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))
    connection.setblocking(True)


def _in_words(error: OSError, timeout_s: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout_s:g} s"
    if error.errno == errno.ECONNREFUSED:
        return "nothing listens at that port"
    return (error.strerror or str(error)).lower()


def _watch(connection: socket.socket) -> None:
    """Send at once, and let the kernel find out that the peer is gone; what a system does not have is left out."""
    options = [
        (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 3),
        (socket.IPPROTO_TCP, "TCP_KEEPALIVE", 3),
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 2),
        (socket.IPPROTO_TCP, "TCP_KEEPCNT", 3),
        (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", DEAD_AFTER_S * 1000),
    ]
    for level, name, value in options:
        if hasattr(socket, name):
            with contextlib.suppress(OSError):
                connection.setsockopt(level, getattr(socket, name), value)


class ProxyProcess:
    """The user's ProxyCommand, with a real socket to its input and output. Run by ``/bin/sh``, as ssh does."""

    def __init__(self, command: str) -> None:
        self.socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", f"exec {command}"],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    def close(self) -> None:
        """End it; never raises."""
        self.socket.close()
        self._process.terminate()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
