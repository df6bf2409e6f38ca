"""AdamW as the published recipes use it: parameter groups, the learning rate of each step, averaged weights.

The learning rate is a pure function of the step, so that a resumed run has no schedule state to restore.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from core.train.specs.optimizer import OptimizerSpec

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import AdamW
    from torch.optim.swa_utils import AveragedModel


def lr_at(step: int, total_steps: int, spec: OptimizerSpec) -> float:
    """Return the learning rate of optimizer step ``step`` (from 0): linear warm-up, then cosine to the final share."""
    warmup_steps = max(1, round(spec.warmup_fraction * total_steps))
    if step < warmup_steps:
        return spec.lr * (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(1, total_steps - warmup_steps - 1)
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
    return spec.lr * (spec.min_lr_fraction + (1.0 - spec.min_lr_fraction) * cosine)


def build_optimizer(model: nn.Module, spec: OptimizerSpec) -> AdamW:
    """Return AdamW (Loshchilov and Hutter, 2019) that decays matrices and kernels but no norm, bias or scalar."""
    import torch

    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": spec.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=spec.lr, betas=(spec.beta1, spec.beta2), eps=spec.eps)


def build_average(model: nn.Module, decay: float) -> AveragedModel | None:
    """Return the exponential average of weights and buffers, or None when ``decay`` is 0.

    The decay of update ``n`` is ``min(decay, (1 + n) / (10 + n))``, so that a short run is not held to its first weights.
    """
    if decay == 0.0:
        return None
    import torch
    from torch.optim.swa_utils import AveragedModel

    def blend(averaged: Sequence[torch.Tensor], current: Sequence[torch.Tensor], count: torch.Tensor | int) -> None:
        done = int(count)
        weight = 1.0 - min(decay, (1 + done) / (10 + done))
        with torch.no_grad():
            for old, new in zip(averaged, current, strict=True):
                if old.is_floating_point():
                    old.lerp_(new, weight)
                else:
                    old.copy_(new)

    return AveragedModel(model, multi_avg_fn=blend, use_buffers=True)
