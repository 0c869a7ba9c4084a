"""Mean and variance of every activation of a network, computed from those of its input: no data behind that.

Outputs of layers with weights are taken for normal, as in M. Nagel et al., "Data-Free Quantization Through
Weight Equalization and Bias Correction" (ICCV 2019), section 4.2.1; what a clamp makes of them is the clipped
normal distribution of their appendix C.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from tinydeploy import ops
from tinydeploy.ir.graph import Graph, Node
from tinydeploy.ir.op import Site
from tinydeploy.ir.types import Array
from tinydeploy.ir.verify import site_of
from tinydeploy.ops import Activation
from tinydeploy.quantize.rules import RULES, fused

_erf = np.vectorize(math.erf, otypes=[np.float64])


@dataclass(frozen=True)
class Moments:
    """Of each element of a tensor, float64, of the tensor's shape.

    Attributes:
        mean, variance: over samples.
    """

    mean: Array
    variance: Array


def clipped_normal(moments: Moments, low: float | None, high: float | None) -> Moments:
    """Mean and variance of `clip(x, low, high)` for normal x; an open end is None."""
    deviation = np.sqrt(np.maximum(moments.variance, 1e-30))
    a = np.full_like(deviation, -np.inf) if low is None else (low - moments.mean) / deviation
    b = np.full_like(deviation, np.inf) if high is None else (high - moments.mean) / deviation
    below, above = _cumulative(a), 1.0 - _cumulative(b)
    inside = 1.0 - below - above
    at_a, at_b = _density(a), _density(b)
    first = inside * moments.mean + deviation * (at_a - at_b)
    second = (
        inside * (moments.mean**2 + moments.variance)
        + 2.0 * moments.mean * deviation * (at_a - at_b)
        + moments.variance * (_times(a, at_a) - _times(b, at_b))
    )
    ends = [(end, mass) for end, mass in ((low, below), (high, above)) if end is not None]
    mean = first + sum(end * mass for end, mass in ends)
    power = second + sum(end**2 * mass for end, mass in ends)
    return Moments(mean, np.maximum(power - mean**2, 0.0))


def activation_moments(graph: Graph, inputs: Sequence[Array]) -> dict[str, Moments]:
    """The moments of each tensor of a float graph that can be known.

    The products of a sum are taken for independent; behind a folded batch normalization the variance over
    pixels and samples is the square of its scale. Means over pixels and padding pass both moments on. Behind
    other ops nothing is known.

    Args:
        inputs: one float32 array (samples, *value.shape) per graph input; only their moments are used.
    """
    found = {name: _measured(x) for name, x in zip(graph.inputs, inputs, strict=True)}
    for node in graph.nodes:
        flowing = [n for n in node.inputs if n is not None and not graph.value(n).is_constant]
        known = [found[n] for n in flowing if n in found]
        result = _passed(graph, node, known) if known and len(known) == len(flowing) else None
        if result is not None:
            found[node.outputs[0]] = clipped_normal(result, *fused(node.op).range)
    return found


def _linear(graph: Graph, node: Node, x: Moments) -> Moments:
    weights = graph.value(str(node.inputs[1])).array.astype(np.float64)
    mean = _sums(graph, node, x.mean, weights)
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        mean = mean + graph.value(node.inputs[2]).array
    variance = _sums(graph, node, x.variance, weights**2)
    scale = graph.norm_scales.get(node.name)
    if scale is not None:
        channels = mean.reshape(-1, mean.shape[-1])
        # What the means differ by from pixel to pixel is part of it.
        left = np.maximum(scale.astype(np.float64) ** 2 - channels.var(axis=0), 0.0)
        variance = np.broadcast_to(left, mean.shape)
    return Moments(mean, variance)


def _sums(graph: Graph, node: Node, x: Array, weights: Array) -> Array:
    """The dot products of a layer for one input, without bias and activation."""
    op = replace(cast(ops.Conv2D, node.op), activation=Activation.NONE)
    inputs = graph.value(str(node.inputs[0])), replace(graph.value(str(node.inputs[1])), data=weights)
    site = Site(inputs, graph.node_outputs(node))
    sums: Array = op.run_float(site, [x[np.newaxis], weights[np.newaxis]])[0]
    return sums.astype(np.float64)


def _passed(graph: Graph, node: Node, given: Sequence[Moments]) -> Moments | None:
    """What a node makes of the moments of its inputs, before its activation."""
    rule = RULES.get(type(node.op))
    x = given[0]
    if rule is not None and rule.weights_axis is not None:
        return _linear(graph, node, x)
    if len(given) != len(node.inputs):
        return None
    if isinstance(node.op, ops.Add):
        return Moments(x.mean + given[1].mean, x.variance + given[1].variance)
    if isinstance(node.op, ops.Relu):
        return x
    zero = isinstance(node.op, ops.Pad) and not node.op.value
    if not zero and not isinstance(node.op, ops.Reshape | ops.AveragePool2D | ops.Mean):
        return None
    site = site_of(graph, node)
    mean, variance = (node.op.run_float(site, [m[np.newaxis]])[0] for m in (x.mean, x.variance))
    return Moments(mean.astype(np.float64), variance.astype(np.float64))


def _measured(x: Array) -> Moments:
    return Moments(x.mean(axis=0, dtype=np.float64), x.var(axis=0, dtype=np.float64))


def _cumulative(x: Array) -> Array:
    result: Array = 0.5 * (1.0 + _erf(x / math.sqrt(2.0)))
    return result


def _density(x: Array) -> Array:
    result: Array = np.exp(-(x**2) / 2.0) / math.sqrt(2.0 * math.pi)
    return result


def _times(x: Array, density: Array) -> Array:
    """x times its density, 0 at infinity."""
    return np.where(np.isinf(x), 0.0, np.where(np.isinf(x), 0.0, x) * density)
