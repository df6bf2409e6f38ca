"""Rewrites a PT2E-quantized graph so that it computes in INT8 with oneDNN's kernels, without a compiler.

PT2E leaves ``dequantize -> conv/linear in float -> quantize``; only Inductor (which needs a C++ compiler at run time)
would turn that into integer arithmetic. Here each such pattern becomes ``onednn::qconv2d_pointwise`` or
``onednn::qlinear_pointwise`` on uint8 activations and per-channel int8 weights, with ReLU and the next quantize fused
into it. Weights stay plain int8 tensors beside a prepack call, so the file loads with ``torch.export.load`` alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import fx
from torch.fx.passes.shape_prop import ShapeProp

if TYPE_CHECKING:
    from collections.abc import Sequence

_aten: Any = torch.ops.aten
_onednn: Any = torch.ops.onednn
_decomposed: Any = torch.ops.quantized_decomposed

# No fused operation here takes scalars, and torch.export cannot write an empty list of them.
_UNUSED_SCALARS = (0.0,)
_CONV_DEFAULTS: tuple[object, ...] = (None, [1, 1], [0, 0], [1, 1], 1)


@dataclass(frozen=True, slots=True)
class _Activation:
    """A uint8 activation: the node that holds it, its scale and its zero point."""

    node: fx.Node
    scale: float
    zero_point: int


@dataclass(frozen=True, slots=True)
class _Weight:
    """An int8 weight: nodes of its values, its per-channel scales and zero points."""

    values: fx.Node
    scales: fx.Node
    zero_points: fx.Node


@dataclass(frozen=True, slots=True)
class _Tail:
    """A layer and what follows it, in order, as far as one kernel can compute it."""

    post_op: str
    scale: float
    zero_point: int
    dtype: torch.dtype
    nodes: tuple[fx.Node, ...]


def lower_to_onednn(model: fx.GraphModule, sample: torch.Tensor) -> int:
    """Replace quantized convolutions and linear layers in place; return how many now compute in INT8.

    Args:
        model: Graph as PT2E's conversion leaves it.
        sample: A batch of inputs. Its sizes tell oneDNN which weight format to pack for; without them it guesses, and for
            many widths (48, 96...) then repacks the weights slowly at every call. Other sizes still compute rightly.

    Raises:
        ValueError: The graph holds a quantized operation that oneDNN has no kernel for.
    """
    ShapeProp(model).propagate(sample)
    lowered = 0
    for node in list(model.graph.nodes):
        if node.target == _aten.conv2d.default:
            lowered += _lower(model.graph, node, _emit_conv)
        elif node.target == _aten.linear.default:
            lowered += _lower(model.graph, node, _emit_linear)
    for node in list(model.graph.nodes):
        if node.target == _decomposed.quantize_per_tensor.default:
            _spell_out_quantize(model.graph, node)
    model.graph.eliminate_dead_code()
    model.graph.lint()
    model.recompile()
    left = [str(node.target) for node in model.graph.nodes if str(node.target).startswith("quantized_decomposed")]
    if left:
        raise ValueError(f"{left[0]} is left, which only the quantizer's own library can load")
    return lowered


def _lower(graph: fx.Graph, node: fx.Node, emit: Any) -> bool:
    activation = _activation_of(node.args[0])
    weight = _weight_of(node.args[1])
    if activation is None or weight is None:
        return False
    tail = _tail_of(node)
    last = tail.nodes[-1]
    with graph.inserting_before(last):
        replacement = emit(graph, node, activation, weight, tail)
    replacement.meta = dict(last.meta)
    last.replace_all_uses_with(replacement)
    for done in reversed(tail.nodes):  # dead code elimination would spare an in-place ReLU and all before it
        graph.erase_node(done)
    return True


def _activation_of(argument: object) -> _Activation | None:
    if not isinstance(argument, fx.Node) or argument.target != _decomposed.dequantize_per_tensor.default:
        return None
    quantized, scale, zero_point = argument.args[:3]
    return _Activation(cast("fx.Node", quantized), cast("float", scale), cast("int", zero_point))


def _weight_of(argument: object) -> _Weight | None:
    if not isinstance(argument, fx.Node) or argument.target != _decomposed.dequantize_per_channel.default:
        return None
    values, scales, zero_points = argument.args[:3]
    return _Weight(cast("fx.Node", values), cast("fx.Node", scales), cast("fx.Node", zero_points))


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _tail_of(node: fx.Node) -> _Tail:
    nodes, post_op = [node], "none"
    user = _only_user(node)
    if user is not None and user.target in (_aten.relu.default, _aten.relu_.default):
        nodes, post_op = [node, user], "relu"
        user = _only_user(user)
    if user is not None and user.target == _decomposed.quantize_per_tensor.default:
        scale, zero_point = cast("tuple[float, int]", user.args[1:3])
        return _Tail(post_op, scale, zero_point, torch.uint8, (*nodes, user))
    return _Tail(post_op, 1.0, 0, torch.float32, tuple(nodes))


def _emit_conv(graph: fx.Graph, node: fx.Node, x: _Activation, w: _Weight, tail: _Tail) -> fx.Node:
    given = node.args[2:]
    bias, stride, padding, dilation, groups = (*given, *_CONV_DEFAULTS[len(given) :])
    stride, padding, dilation = (_pair(value) for value in (stride, padding, dilation))
    geometry = (stride, padding, dilation, groups)
    unpacked = (w.values, w.scales, x.scale, x.zero_point, *geometry, _sizes_of_one(x.node))
    packed = graph.call_function(_onednn.qconv_prepack.default, cast("Any", unpacked))
    operands = (x.node, x.scale, x.zero_point, packed, w.scales, w.zero_points, bias)
    output = (tail.scale, tail.zero_point, tail.dtype, tail.post_op, list(_UNUSED_SCALARS), "")
    return graph.call_function(_onednn.qconv2d_pointwise.default, cast("Any", (*operands, *geometry, *output)))


def _emit_linear(graph: fx.Graph, node: fx.Node, x: _Activation, w: _Weight, tail: _Tail) -> fx.Node:
    bias = node.args[2] if len(node.args) > 2 else None
    packed = graph.call_function(_onednn.qlinear_prepack.default, (w.values, None))
    operands = (x.node, x.scale, x.zero_point, packed, w.scales, w.zero_points, bias)
    output = (tail.scale, tail.zero_point, tail.dtype, tail.post_op, list(_UNUSED_SCALARS), "")
    return graph.call_function(_onednn.qlinear_pointwise.default, cast("Any", (*operands, *output)))


def _sizes_of_one(node: fx.Node) -> list[int]:
    """Return the sizes of an activation for a batch of one."""
    return [1, *node.meta["tensor_meta"].shape[1:]]


def _pair(value: object) -> list[int]:
    numbers = list(cast("Sequence[int]", value)) if isinstance(value, (list, tuple)) else [cast("int", value)]
    return numbers if len(numbers) == 2 else numbers * 2


def _spell_out_quantize(graph: fx.Graph, node: fx.Node) -> None:
    """Write the quantize as plain ATen operations: ``quantized_decomposed`` would tie the file to the quantizer."""
    source, scale, zero_point, low, high, dtype = cast("tuple[fx.Node, float, int, int, int, torch.dtype]", node.args)
    with graph.inserting_before(node):
        value = graph.call_function(_aten.mul.Tensor, (source, 1.0 / scale))
        value = graph.call_function(_aten.round.default, (value,))
        if zero_point:
            value = graph.call_function(_aten.add.Tensor, (value, zero_point))
        value = graph.call_function(_aten.clamp.default, (value, low, high))
        value = graph.call_function(_aten._to_copy.default, (value,), {"dtype": dtype})  # noqa: SLF001
    node.replace_all_uses_with(value)
    graph.erase_node(node)
