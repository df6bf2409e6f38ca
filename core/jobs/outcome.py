"""What the ends of all parts mean for the run: the first failure that is nobody's echo is its cause, and is named."""

from __future__ import annotations

from collections.abc import Sequence

from core.contracts.placement import Placement
from core.contracts.states import RunState
from core.jobs.ending import RESUME_HINT, Verdict
from core.jobs.membership import name_of
from core.jobs.peer_wire import Part

_FALLEN = (RunState.FAILED, RunState.LOST)


def first_fall(parts: Sequence[Part]) -> Part | None:
    """Return the part whose failure is the cause; None when none failed or was lost."""
    fallen = [part for part in parts if part.state in _FALLEN]
    return min(fallen, key=lambda part: (part.is_secondary, part.failed_at), default=None)


def _named(part: Part, placement: Placement) -> str:
    name = name_of(placement.of(part.node))
    return part.message if name in part.message else f"On {name}: {part.message}"


def verdict_of(own: Part, others: Sequence[Part], placement: Placement, stop_reason: str) -> Verdict:
    """Return the run's verdict.

    Args:
        own: How the head's part ended.
        others: How the others' parts did.
        placement: The nodes of the run.
        stop_reason: Why the run was stopped by somebody; empty when nobody wanted it to.
    """
    parts = (own, *others)
    if len(placement.nodes) == 1 or all(part.state is RunState.SUCCEEDED for part in parts):
        return Verdict(own.state, own.message, own.hint, own.kind)
    cause = first_fall(parts)
    if stop_reason:
        told = f" {_named(cause, placement)}" if cause is not None and not cause.is_secondary else ""
        return Verdict(RunState.STOPPED, f"{stop_reason}{told}", RESUME_HINT)
    if own.state is RunState.SUCCEEDED and placement.is_elastic:
        told = "" if cause is None else f"It went on with fewer nodes. {_named(cause, placement)}"
        return Verdict(RunState.SUCCEEDED, told)
    if cause is not None:
        return Verdict(RunState.FAILED, _named(cause, placement), cause.hint or RESUME_HINT, cause.kind)
    stopped = next(part for part in parts if part.state is not RunState.SUCCEEDED)
    return Verdict(RunState.STOPPED, _named(stopped, placement), stopped.hint or RESUME_HINT)
