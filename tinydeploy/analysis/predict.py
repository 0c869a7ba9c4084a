"""The noise of every tensor as formulas predict it, from steps and powers alone, layer after layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import cast

import numpy as np

from tinydeploy import ops
from tinydeploy.analysis.layers import is_linear
from tinydeploy.analysis.statistics import Statistics
from tinydeploy.ir.graph import Graph, Node
from tinydeploy.ir.op import Op
from tinydeploy.ir.types import Array
from tinydeploy.ir.verify import node_macs
from tinydeploy.quantize.rules import RULES, Tie

WeightNoise = Mapping[str, tuple[float, float]]
"""By layer: the mean square of its weights, and the power of their noise."""


@dataclass(frozen=True)
class Noise:
    """Powers of a tensor's noise by what a mean over pixels makes of it.

    Attributes:
        varying: another at each pixel: a mean of k divides it by k.
        steady: the same at each pixel, as far as wrong weights meet what is the same at each pixel of their
            input; a mean leaves it as it is.
    """

    varying: float
    steady: float

    @property
    def total(self) -> float:
        return self.varying + self.steady

    def times(self, factor: float) -> Noise:
        return Noise(self.varying * factor, self.steady * factor)

    def plus(self, other: Noise) -> Noise:
        return Noise(self.varying + other.varying, self.steady + other.steady)


_NONE = Noise(0.0, 0.0)


def predicted_noise(
    graph: Graph, steps: Mapping[str, float], measured: Mapping[str, Statistics], weights: WeightNoise
) -> dict[str, float]:
    """The power of each tensor's noise, its own rounding and all that the layers before it pass on.

    A rounding adds `step^2 / 12`; a dot product of D products adds `D (w^2 n_x + x^2 n_w)`, n being noise
    powers and w^2, x^2 mean squares (to first order, for noises independent of each other and of the
    signals); ADD adds both noises, and a clamp lets through the share of elements that lie inside it. An op
    whose output has a quantization or levels of its own, such as SOFTMAX and STAIRCASE, is no sum of its
    inputs: neither its output nor what follows is predicted.

    Args:
        steps: of each tensor's grid.
        measured: of the same tensors; only powers of the float signal are used.
    """
    noise = {name: Noise(steps[name] ** 2 / 12, 0.0) for name in graph.inputs if name in steps}
    for node in graph.nodes:
        name = node.outputs[0]
        passed = _passed(graph, node, noise, measured, weights)
        if passed is None or name not in steps:
            continue
        own = 0.0 if _copies(node) else steps[name] ** 2 / 12
        noise[name] = passed.plus(Noise(own, 0.0)).times(measured[name].passing)
    return {name: n.total for name, n in noise.items()}


def _copies(node: Node) -> bool:
    rule = RULES.get(type(node.op))
    tied = rule is not None and rule.tie in (Tie.COPY, Tie.CLAMP)
    return tied and not isinstance(node.op, ops.AveragePool2D)


@dataclass(frozen=True)
class _Inputs:
    """Of the inputs of a node: noises, mean squares, elements; and the elements of the output."""

    noise: tuple[Noise, ...]
    powers: tuple[float, ...]
    elements: tuple[int, ...]
    output: int


def _sum(node: Node, x: _Inputs) -> Noise:
    del node
    return reduce(Noise.plus, x.noise)


def _mixed(node: Node, x: _Inputs) -> Noise:
    """Elements move or stay: the mean over all of them."""
    del node
    weighted = [n.times(e / sum(x.elements)) for n, e in zip(x.noise, x.elements, strict=True)]
    return reduce(Noise.plus, weighted)


def _product(node: Node, x: _Inputs) -> Noise:
    """`n_a b^2 + a^2 n_b`; a constant has a power and no noise."""
    del node
    return x.noise[0].times(x.powers[1]).plus(x.noise[1].times(x.powers[0]))


def _mean(node: Node, x: _Inputs) -> Noise:
    del node
    return Noise(x.noise[0].varying * x.output / x.elements[0], x.noise[0].steady)


def _window_mean(node: Node, x: _Inputs) -> Noise:
    kernel = cast(ops.AveragePool2D, node.op).kernel
    return Noise(x.noise[0].varying / math.prod(kernel), x.noise[0].steady)


_OPS: Mapping[type[Op], Callable[[Node, _Inputs], Noise]] = {
    ops.Add: _sum,
    ops.AveragePool2D: _window_mean,
    ops.Mean: _mean,
    ops.Mul: _product,
}


def _passed(
    graph: Graph,
    node: Node,
    noise: Mapping[str, Noise],
    measured: Mapping[str, Statistics],
    weights: WeightNoise,
) -> Noise | None:
    """What a node makes of the noise of its inputs; None where that is not known."""
    flowing = [str(n) for n in node.inputs if n is not None and not graph.value(n).is_constant]
    rule = RULES.get(type(node.op))
    if (
        not flowing
        or any(n not in noise for n in flowing)
        or rule is None
        or rule.output(node.op) is not None
        or rule.span(node.op) is not None
    ):
        return None
    if is_linear(node):
        length = node_macs(graph, node) // graph.value(node.outputs[0]).elements
        power, of_weights = weights[node.name]
        x = measured[flowing[0]]
        added = Noise(x.signal - x.steady, x.steady).times(length * of_weights)
        return noise[flowing[0]].times(length * power).plus(added)
    values = [graph.value(str(n)) for n in node.inputs]
    inputs = _Inputs(
        tuple(noise.get(v.name, _NONE) for v in values),
        tuple(measured[v.name].signal if v.data is None else _power(v.data) for v in values),
        tuple(v.elements for v in values),
        graph.value(node.outputs[0]).elements,
    )
    return _OPS.get(type(node.op), _mixed)(node, inputs)


def _power(x: Array) -> float:
    return float(np.mean(x.astype(np.float64) ** 2))
