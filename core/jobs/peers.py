"""The supervisors of a run watch each other: a star around the head's, on the rendezvous' watch port.

One thread, nothing blocks: the supervisor calls ``tick`` a few times a second. A connection that breaks is made again; only
silence counts. When a part fails or is lost, all are stopped and the first to fail is named; an elastic run goes on while
enough nodes are left. What the parts' ends mean for the run is said in ``core.jobs.outcome``.
"""

from __future__ import annotations

from core.jobs.membership import Log, Membership, Peers
from core.jobs.peer_head import Head
from core.jobs.peer_member import Member


def peers_of(membership: Membership, log: Log) -> Peers:
    """Return the peers of a node; EnvironmentProblem when the head cannot listen."""
    if len(membership.placement.nodes) < 2 or membership.placement.rendezvous is None:
        return Peers()
    is_head = membership.node == membership.placement.head.node
    return Head(membership, log) if is_head else Member(membership, log)
