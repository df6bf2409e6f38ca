"""What the supervisors of one run say to each other, and the lines that carry it.

A line of JSON each. The head greets with a nonce; a member answers with a ``Hello`` that proves that it knows the run's
token, and the head proves the same in its ``Welcome``: the token itself never travels. From then on each side sends its
whole state, a member a ``Report`` and the head its ``Orders``, at every change and once a second: what was lost with a
connection is said again by itself, and silence means that the other side is not there.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import secrets
import socket
from enum import StrEnum

import msgspec

from core.contracts.states import RunState

LONGEST_LINE_BYTES = 64 << 10
_READ_BYTES = 16 << 10
_LONGEST_TEXT = 2000


class Phase(StrEnum):
    """Where a node's part of a run stands."""

    JOINED = "joined"
    READY = "ready"
    RUNNING = "running"
    PAUSED = "paused"
    ENDED = "ended"


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """How a node's part of a run ended.

    Attributes:
        kind: What went wrong, as ``core.jobs.triage`` calls it; empty when it is not known.
        is_secondary: It failed because another part did, as far as its own words tell.
        failed_at: Unix seconds of the failure by this node's clock.
    """

    node: str
    state: RunState
    message: str = ""
    hint: str = ""
    kind: str = ""
    is_secondary: bool = False
    failed_at: float = 0.0


class Challenge(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="challenge"):
    """The head's first line."""

    nonce: str


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="hello"):
    """A member's answer to it."""

    run_id: str
    attempt: int
    node: str
    nonce: str
    proof: str


class Welcome(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="welcome"):
    """The head's answer to that."""

    proof: str


class Report(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="report"):
    """A member as it stands.

    Attributes:
        sent: Unix seconds by the member's clock.
        round: How often it was started, paused runs counted anew.
        wish: Why the member wants all to stop; empty when it does not.
        part: How its part ended, once it has.
        machine: What its machine calls itself.
    """

    sent: float
    phase: Phase
    round: int
    wish: str = ""
    part: Part | None = None
    machine: str = ""


class Orders(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="orders"):
    """What the head wants of a member.

    Attributes:
        may_take: The member may take its devices.
        go: The round in which the workers may start.
        pause: Save and end, but stay.
        stop: Why to stop; empty when to go on.
        has_part: How the member's part ended is known: it may leave.
    """

    may_take: bool = False
    go: int = 0
    pause: bool = False
    stop: str = ""
    has_part: bool = False


Message = Challenge | Hello | Welcome | Report | Orders
_decoder = msgspec.json.Decoder(Message)


def new_nonce() -> str:
    """Return a fresh random text."""
    return secrets.token_hex(16)


def proof_of(token: str, nonce: str, name: str) -> str:
    """Return what only one who knows the token can answer to a nonce, under a name."""
    return hmac.new(token.encode(), f"{nonce} {name}".encode(), hashlib.sha256).hexdigest()


def is_proof(proof: str, token: str, nonce: str, name: str) -> bool:
    """Tell whether it is the right answer."""
    return hmac.compare_digest(proof.encode(), proof_of(token, nonce, name).encode())


def shortened(part: Part) -> Part:
    """Return the part with texts that fit into a line."""
    return msgspec.structs.replace(part, message=part.message[:_LONGEST_TEXT], hint=part.hint[:_LONGEST_TEXT])


class Wire:
    """One connection; never blocks.

    Attributes:
        is_open: False once the other side closed it, it broke, or something else than our messages came.
        was_left: The other side closed it, or its process ended.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connection
        self._in = b""
        self._out = b""
        self.is_open = True
        self.was_left = False

    def send(self, message: Message) -> None:
        """Send a message, as far as the connection takes it now; the rest goes with the next call."""
        if len(self._out) > LONGEST_LINE_BYTES:
            self.close()
            return
        self._out += msgspec.json.encode(message) + b"\n"
        self.flush()

    def flush(self) -> None:
        """Send what still waits."""
        if not self.is_open or not self._out:
            return
        try:
            self._out = self._out[self._socket.send(self._out) :]
        except BlockingIOError:
            return
        except OSError:
            self.close()

    def receive(self) -> list[Message]:
        """Return the whole messages that came."""
        while self.is_open:
            try:
                data = self._socket.recv(_READ_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                self.was_left = isinstance(error, ConnectionResetError)
                data = b""
            else:
                self.was_left = not data
            if not data or len(self._in) + len(data) > LONGEST_LINE_BYTES:
                lines, self._in = self._split(self._in + data)
                self.close()
                return self._decode(lines)
            self._in += data
        lines, self._in = self._split(self._in)
        return self._decode(lines)

    @staticmethod
    def _split(data: bytes) -> tuple[list[bytes], bytes]:
        *lines, rest = data.split(b"\n")
        return lines, rest

    def _decode(self, lines: list[bytes]) -> list[Message]:
        found: list[Message] = []
        for line in lines:
            try:
                found.append(_decoder.decode(line))
            except msgspec.MsgspecError:
                self.close()
                break
        return found

    def close(self) -> None:
        """Close the connection. Raises nothing."""
        self.is_open = False
        with contextlib.suppress(OSError):
            self._socket.close()
