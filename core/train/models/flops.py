"""FLOPs of a forward pass, counted by torch while it runs once. Importing this module imports torch."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def forward_flops(network: nn.Module, *inputs: torch.Tensor) -> float:
    """Return the FLOPs (two per multiply-add) of one forward pass in evaluation mode; its mode is put back.

    Counts matrix products, convolutions and attention, as ``torch.utils.flop_counter`` does; the rest is small.
    """
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(*inputs)
    finally:
        network.train(was_training)
    return float(counter.get_total_flops())
