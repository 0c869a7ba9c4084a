"""Mean and variance of every channel of a network, computed from those of its input: no data behind that.

Outputs of layers with weights are taken for normal, as in M. Nagel et al., "Data-Free Quantization Through
Weight Equalization and Bias Correction" (ICCV 2019), section 4.2.1; what a clamp makes of them is the clipped
normal distribution of their appendix C.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinydeploy import ops
from tinydeploy.ir.graph import Graph, Node
from tinydeploy.ir.types import Array
from tinydeploy.quantize.rules import RULES, fused

_erf = np.vectorize(math.erf, otypes=[np.float64])


@dataclass(frozen=True)
class Moments:
    """By channel, float64 (channels,).

    Attributes:
        mean, variance: over samples and pixels.
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


def channel_moments(graph: Graph, inputs: Sequence[Array]) -> dict[str, Moments]:
    """The moments of each tensor of a float graph that can be known.

    The variance behind a folded batch normalization is the square of its scale; elsewhere the products of a
    sum are taken for independent. Means over pixels keep the mean. Behind other ops nothing is known.

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


def output_means(op: object, weights: Array, means: Array) -> Array:
    """What a layer without bias makes of inputs that are `means` by channel everywhere: (outputs,)."""
    if isinstance(op, ops.DepthwiseConv2D):
        return np.asarray(weights.sum(axis=(0, 1, 2)) * np.repeat(means, weights.shape[3] // len(means)))
    if isinstance(op, ops.FullyConnected):
        return np.asarray(weights @ np.tile(means, weights.shape[1] // len(means)))
    # Each group of outputs reads its own channels.
    groups = means.reshape(-1, weights.shape[3])
    kernels = weights.sum(axis=(1, 2)).reshape(len(groups), -1, weights.shape[3])
    return np.asarray(np.einsum("goc,gc->go", kernels, groups).reshape(-1))


def _linear(graph: Graph, node: Node, x: Moments) -> Moments:
    weights = graph.value(str(node.inputs[1])).array.astype(np.float64)
    mean = output_means(node.op, weights, x.mean)
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        mean = mean + graph.value(node.inputs[2]).array
    scale = graph.norm_scales.get(node.name)
    if scale is not None:
        return Moments(mean, scale.astype(np.float64) ** 2)
    return Moments(mean, output_means(node.op, weights**2, x.variance))


def _passed(graph: Graph, node: Node, given: Sequence[Moments]) -> Moments | None:
    """What a node makes of the moments of its inputs, before its activation."""
    rule = RULES.get(type(node.op))
    if rule is not None and rule.weights_axis is not None:
        return _linear(graph, node, given[0])
    if isinstance(node.op, ops.Reshape):
        # Element i of a flattened tensor is of channel i modulo the channels, as before.
        return given[0]
    if len(given) != len(node.inputs) or graph.value(node.outputs[0]).shape[-1:] != given[0].mean.shape:
        return None
    if isinstance(node.op, ops.Add):
        return Moments(given[0].mean + given[1].mean, given[0].variance + given[1].variance)
    return given[0] if isinstance(node.op, ops.Relu | ops.AveragePool2D | ops.Mean) else None


def _measured(x: Array) -> Moments:
    rows = x.reshape(-1, x.shape[-1]).astype(np.float64)
    return Moments(rows.mean(axis=0), rows.var(axis=0))


def _cumulative(x: Array) -> Array:
    result: Array = 0.5 * (1.0 + _erf(x / math.sqrt(2.0)))
    return result


def _density(x: Array) -> Array:
    result: Array = np.exp(-(x**2) / 2.0) / math.sqrt(2.0 * math.pi)
    return result


def _times(x: Array, density: Array) -> Array:
    """x times its density, 0 at infinity."""
    return np.where(np.isinf(x), 0.0, np.where(np.isinf(x), 0.0, x) * density)
