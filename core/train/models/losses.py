"""Losses and scores of next-token prediction that do not need a second copy of all logits."""

from __future__ import annotations

import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

NOT_COUNTED = -100
_LARGEST_PIECE = 1 << 24
"""Logits that are turned into float32 at once: 64 MiB."""


def _piece_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(logits.float(), labels, ignore_index=NOT_COUNTED, reduction="sum")


def summed_cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the sum of the cross entropies over labels that count, float32, in nats.

    When there are many logits they are taken some rows at a time and computed again in the backward pass, so that no
    float32 copy of all of them is kept.

    Args:
        logits: Shape (batch, length, vocabulary).
        labels: int64 (batch, length); ``NOT_COUNTED`` where nothing is to be predicted.
    """
    rows, targets = logits.flatten(0, 1), labels.flatten()
    if rows.numel() <= _LARGEST_PIECE:
        return _piece_loss(rows, targets)
    size = max(1, _LARGEST_PIECE // rows.shape[1])
    total = rows.new_zeros((), dtype=torch.float32)
    for piece, wanted in zip(rows.split(size), targets.split(size), strict=True):
        lost = checkpoint(_piece_loss, piece, wanted, use_reentrant=False)
        assert isinstance(lost, torch.Tensor)
        total = total + lost
    return total


def count_correct(logits: torch.Tensor, labels: torch.Tensor) -> int:
    """Return at how many counted places the likeliest token is the label."""
    return int(((logits.argmax(-1) == labels) & (labels != NOT_COUNTED)).sum())
