"""Optimizers and the learning rate of each step.

The rate is a pure function of the step, so that a resumed run has no schedule state to restore. Matrices and kernels are
decayed (decoupled), norms, biases and other vectors are not. AdamW: Loshchilov and Hutter, 2019; Adafactor: Shazeer and
Stern, 2018; Muon: Jordan et al., 2024; 8-bit AdamW: Dettmers et al., 2022, from bitsandbytes; WSD: Hu et al., 2024.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from core.contracts.errors import EnvironmentProblem, UserError
from core.train.engine.naming import make_state, trained_parameters
from core.train.specs.optimizer import NEEDS_WHOLE_MATRICES, OptimizerSpec

# Matrices that Muon's orthogonal updates are not meant for: tables of embeddings and the output layer (Jordan, 2024).
_NOT_HIDDEN = ("embed", "lm_head", "wte", "wpe", "classifier", "score", "head", "fc.")


def lr_at(step: int, total_steps: int, spec: OptimizerSpec) -> float:
    """Return the learning rate of optimizer step ``step`` (from 0): linear warm-up, then as the schedule says."""
    warmup_steps = max(1, round(spec.warmup_fraction * total_steps))
    if step < warmup_steps:
        return spec.lr * (step + 1) / warmup_steps
    begin = warmup_steps
    if spec.schedule == "wsd":
        begin = max(begin, total_steps - round(spec.decay_fraction * total_steps))
    done = min(1.0, max(0.0, (step - begin) / max(1, total_steps - begin - 1)))
    return spec.lr * (spec.min_lr_fraction + (1.0 - spec.min_lr_fraction) * _share(done, spec))


def _share(done: float, spec: OptimizerSpec) -> float:
    """Return where between final (0) and highest (1) learning rate a schedule is when ``done`` of its fall are over."""
    match spec.schedule:
        case "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * done))
        case "linear" | "wsd":
            return 1.0 - done
        case "constant":
            return 1.0


class Optimizers:
    """One or two optimizers that step together.

    Attributes:
        members: The optimizers; Muon has AdamW beside it.
        parameters: What they train, by whole-model name.
    """

    def __init__(self, members: Sequence[Optimizer], parameters: Mapping[str, nn.Parameter]) -> None:
        self.members = tuple(members)
        self.parameters = dict(parameters)

    def step(self, lr: float) -> None:
        """Update the weights from their gradients."""
        for member in self.members:
            for group in member.param_groups:
                group["lr"] = lr
            member.step()

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for member in self.members:
            member.zero_grad(set_to_none=True)


def build_optimizer(parts: Sequence[nn.Module], spec: OptimizerSpec) -> Optimizers:
    """Return the optimizer of this rank's parts, which are on their device and laid out already.

    Raises:
        UserError: The algorithm does not work on this layout or device; or there is nothing to train.
        EnvironmentProblem: Its library is missing.
    """
    parameters = trained_parameters(parts)
    if not parameters:
        raise UserError("The model has no weights that are trained.", "Unfreeze some of its weights.")
    sharded = any(isinstance(p, DTensor) for p in parameters.values())
    if spec.algorithm in NEEDS_WHOLE_MATRICES and sharded:
        raise UserError(
            f"{spec.algorithm} needs whole matrices on each rank, but this layout shards them.",
            "Choose sharding 'none' and tensor parallel 1, or the algorithm adamw.",
        )
    match spec.algorithm:
        case "adamw":
            members: list[Optimizer] = [_adamw(parameters, spec)]
        case "sgd":
            members = [torch.optim.SGD(_groups(parameters, spec), lr=spec.lr, momentum=spec.momentum)]
        case "adafactor":
            members = [torch.optim.Adafactor(_groups(parameters, spec), lr=spec.lr, weight_decay=spec.weight_decay)]
        case "muon":
            members = _muon(parameters, spec)
        case "adamw-8bit":
            members = [_adamw_8bit(parameters, spec)]
    for member in members:
        make_state(member, [p for group in member.param_groups for p in group["params"]])
    return Optimizers(members, parameters)


def _groups(parameters: Mapping[str, nn.Parameter], spec: OptimizerSpec) -> list[dict[str, Any]]:
    """Return the group that is decayed and the one that is not; empty ones left out."""
    decayed = [p for p in parameters.values() if p.ndim >= 2]
    free = [p for p in parameters.values() if p.ndim < 2]
    groups = ({"params": decayed, "weight_decay": spec.weight_decay}, {"params": free, "weight_decay": 0.0})
    return [group for group in groups if group["params"]]


def _adamw(parameters: Mapping[str, nn.Parameter], spec: OptimizerSpec) -> Optimizer:
    # The fused kernel does all weights in one pass where a device has it; plain tensors only on the CPU.
    devices = {p.device.type for p in parameters.values()}
    plain = not any(isinstance(p, DTensor) for p in parameters.values())
    fused = devices <= {"cuda", "xpu"} or (devices == {"cpu"} and plain)
    return torch.optim.AdamW(
        _groups(parameters, spec), lr=spec.lr, betas=(spec.beta1, spec.beta2), eps=spec.eps, fused=fused
    )


def _muon(parameters: Mapping[str, nn.Parameter], spec: OptimizerSpec) -> list[Optimizer]:
    """Return Muon for hidden matrices, and AdamW for the rest; Muon's rate is matched to AdamW's (Liu et al., 2025)."""
    hidden = {
        name: p for name, p in parameters.items() if p.ndim == 2 and not any(word in name for word in _NOT_HIDDEN)
    }
    rest = {name: p for name, p in parameters.items() if name not in hidden}
    members: list[Optimizer] = []
    if hidden:
        members.append(
            torch.optim.Muon(
                list(hidden.values()),
                lr=spec.lr,
                weight_decay=spec.weight_decay,
                momentum=spec.momentum,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    return [*members, _adamw(rest, spec)] if rest else members


def _adamw_8bit(parameters: Mapping[str, nn.Parameter], spec: OptimizerSpec) -> Optimizer:
    try:
        from bitsandbytes.optim.adamw import AdamW8bit
    except ImportError as error:
        raise EnvironmentProblem(
            "adamw-8bit needs bitsandbytes, which is not installed.", "Install bitsandbytes, or choose adamw."
        ) from error
    device = next(iter(parameters.values())).device.type
    if device not in ("cpu", "cuda", "xpu"):
        raise UserError(f"bitsandbytes has no 8-bit AdamW for {device}.", "Choose adamw or adafactor.")
    return AdamW8bit(_groups(parameters, spec), lr=spec.lr, betas=(spec.beta1, spec.beta2), eps=spec.eps)
