"""Tensor parallel for the Llama family: matrices cut over ranks (Shoeybi et al., 2019), with sequence parallel on top.

Queries, keys, values, gate and up are cut by columns, the matrices after them by rows; the embedding and the output layer
by vocabulary. With sequence parallel (Korthikanti et al., 2022) norms and residual stream are cut along the sequence.
Every parameter becomes a DTensor, those that are not cut too, so that optimizers see one kind. Importing imports torch.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_module
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

from core.contracts.errors import UserError
from core.train.parallel.decoder import DecoderLM

_HEADS_DIMENSION = 2


class Copied(ParallelStyle):
    """Weights that every tensor rank has whole, of a module whose inputs are whole too."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        def enter(_: nn.Module, inputs: tuple[Any, ...], mesh: DeviceMesh) -> tuple[Any, ...]:
            return tuple(
                DTensor.from_local(value, mesh, [Replicate()], run_check=False)
                if isinstance(value, torch.Tensor) and not isinstance(value, DTensor)
                else value
                for value in inputs
            )

        def leave(_: nn.Module, output: Any, mesh: DeviceMesh) -> Any:
            del mesh
            return output.to_local() if isinstance(output, DTensor) else output

        return distribute_module(module, device_mesh, None, cast("Any", enter), leave)


def cut_matrices(part: DecoderLM, mesh: DeviceMesh, *, sequence: bool) -> None:
    """Lay the matrices of a model or stage out over the tensor ranks, in place.

    Args:
        part: The model.
        mesh: One dimension, the tensor ranks.
        sequence: Cut norms and residual stream along the sequence; its length must be a multiple of the ranks then.

    Raises:
        UserError: A layer is not plain, such as one with adapters or 4-bit weights.
    """
    _refuse_other_layers(part)
    between = Shard(1) if sequence else Replicate()
    for name, module in part.model.named_children():
        # In a V-shaped pipeline the first and the last stage of a rank have the same tied embedding.
        if name == "embed_tokens" and not isinstance(module.weight, DTensor):
            style = RowwiseParallel(input_layouts=Replicate(), output_layouts=between)
            parallelize_module(module, mesh, style)
        elif name == "norm":
            parallelize_module(module, mesh, SequenceParallel() if sequence else Copied())
    for _, layer in part.layers():
        parallelize_module(layer, mesh, _layer_plan(layer, sequence=sequence))
    if part.lm_head is not None:
        style = ColwiseParallel(input_layouts=between, output_layouts=Replicate())
        parallelize_module(part.lm_head, mesh, style)
    if part.is_tied and part.is_last:
        body: Any = part.model
        head: Any = part.lm_head
        head.weight = body.embed_tokens.weight


def _layer_plan(layer: nn.Module, *, sequence: bool) -> dict[str, ParallelStyle]:
    between = Shard(1) if sequence else Replicate()
    norm: ParallelStyle = SequenceParallel() if sequence else Copied()
    plan: dict[str, ParallelStyle] = {
        "input_layernorm": norm,
        "post_attention_layernorm": norm,
        "self_attn": PrepareModuleInput(
            input_kwarg_layouts={"hidden_states": between}, desired_input_kwarg_layouts={"hidden_states": Replicate()}
        ),
        "self_attn.q_proj": ColwiseParallel(),
        "self_attn.k_proj": ColwiseParallel(),
        "self_attn.v_proj": ColwiseParallel(),
        "self_attn.o_proj": RowwiseParallel(output_layouts=between),
        "mlp": PrepareModuleInput(input_layouts=(between,), desired_input_layouts=(Replicate(),)),
        "mlp.gate_proj": ColwiseParallel(),
        "mlp.up_proj": ColwiseParallel(),
        "mlp.down_proj": RowwiseParallel(output_layouts=between),
    }
    attention: Any = layer.self_attn
    for name in ("q_norm", "k_norm"):
        if hasattr(attention, name):
            # Their weights are of one head's width, and each rank has some of the heads: cut along the heads.
            plan[f"self_attn.{name}"] = SequenceParallel(sequence_dim=_HEADS_DIMENSION, use_local_output=True)
    return plan


def _refuse_other_layers(part: DecoderLM) -> None:
    for name, module in part.named_modules():
        if name.endswith("_proj") and type(module) is not nn.Linear:
            raise UserError(
                f"Tensor parallel cannot cut {name}, a {type(module).__name__}.",
                "Train with tensor parallel 1, or without adapters and 4-bit weights.",
            )
