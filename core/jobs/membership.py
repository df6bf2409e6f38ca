"""A supervisor's place among those of its run, and what it may ask of the others; alone, it may do all at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from core.contracts.hosts import LOCAL_HOST
from core.contracts.placement import NodePlacement, Placement, Rendezvous
from core.jobs.peer_wire import Part, Phase

Log = Callable[[str, str], None]

SAY_S = 1.0
"""State is said at every change, and this often without one."""
FROZEN_S = 5.0
"""A supervisor that did not run for this long was frozen itself: others are not lost for that."""
ENDING_LIMIT_S = 20.0
HEAD_NAME = "head"
_JOIN_LIMITS_S = {"direct": 120.0, "slurm": 300.0, "kubernetes": 3600.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """Which run, which start of it, and which of its nodes this supervisor is.

    Attributes:
        peer_limit_s: A node that is silent for longer is lost.
        machine: What this node's machine calls itself, the same for every run there.
        ending_s: How long a node may take to end after it was told to.
    """

    run_id: str
    attempt: int
    node: str
    placement: Placement
    peer_limit_s: float
    ending_s: float
    machine: str = ""

    @property
    def rendezvous(self) -> Rendezvous:
        """Where the nodes meet; a run on several nodes has it."""
        assert self.placement.rendezvous is not None
        return self.placement.rendezvous

    @property
    def join_limit_s(self) -> float:
        """How long nodes may take to appear."""
        return _JOIN_LIMITS_S[self.placement.engine]


def name_of(placed: NodePlacement) -> str:
    """Return a node's name for people: its host where it has one."""
    return f"node {placed.node}" if placed.host in ("", LOCAL_HOST) else f"host {placed.host}"


class Peers:
    """The other nodes of a run, as its supervisor sees them; this one is for a run that has none.

    Attributes:
        stop_reason: Why this part must stop; empty when it may go on.
        is_stop_wanted: Somebody wanted the run to stop: it is no failure.
        wants_pause: The run is to pause (set by the head's supervisor, obeyed by the members').
        parts: How the other nodes' parts ended, as far as that is known.
    """

    def __init__(self) -> None:
        self.stop_reason = ""
        self.is_stop_wanted = False
        self.wants_pause = False
        self.parts: list[Part] = []

    def tick(self, now: float) -> None:
        """Exchange what there is to say; ``now`` is monotonic seconds. Raises nothing."""

    def enter(self, phase: Phase, round_number: int) -> None:
        """Tell where this part stands."""

    def wish_stop(self, reason: str) -> None:
        """Have all parts stopped."""

    def may_take_devices(self) -> bool:
        """Tell whether the nodes that come first hold theirs."""
        return True

    def may_start(self) -> bool:
        """Tell whether all nodes are ready."""
        return True

    def are_paused(self) -> bool:
        """Tell whether the other parts have ended for the pause."""
        return True

    def end(self, part: Part) -> None:
        """Tell how this part ended."""

    def is_done(self, now: float) -> bool:
        """Tell whether this supervisor may leave after ``end``: the others have ended, or know all they need."""
        del now
        return True

    def close(self) -> None:
        """Close all connections. Raises nothing."""
