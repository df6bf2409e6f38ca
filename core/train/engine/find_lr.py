"""Finds a learning rate by a range test: Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017.

The rate rises exponentially from step to step while the loss, smoothed, is watched; the test ends where it has clearly
turned. Taken is a tenth of the rate of the lowest smoothed loss. Weights and buffers are put back as they were, and the
data begins anew.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from core.contracts.errors import Cancelled
from core.contracts.worker import RunContext
from core.train.engine.contracts import Batch, Batches
from core.train.engine.naming import changing_tensors
from core.train.engine.optim import build_optimizer
from core.train.engine.passes import Passes, PassResult
from core.train.specs.training import TrainingSpec

TABLE = "Learning rate range test"
_LOWEST, _HIGHEST = 1e-6, 1.0
_STEPS = 80
_SMOOTHING = 0.85
_TURNED = 2.0
_BELOW = 10.0


def find_lr(spec: TrainingSpec, context: RunContext, passes: Passes, batches: Batches, micro_batches: int) -> float:
    """Return the learning rate to train with; the curve is published as a table. Called on every rank.

    Args:
        spec: Gives the optimizer and the learning rate that is kept when the test finds none.
        context: The run.
        passes: Runs the passes of a step.
        batches: Batches of its own; used up.
        micro_batches: Micro-batches of a step.

    Raises:
        Cancelled: A stop was asked for meanwhile.
    """
    tensors = changing_tensors(passes.model.parts)
    held = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    try:
        curve = _sweep(spec, context, passes, batches, micro_batches)
    finally:
        with torch.no_grad():
            for name, tensor in tensors.items():
                tensor.copy_(held[name])
    lr = choose(curve, spec.optimizer.lr)
    if passes.model.mesh.is_main:
        context.table(TABLE, ("learning rate", "loss", "smoothed loss"), curve)
        if curve:
            context.log(f"The range test over {len(curve)} steps found the learning rate {lr:.3g}.")
        else:
            context.log(f"The range test met no finite loss; the learning rate {lr:.3g} is used.", "warning")
    return lr


def choose(curve: list[tuple[float, float, float]], otherwise: float) -> float:
    """Return a tenth of the rate of the lowest smoothed loss of (rate, loss, smoothed loss); ``otherwise`` without one."""
    finite = [(smoothed, lr) for lr, _, smoothed in curve if math.isfinite(smoothed)]
    return min(finite)[1] / _BELOW if finite else otherwise


def _finite_pass(passes: Passes, micro_batches: Sequence[Batch]) -> PassResult:
    """Return what the passes of a step gave; where only the loss scale (fp16) is too high, with a lower one."""
    while True:
        found = passes.run(micro_batches)
        scaler, overflows = passes.arithmetic.scaler, not math.isfinite(found.norms.total)
        if scaler is None or not overflows or not math.isfinite(found.loss) or scaler.scale < 1:
            return found
        scaler.update(overflowed=True)
        for part in passes.model.parts:
            part.zero_grad(set_to_none=True)


def _sweep(
    spec: TrainingSpec, context: RunContext, passes: Passes, batches: Batches, micro_batches: int
) -> list[tuple[float, float, float]]:
    """Train at rising rates until the loss has turned; return rate, loss and smoothed loss of each step."""
    optimizers = build_optimizer(passes.model.parts, spec.optimizer)
    curve: list[tuple[float, float, float]] = []
    average, lowest = 0.0, math.inf
    limit = spec.optimizer.max_grad_norm or math.inf
    for step in range(_STEPS):
        if passes.agreement.any(context.should_stop()):
            raise Cancelled
        lr = _LOWEST * (_HIGHEST / _LOWEST) ** (step / (_STEPS - 1))
        found = _finite_pass(passes, batches.next_step(micro_batches))
        norm = found.norms.total
        if not (math.isfinite(found.loss) and math.isfinite(norm)):
            break
        if norm > limit:
            passes.model.scale_gradients(limit / norm)
        optimizers.step(lr)
        optimizers.zero_grad()
        average = _SMOOTHING * average + (1 - _SMOOTHING) * found.loss
        smoothed = average / (1 - _SMOOTHING ** (step + 1))
        curve.append((lr, found.loss, smoothed))
        lowest = min(lowest, smoothed)
        if smoothed > _TURNED * lowest:
            break
    optimizers.zero_grad()
    return curve
