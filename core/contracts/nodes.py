"""The nodes and ranks of a run as they stand: what its page shows beside the curves."""

from __future__ import annotations

from dataclasses import dataclass

from core.contracts.states import RunState


@dataclass(frozen=True, slots=True, kw_only=True)
class RankStatus:
    """One rank.

    Attributes:
        step: Its last step; None when it wrote none.
        ts: Unix seconds of its last event (the host's clock).
        lag_s: How much later than the first rank it arrives at the same step, as a median over the last steps; None
            when that cannot be told.
    """

    rank: int
    node: str
    step: int | None = None
    ts: float | None = None
    lag_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """One node of a run.

    Attributes:
        state: Where its part stands; None when nothing is known yet.
        message: A sentence about that; may be empty.
        last_contact: Unix seconds (our clock) at which the host last answered; None for this machine.
        is_reachable: False while the host does not answer.
        alive_pids: Live processes of the run there, when that was looked at after its end; None when it was not.
        stdout_start: Offset in the node's whole output of the first byte that is here: 0 unless the output is huge.
        stdout_bytes: Size of the whole output there.
    """

    node: str
    host: str
    state: RunState | None = None
    message: str = ""
    devices: tuple[int, ...] = ()
    last_contact: float | None = None
    is_reachable: bool = True
    alive_pids: tuple[int, ...] | None = None
    stdout_start: int = 0
    stdout_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunNodes:
    """All nodes and ranks of a run; ``straggler`` is a sentence, empty when no rank holds the others up."""

    nodes: tuple[NodeStatus, ...]
    ranks: tuple[RankStatus, ...] = ()
    straggler: str = ""
