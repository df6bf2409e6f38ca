"""L1 penalty on matrices and kernels, as its subgradient, and how many weights it drove to nearly zero.

Works on plain and on sharded (DTensor) weights alike, since it looks at each weight alone. Importing this module imports
torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from core.contracts.worker import RunContext

NEAR_ZERO = 1e-3


def is_penalized(weight: torch.Tensor) -> bool:
    """Return whether a weight is a matrix or kernel; norms and biases are left alone."""
    return weight.ndim >= 2 and weight.is_floating_point()


@torch.no_grad()
def add_l1_gradients(parts: Sequence[nn.Module], factor: float) -> None:
    """Add ``factor * sign(w)``, the subgradient of ``factor * sum |w|``, to the gradients of matrices and kernels.

    Call it on every rank after the gradients are summed over the data ranks and unscaled. A weight without a gradient
    (frozen, or unused in this step) is left alone.

    Args:
        parts: Modules of this rank.
        factor: Weight of the penalty in the loss (Tibshirani, 1996); 0 does nothing.
    """
    if factor == 0.0:
        return
    for parameter in dict.fromkeys(p for part in parts for p in part.parameters()):
        if parameter.grad is not None and is_penalized(parameter):
            parameter.grad.add_(parameter.sign(), alpha=factor)


def report_near_zero(context: RunContext, weights: Mapping[str, torch.Tensor], factor: float) -> None:
    """Tell how many weights a penalty drove to nearly zero; nothing without one. On rank 0, with the whole weights."""
    if factor == 0.0:
        return
    share = near_zero_share(weights)
    context.result({"near_zero_weights": share})
    context.log(f"{share:.1%} of the elements of matrices and kernels are below {NEAR_ZERO:g} after the L1 penalty.")


def near_zero_share(weights: Mapping[str, torch.Tensor]) -> float:
    """Return the share, 0 to 1, of the elements of matrices and kernels whose size is below ``NEAR_ZERO``."""
    # A tied weight stands under each of its names, as one tensor.
    matrices = [weight for weight in {id(w): w for w in weights.values()}.values() if is_penalized(weight)]
    elements = sum(weight.numel() for weight in matrices)
    near = sum(int((weight.abs() < NEAR_ZERO).sum()) for weight in matrices)
    return near / elements if elements else 0.0
