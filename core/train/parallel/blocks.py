"""Finds the repeated blocks of a network: what is sharded, recomputed, compiled and watched as one piece.

A block is an outermost item of a ``ModuleList``, ``ModuleDict`` or ``Sequential`` that has a sibling of its own type and
holds modules itself: decoder layers, ResNet blocks, ViT blocks. Importing this module imports torch.
"""

from __future__ import annotations

from collections import Counter

from torch import nn

_FEWEST_ALIKE = 2


def find_blocks(model: nn.Module) -> dict[str, nn.Module]:
    """Return the blocks of a network by name, in the order of its modules; empty when it repeats nothing."""
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        if not isinstance(module, nn.ModuleList | nn.ModuleDict | nn.Sequential) or _is_inside(name, found):
            continue
        alike = Counter(type(child) for child in module.children())
        for child_name, child in module.named_children():
            if any(True for _ in child.children()) and (alike[type(child)] >= _FEWEST_ALIKE or _is_part(module)):
                found[f"{name}.{child_name}" if name else child_name] = child
    return found


def block_of(parameter: str, blocks: dict[str, nn.Module]) -> str:
    """Return the block that a parameter belongs to; outside of blocks the module that holds it (or its own name)."""
    pieces = parameter.split(".")
    for end in range(1, len(pieces)):
        if (prefix := ".".join(pieces[:end])) in blocks:
            return prefix
    return ".".join(pieces[:-1]) or parameter


def _is_inside(name: str, found: dict[str, nn.Module]) -> bool:
    return any(name == block or name.startswith(f"{block}.") for block in found)


def _is_part(module: nn.Module) -> bool:
    """Layers of a pipeline stage stand in a ModuleDict, maybe only one of them."""
    return isinstance(module, nn.ModuleDict)
