"""The layouts that are proved equal to one process, by name, with the ranks and micro-batches each is tried with.

No torch here: the command line lists them.
"""

from __future__ import annotations

from dataclasses import dataclass

from core.train.specs.parallel import ParallelSpec

STEP_SAMPLES = 16
"""Samples of one optimizer step, over all ranks and micro-batches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutCase:
    """A layout to prove.

    Attributes:
        name: As in ``pilothouse check-layouts --layout``.
        parallel: The layout; ``processes`` is its number of ranks.
        micro_batches: Micro-batches of each data rank in a step.
        tied: Input and output embedding are one weight.
        packed: Rows hold several documents.
        layers: Layers of the model; as many as the pipeline has stages.
        note: What is special about it.
    """

    name: str
    parallel: ParallelSpec
    micro_batches: int = 2
    tied: bool = False
    packed: bool = True
    layers: int = 2
    note: str = ""


def _pipelines(processes: int, suffix: str = "", **degrees: object) -> list[LayoutCase]:
    names = ("gpipe", "1f1b", "interleaved", "looped-bfs", "interleaved-zero-bubble", "zbv", "dualpipev")
    return [
        LayoutCase(
            name=f"{name}{suffix}",
            parallel=ParallelSpec(processes=processes, pipeline=2, schedule=name, **degrees),  # pyright: ignore[reportArgumentType]
            micro_batches=4,
            layers=4,
        )
        for name in names
    ]


_TWO = [
    LayoutCase(name="ddp", parallel=ParallelSpec(processes=2)),
    LayoutCase(name="zero1", parallel=ParallelSpec(processes=2, sharding="zero1")),
    LayoutCase(name="zero2", parallel=ParallelSpec(processes=2, sharding="zero2")),
    LayoutCase(name="zero3", parallel=ParallelSpec(processes=2, sharding="zero3")),
    LayoutCase(name="zero3-tied", parallel=ParallelSpec(processes=2, sharding="zero3"), tied=True, packed=False),
    LayoutCase(name="tensor", parallel=ParallelSpec(processes=2, tensor=2)),
    LayoutCase(name="tensor-tied", parallel=ParallelSpec(processes=2, tensor=2), tied=True, packed=False),
    LayoutCase(
        name="tensor-without-sequence",
        parallel=ParallelSpec(processes=2, tensor=2, sequence=False),
        note="sequence off",
    ),
    LayoutCase(name="context", parallel=ParallelSpec(processes=2, context=2)),
    LayoutCase(name="context-unpacked", parallel=ParallelSpec(processes=2, context=2), packed=False),
    *_pipelines(2),
    LayoutCase(name="1f1b-tied", parallel=ParallelSpec(processes=2, pipeline=2), micro_batches=4, layers=4, tied=True),
    LayoutCase(
        name="zbv-tied",
        parallel=ParallelSpec(processes=2, pipeline=2, schedule="zbv"),
        micro_batches=4,
        layers=4,
        tied=True,
    ),
]
_FOUR = [
    LayoutCase(name="hsdp", parallel=ParallelSpec(processes=4, sharding="zero3", replicas=2)),
    LayoutCase(name="zero3-x-tensor", parallel=ParallelSpec(processes=4, sharding="zero3", tensor=2)),
    LayoutCase(name="ddp-x-tensor", parallel=ParallelSpec(processes=4, tensor=2)),
    LayoutCase(
        name="zero3-x-1f1b",
        parallel=ParallelSpec(processes=4, sharding="zero3", pipeline=2),
        micro_batches=4,
        layers=4,
        tied=True,
    ),
    LayoutCase(name="ddp-x-1f1b", parallel=ParallelSpec(processes=4, pipeline=2), micro_batches=4, layers=4),
    LayoutCase(
        name="tensor-x-1f1b",
        parallel=ParallelSpec(processes=4, tensor=2, pipeline=2),
        micro_batches=4,
        layers=4,
        tied=True,
    ),
    LayoutCase(
        name="tensor-x-zbv",
        parallel=ParallelSpec(processes=4, tensor=2, pipeline=2, schedule="zbv"),
        micro_batches=4,
        layers=4,
    ),
    LayoutCase(name="context-x-ddp", parallel=ParallelSpec(processes=4, context=2)),
    LayoutCase(name="context-x-zero3", parallel=ParallelSpec(processes=4, context=2, sharding="zero3")),
    LayoutCase(name="context-x-tensor", parallel=ParallelSpec(processes=4, context=2, tensor=2)),
    LayoutCase(
        name="context-x-1f1b", parallel=ParallelSpec(processes=4, context=2, pipeline=2), micro_batches=4, layers=4
    ),
    LayoutCase(name="1f1b-4", parallel=ParallelSpec(processes=4, pipeline=4), micro_batches=8, layers=4),
]
_EIGHT = [
    LayoutCase(
        name="ddp-x-tensor-x-1f1b", parallel=ParallelSpec(processes=8, tensor=2, pipeline=2), micro_batches=4, layers=4
    ),
    LayoutCase(
        name="zero3-x-tensor-x-1f1b",
        parallel=ParallelSpec(processes=8, sharding="zero3", tensor=2, pipeline=2),
        micro_batches=4,
        layers=4,
    ),
    LayoutCase(
        name="zero3-x-tensor-x-interleaved",
        parallel=ParallelSpec(processes=8, sharding="zero3", tensor=2, pipeline=2, schedule="interleaved"),
        micro_batches=4,
        layers=4,
    ),
]

CASES = {case.name: case for case in (*_TWO, *_FOUR, *_EIGHT)}

REFUSED = {
    case.name: case
    for case in (
        LayoutCase(
            name="zbv-x-zero3",
            parallel=ParallelSpec(processes=4, sharding="zero3", pipeline=2, schedule="zbv"),
            micro_batches=4,
            layers=4,
        ),
    )
}
"""Layouts that ``check_layout`` refuses because they train wrong; kept to see when torch repairs them."""
