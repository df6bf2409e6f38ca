"""PyTorch's own many-tensors-at-once operations: one launch for all of them. Public in effect, private by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch

_torch = cast("Any", torch)


def lerp_(targets: Sequence[torch.Tensor], others: Sequence[torch.Tensor], weight: float) -> None:
    """Move each target towards its other by a share, in place."""
    _torch._foreach_lerp_(list(targets), list(others), weight)


def subtract_(targets: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> None:
    """Subtract each other from its target, in place."""
    _torch._foreach_sub_(list(targets), list(others))


def norms(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the Euclidean norm of each tensor, float32 (number of tensors,)."""
    return torch.stack(_torch._foreach_norm(list(tensors))).float()  # noqa: SLF001 - see the module
