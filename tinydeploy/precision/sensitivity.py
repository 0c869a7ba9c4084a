"""What a network loses when the weights of one layer, or one activation, alone have fewer bits: measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tinydeploy.engine import outputs_of, run, run_all
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array, constant
from tinydeploy.precision.activations import Shared, rounded
from tinydeploy.quantize.error import decibels
from tinydeploy.quantize.recipe import linear_nodes
from tinydeploy.quantize.rules import rule_of
from tinydeploy.quantize.schemes import Linear, Scheme, folded
from tinydeploy.quantize.schemes.base import per_output, unfolded


def layer_sensitivity(
    graph: Graph, inputs: Sequence[Array], bits: Sequence[int]
) -> dict[str, tuple[float, ...]]:
    """By layer with weights, the SQNR of the network's outputs in dB for each number of bits, all else float.

    Args:
        graph: float.
        inputs: one float32 array (samples, *value.shape) per graph input, in real units.
        bits: of linear weights, 2 to 8.
    """
    wanted = run(graph, inputs)
    return {
        node.name: tuple(_sqnr(wanted, run(_with_rounded(graph, node.name, Linear(b)), inputs)) for b in bits)
        for node in linear_nodes(graph)
    }


def activation_sensitivity(
    graph: Graph, inputs: Sequence[Array], shared: Sequence[Shared], bits: Sequence[int]
) -> dict[str, tuple[float, ...]]:
    """Like `layer_sensitivity`, by the name of each activation that is rounded alone.

    Args:
        inputs: as there; all activations of all samples are held at once.
        bits: of its affine integers, 2 to 8.
    """
    wanted = run(graph, inputs)

    def one(s: Shared, b: int) -> float:
        def change(name: str, x: Array) -> Array:
            return rounded(x, s.span, b) if name in s.sources else x

        return _sqnr(wanted, outputs_of(graph, run_all(graph, inputs, change)))

    return {s.name: tuple(one(s, b) for b in bits) for s in shared}


def _with_rounded(graph: Graph, layer: str, scheme: Scheme) -> Graph:
    """The float graph with the weights of one layer as a scheme leaves them."""
    node = next(n for n in graph.nodes if n.name == layer)
    name, axis = str(node.inputs[1]), rule_of(graph, node).weights_axis
    assert axis is not None
    weights = graph.value(name).array
    fitted = scheme.fit(folded(weights, axis))
    rows = fitted.lower(per_output(fitted.scales)[:, 0]).rows * per_output(fitted.scales)
    rounded = constant(name, unfolded(rows, weights.shape, axis).astype(np.float32))
    return replace(graph, values={**graph.values, name: rounded})


def _sqnr(wanted: Sequence[Array], given: Sequence[Array]) -> float:
    signal = sum(float(np.sum(y.astype(np.float64) ** 2)) for y in wanted)
    noise = sum(float(np.sum((a.astype(np.float64) - b) ** 2)) for a, b in zip(wanted, given, strict=True))
    return decibels(signal, noise)
