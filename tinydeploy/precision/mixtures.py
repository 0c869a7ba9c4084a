"""Candidates for bits by layer: the same everywhere, by noise gains, and by what each layer's noise costs."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array
from tinydeploy.precision.allocate import allocate, offsets
from tinydeploy.precision.gains import noise_gains
from tinydeploy.precision.hessian import hessian_traces
from tinydeploy.precision.sensitivity import layer_sensitivity
from tinydeploy.quantize.recipe import LayerRule, Recipe, Treatment, linear_nodes
from tinydeploy.quantize.rules import rule_of
from tinydeploy.quantize.schemes import Linear, folded
from tinydeploy.quantize.schemes.base import per_output

LEAST, MOST = 2, 8
BITS = tuple(range(LEAST, MOST + 1))
_SAMPLES = 32
_KEPT = 6
"""Mixtures of a path that are tried, from all bits to the fewest."""

Noise = Mapping[str, Sequence[float]]
"""By layer, what the weights at each of BITS cost, in any unit that adds up."""


@dataclass(frozen=True)
class Mixture:
    """Linear weights of so many bits by layer; activations have eight.

    Attributes:
        source: what chose it.
        bits: by layer with weights.
    """

    source: str
    bits: Mapping[str, int]

    @property
    def recipe(self) -> Recipe:
        rules = tuple(LayerRule(glob.escape(n), Treatment(Linear(b))) for n, b in self.bits.items())
        return Recipe(rules, where="--bits auto")

    def mean_bits(self, sizes: Mapping[str, int]) -> float:
        """Of a weight."""
        return sum(self.bits[n] * sizes[n] for n in sizes) / max(sum(sizes.values()), 1)


def candidates(graph: Graph, inputs: Sequence[Array], labels: Array | None) -> tuple[Mixture, ...]:
    """Every mixture worth measuring; none twice.

    Args:
        graph: float, with one input.
        inputs: samples of it; the first 32 give gradients and noise.
        labels: for the Hessian, or None.

    Raises:
        DeployError: the network decides nothing, or data do not fit.
        MissingExtraError: PyTorch is not installed.
    """
    few = [x[:_SAMPLES] for x in inputs]
    sizes = weights_of(graph)
    found = [Mixture("uniform", dict.fromkeys(sizes, b)) for b in reversed(BITS)]
    gains = {g.name: g.weights for g in noise_gains(graph, few)}
    for base in range(MOST, LEAST - max(offsets(gains).values(), default=0) - 1, -1):
        found.append(Mixture("noise gain", allocate(gains, base, least=LEAST, most=MOST).bits))
    measured = {
        name: [10.0 ** (-decibel / 10.0) for decibel in row]
        for name, row in layer_sensitivity(graph, few, BITS).items()
    }
    found += spread("sensitivity", path(measured, sizes), sizes)
    if labels is not None:
        traces = hessian_traces(graph, few[0], labels[:_SAMPLES])
        found += spread("Hessian", path(perturbations(graph, traces), sizes), sizes)
    distinct: dict[tuple[tuple[str, int], ...], Mixture] = {}
    for mixture in found:
        distinct.setdefault(tuple(sorted(mixture.bits.items())), mixture)
    return tuple(distinct.values())


def weights_of(graph: Graph) -> dict[str, int]:
    """The number of weights of each layer that has some."""
    return {n.name: graph.value(str(n.inputs[1])).elements for n in linear_nodes(graph)}


def path(noise: Noise, sizes: Mapping[str, int]) -> list[dict[str, int]]:
    """From all layers at eight bits to all at two: each step takes a bit where a saved bit costs least."""
    bits = dict.fromkeys(sizes, MOST)
    steps = [dict(bits)]
    while any(b > LEAST for b in bits.values()):

        def cost(name: str) -> float:
            place = bits[name] - LEAST
            return (noise[name][place - 1] - noise[name][place]) / sizes[name]

        cheapest = min((n for n in bits if bits[n] > LEAST), key=cost)
        bits[cheapest] -= 1
        steps.append(dict(bits))
    return steps


def spread(source: str, steps: Sequence[Mapping[str, int]], sizes: Mapping[str, int]) -> list[Mixture]:
    """Some of a path, about as far from each other in weight bits."""
    made = [Mixture(source, step) for step in steps]
    means = np.array([m.mean_bits(sizes) for m in made])
    wanted = np.linspace(means[0], means[-1], _KEPT + 2)[1:-1]
    return [made[int(np.abs(means - w).argmin())] for w in wanted]


def perturbations(graph: Graph, traces: Mapping[str, float]) -> dict[str, list[float]]:
    """`trace_i |Q(W_i) - W_i|^2` for each of BITS; traces are means over a layer's weights.

    Source: Z. Dong et al., "HAWQ-V2: Hessian Aware trace-Weighted Quantization of Neural Networks" (NeurIPS
    2020), section 3.2. A negative estimate counts as 0.
    """
    found = {}
    for node in linear_nodes(graph):
        axis = rule_of(graph, node).weights_axis
        assert axis is not None
        rows = folded(graph.value(str(node.inputs[1])).array, axis)
        errors = []
        for bits in BITS:
            fitted = Linear(bits).fit(rows)
            scales = per_output(fitted.scales)
            errors.append(float(((fitted.lower(scales[:, 0]).rows * scales - rows) ** 2).sum()))
        found[node.name] = [max(traces[node.name], 0.0) * e for e in errors]
    return found
