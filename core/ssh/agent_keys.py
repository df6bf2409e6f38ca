"""Keys held by an SSH agent. An agent that is gone, hangs or refuses to sign never stands in the way of other keys."""

from __future__ import annotations

import logging
import socket
import struct
from typing import Any

LISTING_TIMEOUT_S = 3.0
SIGNING_TIMEOUT_S = 60.0
"""Long enough to touch a hardware key or to confirm its use."""

_log = logging.getLogger(__name__)


class Agent:
    """A connection to an agent; close it after use.

    Attributes:
        keys: What may be offered, as paramiko wants it; empty when the agent does not answer.
    """

    def __init__(self, path: str) -> None:
        self._agent: Any = None
        self.keys: tuple[Any, ...] = ()
        if not path or not hasattr(socket, "AF_UNIX"):
            return
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(LISTING_TIMEOUT_S)
        try:
            connection.connect(path)
            self._agent = _listed(connection)
        except Exception as error:  # noqa: BLE001 - whatever a broken agent says, other keys are tried
            _log.warning("The SSH agent at %s does not answer: %s", path, error)
            connection.close()
            return
        connection.settimeout(SIGNING_TIMEOUT_S)
        self.keys = tuple(_forgiving(key) for key in self._agent.get_keys())

    def close(self) -> None:
        """Let go of the agent."""
        if self._agent is not None:
            self._agent._close()  # noqa: SLF001 - paramiko has no other way
            self._agent = None


def _listed(connection: socket.socket) -> Any:
    from paramiko.agent import AgentSSH

    agent: Any = AgentSSH()
    agent._connect(connection)  # noqa: SLF001 - paramiko's own way has no time limit
    return agent


def _forgiving(key: Any) -> Any:
    """Let a key whose signing fails give a signature that the server refuses.

    Paramiko signs on the connection's own thread, where an exception ends the connection and with it the log-in by
    any other key.
    """
    sign = key.sign_ssh_data

    def sign_or_fail(data: bytes, algorithm: str | None = None) -> bytes:
        try:
            return bytes(sign(data, algorithm))
        except Exception as error:  # noqa: BLE001 - see above
            _log.warning("The SSH agent did not sign with %s: %s", key.get_name(), error)
            name = (algorithm or key.get_name()).encode()
            return struct.pack(">I", len(name)) + name + struct.pack(">I", 1) + b"\0"

    key.sign_ssh_data = sign_or_fail
    return key
