"""What of a parallel layout can be refused before anything starts: every problem at once, without importing torch.

Words as in ``core.train.engine.contracts``: ranks = data x tensor x pipeline x context.
"""

from __future__ import annotations

from core.contracts.errors import FieldProblem
from core.train.models.shape import ModelShape
from core.train.specs.parallel import ParallelSpec

LOOPED = ("interleaved", "looped-bfs", "interleaved-zero-bubble")
"""Schedules that give each rank ``stages_per_rank`` stages, one every ``pipeline`` stages."""
V_SHAPED = ("zbv", "dualpipev")
"""Schedules with two stages on each rank, laid down and back up again."""
ZERO_BUBBLE = ("interleaved-zero-bubble", "zbv", "dualpipev")
"""Schedules that split the backward pass; with sharded weights torch trains them wrong, without an error."""


def data_ranks(parallel: ParallelSpec, nodes: int) -> int:
    """Return how many ranks work on different samples; 0 when the degrees ask for more ranks than there are."""
    return parallel.processes * nodes // parallel.model_ranks


def pipeline_stages(parallel: ParallelSpec) -> int:
    """Return into how many pieces the model is cut."""
    if parallel.schedule in LOOPED:
        return parallel.pipeline * parallel.stages_per_rank
    return parallel.pipeline * (2 if parallel.schedule in V_SHAPED else 1)
