"""Attention under context parallel: every rank's queries see the gathered keys and values of all ranks of a sequence.

Who has which slice is ``core.train.parallel.context_split``'s part. Keys and values are gathered by a collective whose gradient is its transpose, so this runs on every backend; torch's
own ``context_parallel`` needs kernels that a CPU lacks. Importing this module imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.distributed._functional_collectives import all_gather_single_autograd, wait_tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from core.train.parallel.context_split import ContextSplit

ATTENTION = "pilothouse_context"
"""Name of the attention function among those of transformers."""


@dataclass(slots=True, kw_only=True, eq=False)
class ContextPlan:
    """What attention of one forward pass needs to know; the same for all layers.

    Attributes:
        split: Who has which slices.
        order: See ``ContextSplit.natural_order``.
        places: Positions of this rank's queries.
        segments: Documents of the whole rows, int64 (batch, length); None: each row is one.
        masks: By window: for each of the two slices, which keys it may see, bool (batch or 1, 1, queries, keys).
    """

    split: ContextSplit
    order: torch.Tensor
    places: torch.Tensor
    segments: torch.Tensor | None
    masks: dict[int | None, list[torch.Tensor]] = field(default_factory=dict[int | None, list[torch.Tensor]])

    def slice_masks(self, window: int | None) -> list[torch.Tensor]:
        """Return the masks of the two slices: causal, within a document, and within the window if there is one."""
        if window not in self.masks:
            self.masks[window] = [
                allowed(places, torch.arange(int(end), device=places.device), self.segments, window)
                for places, end in zip(self.places.chunk(2), self.ends(), strict=True)
            ]
        return self.masks[window]

    def ends(self) -> list[int]:
        """Return how many keys of the row the two slices can see at most."""
        width = len(self.places) // 2
        return [(self.split.rank + 1) * width, (2 * self.split.size - self.split.rank) * width]


def allowed(
    queries: torch.Tensor, keys: torch.Tensor, segments: torch.Tensor | None, window: int | None
) -> torch.Tensor:
    """Return which query may look at which key, bool (batch or 1, 1, queries, keys).

    Args:
        queries: Positions in the row, int64 (queries).
        keys: Positions in the row, int64 (keys).
        segments: Documents of the rows, int64 (batch, length); None: each row is one.
        window: How far back a query sees, itself included; None: to the beginning.
    """
    distance = queries[:, None] - keys[None, :]
    mask = distance >= 0
    if window is not None:
        mask = mask & (distance < window)
    if segments is None:
        return mask[None, None]
    return (mask & (segments[:, queries][:, :, None] == segments[:, keys][:, None, :]))[:, None]


def make_plan(split: ContextSplit, segment_ids: torch.Tensor | None, length: int, device: torch.device) -> ContextPlan:
    """Return the plan of a forward pass over rows of ``length``; ``segment_ids`` are this rank's slices."""
    return ContextPlan(
        split=split,
        order=split.natural_order(length).to(device),
        places=split.places(length).to(device),
        segments=None if segment_ids is None else split.join(segment_ids),
    )


def context_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attend from this rank's queries to the keys of the whole row; without a plan, as transformers' own does.

    Args:
        module: The attention layer.
        query: (batch, heads, length / ranks, width).
        key: (batch, key-value heads, length / ranks, width).
        value: As the key.
        attention_mask: Not looked at under a plan.
        **options: transformers' own, and ``context_plan`` and ``context_window``.

    Returns:
        (batch, length / ranks, heads, width), and no weights.
    """
    plan: ContextPlan | None = options.pop("context_plan", None)
    window: int | None = options.pop("context_window", None)
    if plan is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    keys, values = _gathered(torch.stack((key, value)), plan)
    outputs = [
        sdpa_attention_forward(module, part, keys[:, :, :end], values[:, :, :end], mask, **options)[0]
        for part, end, mask in zip(query.chunk(2, dim=2), plan.ends(), plan.slice_masks(window), strict=True)
    ]
    return torch.cat(outputs, dim=1), None


def _gathered(pair: torch.Tensor, plan: ContextPlan) -> torch.Tensor:
    """Return keys and values of the whole row, (2, batch, heads, length, width), from those of all ranks."""
    by_rank = wait_tensor(all_gather_single_autograd(pair.movedim(3, 0).contiguous(), 0, plan.split.group))
    return by_rank[plan.order].movedim(0, 3)


def attention_options(plan: ContextPlan | None, window: int | None) -> Mapping[str, Any]:
    """Return what a layer must hand to ``context_attention``."""
    return {} if plan is None else {"context_plan": plan, "context_window": window}


AttentionInterface.register(ATTENTION, context_attention)
