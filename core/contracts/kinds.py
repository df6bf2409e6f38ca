"""A kind of run: its spec type and the function that does it. One module per kind declares one ``KIND``.

``core.plugins.registry`` finds them; adding a kind is adding one file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from core.contracts.errors import FieldProblem
from core.contracts.estimates import MemoryEstimate
from core.contracts.specs import RunSpec
from core.contracts.worker import RunContext

Check = Callable[[Any], tuple[FieldProblem, ...]]
Run = Callable[[Any, RunContext], None]
Ranks = Callable[[Any], int]
CodeFolder = Callable[[Any], str]
CheckpointBytes = Callable[[Any], int | None]
Estimate = Callable[[Any], MemoryEstimate | None]


def one_rank(spec: RunSpec) -> int:
    """One process does the work."""
    del spec
    return 1


def unknown_bytes(spec: RunSpec) -> int | None:
    """How much room checkpoints take cannot be told."""
    del spec
    return None


def no_estimate(spec: RunSpec) -> MemoryEstimate | None:
    """How much memory a rank needs cannot be told."""
    del spec
    return None


def no_code(spec: RunSpec) -> str:
    """No code of the user's is needed."""
    del spec
    return ""


def no_check(spec: RunSpec) -> tuple[FieldProblem, ...]:
    """Find nothing wrong; for kinds whose field bounds say it all."""
    del spec
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunKind:
    """A kind of run.

    Attributes:
        spec: Its spec type; the struct's tag is the kind's name, such as ``train.image``.
        title: Its name for people.
        summary: One sentence on what it does.
        group: ``train``, ``compress``, ``benchmark`` or ``pipeline``: where the window offers it.
        icon: Name of an icon in ``resources/icons``.
        run: Does the work in a worker process. Heavy libraries are imported inside it, never at module level.
        check: Looks at things outside the spec (files, disk) before a launch; quick, never raises.
        rank_run: For a kind whose ``run`` starts ranks under torchrun: what each rank does. ``core.train.rank`` calls it.
        ranks: Returns how many ranks the spec starts on each node.
        spans_nodes: It can run on several nodes at once; it then reads ``RunContext.placement``.
        code_folder: Returns the folder of user code that the spec needs, absolute; empty for none. It is copied to
            the hosts of a remote run, and into the run directory of one that waits in a queue.
        checkpoint_bytes: Returns roughly how much room the spec's checkpoints take on the disk of each node; None when
            that cannot be told.
        estimate: Returns what a rank needs of its device's memory; None when that cannot be told. Quick, never raises.
        examples: Names of files in ``resources/examples``.
    """

    spec: type[RunSpec]
    title: str
    summary: str
    group: str
    icon: str
    run: Run
    check: Check = no_check
    rank_run: Run | None = None
    ranks: Ranks = one_rank
    spans_nodes: bool = False
    code_folder: CodeFolder = no_code
    checkpoint_bytes: CheckpointBytes = unknown_bytes
    estimate: Estimate = no_estimate
    examples: tuple[str, ...] = ()
