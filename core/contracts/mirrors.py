"""What this machine keeps about the mirror of a node's files, beside them; never sent anywhere."""

from __future__ import annotations

import msgspec

from core.contracts.agent import NodeStanding


class LinkRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What this machine knows of a node of a run: ``link.<node>.json`` in the mirror.

    Attributes:
        last_contact: Unix seconds by our clock at which the host last answered; None before the first time.
        message: Why it cannot be reached; empty when it can.
        stdout_start: Offset in the host's output file of the first byte that is here.
        stdout_bytes: Size of the host's output file.
        is_complete: The node has ended and all it wrote is here.
        standing: Where the node stands by the host's own judgement.
    """

    last_contact: float | None = None
    is_reachable: bool = True
    message: str = ""
    stdout_start: int = 0
    stdout_bytes: int = 0
    is_complete: bool = False
    standing: NodeStanding | None = None
