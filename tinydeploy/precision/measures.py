"""What is known of the noise of every tensor whose bits are searched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tinydeploy.engine import run_all
from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array
from tinydeploy.precision.activations import Shared, rounded, shared_activations
from tinydeploy.precision.gains import tensor_gains
from tinydeploy.precision.hessian import activation_traces, hessian_traces
from tinydeploy.precision.sensitivity import activation_sensitivity, layer_sensitivity
from tinydeploy.quantize.calibrate import calibrate
from tinydeploy.quantize.recipe import linear_nodes
from tinydeploy.quantize.rules import rule_of
from tinydeploy.quantize.schemes import Linear, folded
from tinydeploy.quantize.schemes.base import per_output

LEAST, MOST = 2, 8
BITS = tuple(range(LEAST, MOST + 1))
SAMPLES = 32
"""That give gradients and noise."""

Noise = Mapping[str, Sequence[float]]
"""By tensor, what it costs at each of BITS, in any unit that adds up."""


@dataclass(frozen=True)
class Wanted:
    """Which bits are searched.

    Attributes:
        weights, activations: the bits of all of them; None searches.
    """

    weights: int | None = None
    activations: int | None = MOST


@dataclass(frozen=True)
class Measures:
    """Of a float network; tensors are named by `weights_key` and `activations_key`.

    Attributes:
        layers: those with weights.
        shared: the activations whose bits can be chosen.
        sizes: elements of each tensor whose bits are searched.
        gains: its noise gain.
        noise: by source, `sensitivity` and with labels `Hessian`, its noise.
    """

    wanted: Wanted
    layers: tuple[str, ...]
    shared: tuple[Shared, ...]
    sizes: Mapping[str, int]
    gains: Mapping[str, float]
    noise: Mapping[str, Noise]


def weights_key(layer: str) -> str:
    return f"weights:{layer}"


def activations_key(tensor: str) -> str:
    return f"activations:{tensor}"


def measure(graph: Graph, inputs: Sequence[Array], labels: Array | None, wanted: Wanted) -> Measures:
    """Everything that the search goes by.

    Args:
        graph: float, with one input.
        inputs: samples of it; the first 32 are taken.
        labels: for the Hessian, or None.

    Raises:
        DeployError: the network decides nothing, has no activation whose bits could be searched, or data do
            not fit.
        MissingExtraError: PyTorch is not installed.
    """
    few = [x[:SAMPLES] for x in inputs]
    layers = tuple(n.name for n in linear_nodes(graph))
    shared = shared_activations(graph, calibrate(graph, few))
    if wanted.weights is not None and wanted.activations is None and not shared:
        raise DeployError(
            "no activation lies between two layers, so there are no bits to search",
            where=graph.source or graph.name,
        )
    weights = wanted.weights is None
    searched = shared if wanted.activations is None else ()
    of_weights, of_activations = tensor_gains(
        graph, few, {name: s.half for s in searched for name in s.sources}
    )
    gains = {activations_key(s.name): sum(of_activations[n] for n in s.sources) for s in searched}
    sizes = {activations_key(s.name): s.elements for s in searched}
    if weights:
        gains |= {weights_key(name): of_weights[name] for name in layers}
        sizes |= {weights_key(name): count for name, count in weights_of(graph).items()}
    noise = {"sensitivity": _sensitivity(graph, few, searched, weights=weights)}
    if labels is not None:
        noise["Hessian"] = _hessian(graph, few, labels[:SAMPLES], searched, weights=weights)
    return Measures(wanted, layers, shared, sizes, gains, noise)


def weights_of(graph: Graph) -> dict[str, int]:
    """The number of weights of each layer that has some."""
    return {n.name: graph.value(str(n.inputs[1])).elements for n in linear_nodes(graph)}


def _sensitivity(
    graph: Graph, inputs: Sequence[Array], searched: Sequence[Shared], *, weights: bool
) -> dict[str, list[float]]:
    """The power of the noise at the outputs over that of the outputs."""
    found = {
        activations_key(name): row
        for name, row in activation_sensitivity(graph, inputs, searched, BITS).items()
    }
    if weights:
        found |= {weights_key(name): row for name, row in layer_sensitivity(graph, inputs, BITS).items()}
    return {key: [10.0 ** (-decibel / 10.0) for decibel in row] for key, row in found.items()}


def _hessian(
    graph: Graph, inputs: Sequence[Array], labels: Array, searched: Sequence[Shared], *, weights: bool
) -> dict[str, list[float]]:
    """`trace_i |Q(x_i) - x_i|^2`; traces are means over a tensor's elements.

    Source: Z. Dong et al., "HAWQ-V2: Hessian Aware trace-Weighted Quantization of Neural Networks" (NeurIPS
    2020), sections 3.2 and 3.3. A negative estimate counts as 0.
    """
    found: dict[str, list[float]] = {}
    if searched:
        names = [name for s in searched for name in s.sources]
        traces = activation_traces(graph, inputs[0], labels, names)
        values = run_all(graph, inputs)

        def noise(s: Shared, bits: int) -> float:
            squares = [(traces[n], _squares(rounded(values[n], s.span, bits) - values[n])) for n in s.sources]
            return sum(max(trace, 0.0) * square for trace, square in squares) / len(inputs[0])

        found |= {activations_key(s.name): [noise(s, b) for b in BITS] for s in searched}
    if weights:
        traces = hessian_traces(graph, inputs[0], labels)
        found |= {weights_key(name): row for name, row in perturbations(graph, traces).items()}
    return found


def perturbations(graph: Graph, traces: Mapping[str, float]) -> dict[str, list[float]]:
    """By layer, `trace_i |Q(W_i) - W_i|^2` for each of BITS."""
    found = {}
    for node in linear_nodes(graph):
        axis = rule_of(graph, node).weights_axis
        assert axis is not None
        rows = folded(graph.value(str(node.inputs[1])).array, axis)
        errors = []
        for bits in BITS:
            fitted = Linear(bits).fit(rows)
            scales = per_output(fitted.scales)
            errors.append(_squares(fitted.lower(scales[:, 0]).rows * scales - rows))
        found[node.name] = [max(traces[node.name], 0.0) * e for e in errors]
    return found


def _squares(x: Array) -> float:
    return float(np.sum(x.astype(np.float64) ** 2))
