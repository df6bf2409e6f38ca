"""Keys held by an SSH agent. An agent that is gone, hangs or refuses to sign never stands in the way of other keys."""

from __future__ import annotations

import logging
import socket
import struct
from typing import Any

LISTING_TIMEOUT_S = 3.0
SIGNING_TIMEOUT_S = 60.0
"""Long enough to touch a hardware key or to confirm its use."""
MAX_KEYS = 100
MAX_ANSWER_BYTES = 256 << 10
_REQUEST_IDENTITIES, _IDENTITIES_ANSWER = 11, 12

_log = logging.getLogger(__name__)


class Agent:
    """A connection to an agent; close it after use.

    Attributes:
        keys: What may be offered, as paramiko wants it; empty when the agent does not answer.
    """

    def __init__(self, path: str) -> None:
        self._connection: socket.socket | None = None
        self.keys: tuple[Any, ...] = ()
        if not path or not hasattr(socket, "AF_UNIX"):
            return
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._connection.settimeout(LISTING_TIMEOUT_S)
        try:
            self._connection.connect(path)
            self.keys = tuple(_forgiving(key) for key in self._listed())
        except Exception as error:  # noqa: BLE001 - whatever a broken agent says, other keys are tried
            _log.warning("The SSH agent at %s does not answer: %s", path, error)
            self.close()
            return
        self._connection.settimeout(SIGNING_TIMEOUT_S)

    def close(self) -> None:
        """Let go of the agent."""
        if self._connection is not None:
            self._connection.close()

    def _listed(self) -> list[Any]:
        """Return its keys. Paramiko's own listing has no time limit, and believes any number of keys."""
        from paramiko.agent import AgentKey

        kind, answer = self._send_message(bytes([_REQUEST_IDENTITIES]))
        if kind != _IDENTITIES_ANSWER:
            raise ValueError("it does not list its keys")
        found: list[Any] = []
        for _ in range(min(int(answer.get_int()), MAX_KEYS)):
            blob, comment = answer.get_binary(), answer.get_binary()
            if not blob:
                break
            found.append(AgentKey(agent=self, blob=blob, comment=comment.decode("utf-8", "replace")))  # pyright: ignore[reportArgumentType]
        return found

    def _send_message(self, message: Any) -> tuple[int, Any]:
        """Ask, and return the kind of answer and the rest of it; paramiko's keys call this to sign."""
        from paramiko import Message

        connection = self._connection
        if connection is None:
            raise ValueError("there is no agent")
        data = message if isinstance(message, bytes) else message.asbytes()
        connection.sendall(struct.pack(">I", len(data)) + data)
        (size,) = struct.unpack(">I", self._received(connection, 4))
        if not 0 < size <= MAX_ANSWER_BYTES:
            raise ValueError("its answer makes no sense")
        answer = self._received(connection, size)
        return answer[0], Message(answer[1:])

    @staticmethod
    def _received(connection: socket.socket, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            block = connection.recv(size - len(data))
            if not block:
                raise ValueError("it closed the connection")
            data += block
        return bytes(data)


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
