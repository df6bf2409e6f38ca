"""Weights, buffers and optimizer state of this rank by whole-model names: what a checkpoint and an export are made of."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer


def local(tensor: torch.Tensor) -> torch.Tensor:
    """Return what this rank holds of a tensor: its shard, or all of it."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def trained_parameters(parts: Sequence[nn.Module]) -> dict[str, nn.Parameter]:
    """Return the parameters that are trained, by name; a tied one once."""
    return {name: p for part in parts for name, p in part.named_parameters() if p.requires_grad}


def model_tensors(parts: Sequence[nn.Module]) -> dict[str, torch.Tensor]:
    """Return parameters (a tied one once) and persistent buffers by name, as they are laid out, not copied."""
    found: dict[str, torch.Tensor] = {}
    for part in parts:
        parameters = dict(part.named_parameters())
        found.update(parameters)
        persistent = part.state_dict(keep_vars=True)
        found.update({name: buffer for name, buffer in part.named_buffers() if name in persistent})
    return found


def changing_tensors(parts: Sequence[nn.Module]) -> dict[str, torch.Tensor]:
    """Return what training changes: trained parameters and persistent buffers; frozen weights come from the task."""
    frozen = {name for part in parts for name, p in part.named_parameters() if not p.requires_grad}
    return {name: tensor for name, tensor in model_tensors(parts).items() if name not in frozen}


def make_state(optimizer: Optimizer, parameters: Sequence[nn.Parameter]) -> None:
    """Make an optimizer's state tensors, for every parameter, without moving any: a zero gradient at a rate of zero.

    So checkpoints hold the same names whichever parameters had a gradient yet. Counters are put back to 0: the first real
    step is that of a fresh optimizer.
    """
    rates = [group["lr"] for group in optimizer.param_groups]
    held = [parameter.grad for parameter in parameters]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for parameter, gradient in zip(parameters, held, strict=True):
        parameter.grad = gradient
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    for entries in optimizer.state.values():
        if isinstance(entries.get("step"), torch.Tensor):
            entries["step"].zero_()
        elif "step" in entries:
            entries["step"] = 0


def optimizer_tensors(optimizers: Sequence[Optimizer], parameters: dict[str, nn.Parameter]) -> dict[str, torch.Tensor]:
    """Return the optimizers' state as ``<parameter>:<entry>``; tensors are not copied, plain numbers become tensors."""
    names = {id(parameter): name for name, parameter in parameters.items()}
    found: dict[str, torch.Tensor] = {}
    for optimizer in optimizers:
        for parameter, entries in optimizer.state.items():
            for key, value in entries.items():
                name = f"{names[id(parameter)]}:{key}"
                if isinstance(value, torch.Tensor):
                    found[name] = value
                elif isinstance(value, int | float) and not isinstance(value, bool):
                    found[name] = torch.tensor(float(value), dtype=torch.float64)
    return found


def put_numbers(
    optimizers: Sequence[Optimizer], parameters: dict[str, nn.Parameter], tensors: dict[str, torch.Tensor]
) -> None:
    """Put plain numbers that ``optimizer_tensors`` made tensors of back into the optimizers' state."""
    names = {id(parameter): name for name, parameter in parameters.items()}
    for optimizer in optimizers:
        for parameter, entries in optimizer.state.items():
            for key, value in entries.items():
                if isinstance(value, int | float) and not isinstance(value, bool):
                    entries[key] = type(value)(tensors[f"{names[id(parameter)]}:{key}"].item())


def aliases(parts: Sequence[nn.Module]) -> dict[str, str]:
    """Return the further names of tied parameters, each with the name that ``model_tensors`` has it under."""
    found: dict[str, str] = {}
    for part in parts:
        first = {id(parameter): name for name, parameter in part.named_parameters()}
        for name, parameter in part.named_parameters(remove_duplicate=False):
            if first[id(parameter)] != name:
                found[name] = first[id(parameter)]
    return found
