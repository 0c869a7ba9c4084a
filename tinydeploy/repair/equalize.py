"""Cross-layer equalization: channels of one tensor brought to like ranges without changing the function.

A channel between two linear layers may be divided by any positive number where it is written and multiplied
by it where it is read, as long as what lies between commutes with that: RELU, pooling, padding with zero.

Source: M. Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (ICCV 2019),
section 4.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from tinydeploy import ops
from tinydeploy.ir.graph import Graph, Node
from tinydeploy.ir.types import Array, constant
from tinydeploy.ops import Activation
from tinydeploy.passes.rewrite import reads
from tinydeploy.quantize.rules import RULES, fused
from tinydeploy.quantize.scales import Range

_ROUNDS = 100
_SETTLED = 1e-3
_LARGEST = 2.0**10
"""No channel is scaled by more at once: its weights are noise then, and its bias would outgrow int32."""

_POOLS = (ops.MaxPool2D, ops.AveragePool2D)


@dataclass(frozen=True)
class Pair:
    """Two linear layers with nothing between them but what commutes with a positive scale per channel.

    Attributes:
        channels: of the output of `first`; element i of what `second` reads is of channel i modulo these.
    """

    first: Node
    second: Node
    channels: int


def equalize(graph: Graph, ranges: Mapping[str, Range] | None = None) -> Graph:
    """The same function with the weights of neighbouring layers at like ranges, channel by channel.

    For a pair with the largest |weights| r1 of a channel where it is written and r2 where it is read, the
    channel is divided by `sqrt(r1 / r2)`; pairs are visited until nothing moves, since they overlap.

    A clamp at 6 or 1 does not commute with a scale. Where `ranges` show that a tensor never reaches the
    clamp, RELU6 becomes RELU and the pair counts; all others are left alone.

    Args:
        graph: float.
        ranges: of the float activations, as `calibrate` gives them.
    """
    graph = _without_idle_clamps(graph, ranges or {})
    weights = {v.name: v.array.astype(np.float64) for v in graph.constants() if v.dtype.is_float}
    found = list(pairs(graph))
    total = {pair.first.name: np.ones(pair.channels) for pair in found}
    for _ in range(_ROUNDS):
        moved = 0.0
        for pair in found:
            scale = _scale(pair, weights)
            _apply(pair, scale, weights)
            total[pair.first.name] *= scale
            moved = max(moved, float(np.abs(np.log(scale)).max()))
        if moved < _SETTLED:
            break
    changed = {str(n) for pair in found for n in (*pair.first.inputs[1:], *pair.second.inputs[1:]) if n}
    values = {
        name: constant(name, weights[name].astype(np.float32)) if name in changed else value
        for name, value in graph.values.items()
    }
    norms = {n: s / total[n].astype(s.dtype) if n in total else s for n, s in graph.norm_scales.items()}
    return replace(graph, values=values, norm_scales=norms)


def pairs(graph: Graph) -> Iterator[Pair]:
    """The pairs that can be equalized, in execution order.

    Every tensor between them has one reader, and no other layer shares their weights.
    """
    count = reads(graph)
    reader = {str(n): node for node in graph.nodes for n in node.inputs[:1]}
    for node in graph.nodes:
        if _axis(node) is None or not _homogeneous(fused(node.op)) or not _own_weights(node, count):
            continue
        channels = graph.value(node.outputs[0]).shape[-1]
        name = node.outputs[0]
        while count[name] == 1 and name in reader:
            second = reader[name]
            if _axis(second) is not None:
                if _own_weights(second, count) and _fits(graph, second, channels):
                    yield Pair(node, second, channels)
                break
            if not _commutes(graph, second, channels):
                break
            name = second.outputs[0]


def _axis(node: Node) -> int | None:
    rule = RULES.get(type(node.op))
    return None if rule is None else rule.weights_axis


def _own_weights(node: Node, count: Mapping[str, int]) -> bool:
    return all(count[n] == 1 for n in node.inputs[1:] if n is not None)


def _homogeneous(activation: Activation) -> bool:
    """Whether f(s x) = s f(x) for every s > 0."""
    return activation in (Activation.NONE, Activation.RELU)


def _commutes(graph: Graph, node: Node, channels: int) -> bool:
    """Whether a node without weights keeps channels apart and passes positive scales."""
    kept = graph.value(node.outputs[0]).shape[-1:] == (channels,)
    if isinstance(node.op, ops.Reshape):
        return True
    if isinstance(node.op, ops.Mean):
        last = len(graph.value(str(node.inputs[0])).shape) - 1
        return last not in node.op.axes and kept
    if isinstance(node.op, ops.Pad):
        return not node.op.value and kept
    return isinstance(node.op, ops.Relu | _POOLS[0] | _POOLS[1]) and _homogeneous(fused(node.op)) and kept


def _fits(graph: Graph, second: Node, channels: int) -> bool:
    """Whether the second layer finds the channels at their places, after reshapes."""
    if isinstance(second.op, ops.FullyConnected):
        return graph.value(str(second.inputs[1])).shape[1] % channels == 0
    return graph.value(str(second.inputs[0])).shape[-1] == channels


def _reading(pair: Pair, weights: Array) -> Array:
    """The second layer's weights with the channel that they read in front: (channels, rest)."""
    if isinstance(pair.second.op, ops.DepthwiseConv2D):
        return np.moveaxis(weights, 3, 0).reshape(pair.channels, -1)
    if isinstance(pair.second.op, ops.FullyConnected):
        return np.moveaxis(weights.reshape(len(weights), -1, pair.channels), 2, 0).reshape(pair.channels, -1)
    each = weights.shape[3]
    groups = weights.reshape(pair.channels // each, -1, *weights.shape[1:])
    return np.moveaxis(groups, 4, 1).reshape(pair.channels, -1)


def _scale(pair: Pair, weights: Mapping[str, Array]) -> Array:
    """What each channel is divided by; 1 where one of both layers has nothing for it."""
    first = np.moveaxis(weights[str(pair.first.inputs[1])], _axis(pair.first) or 0, 0)
    written = np.abs(first.reshape(pair.channels, -1)).max(axis=1)
    read = np.abs(_reading(pair, weights[str(pair.second.inputs[1])])).max(axis=1)
    known = (written > 0) & (read > 0)
    ratio = np.where(known, written, 1.0) / np.where(known, read, 1.0)
    scale: Array = np.clip(np.sqrt(ratio), 1.0 / _LARGEST, _LARGEST)
    return scale


def _apply(pair: Pair, scale: Array, weights: dict[str, Array]) -> None:
    """Divides where the channels are written and multiplies where they are read."""
    axis = _axis(pair.first) or 0
    name = str(pair.first.inputs[1])
    weights[name] = np.moveaxis(np.moveaxis(weights[name], axis, -1) / scale, -1, axis)
    for bias in pair.first.inputs[2:]:
        if bias is not None:
            weights[bias] = weights[bias] / scale
    name = str(pair.second.inputs[1])
    w = weights[name]
    if isinstance(pair.second.op, ops.DepthwiseConv2D):
        weights[name] = w * np.repeat(scale, w.shape[3] // pair.channels)
    elif isinstance(pair.second.op, ops.FullyConnected):
        weights[name] = w * np.tile(scale, w.shape[1] // pair.channels)
    else:
        groups = scale.reshape(-1, 1, 1, 1, w.shape[3])
        weights[name] = (w.reshape(len(groups), -1, *w.shape[1:]) * groups).reshape(w.shape)


def _without_idle_clamps(graph: Graph, ranges: Mapping[str, Range]) -> Graph:
    """RELU6 as RELU where no calibrated activation reaches 6."""
    nodes = []
    for node in graph.nodes:
        found = ranges.get(node.outputs[0])
        if fused(node.op) is Activation.RELU6 and found is not None and found.high < 6.0:
            op = cast(ops.Conv2D, node.op)
            nodes.append(replace(node, op=replace(op, activation=Activation.RELU)))
        else:
            nodes.append(node)
    return replace(graph, nodes=tuple(nodes))
