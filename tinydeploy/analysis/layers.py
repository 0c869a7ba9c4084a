"""A graph as the dot products that it computes."""

from __future__ import annotations

from dataclasses import dataclass

from tinydeploy import ops
from tinydeploy.analysis.bits import Precision, bits_of
from tinydeploy.ir.graph import Graph, Node
from tinydeploy.ir.verify import node_macs

LINEAR = (ops.Conv2D, ops.DepthwiseConv2D, ops.FullyConnected)

OUTPUT_AXIS = {ops.Conv2D: 0, ops.DepthwiseConv2D: 3, ops.FullyConnected: 0}
"""The axis of the weights that counts output channels."""


@dataclass(frozen=True)
class LinearLayer:
    """A layer with weights: `dots` dot products of `length` products each.

    Attributes:
        node: the operator where it stands.
        weights, inputs: elements of its weights (biases left out), and of the activation that it reads.
        weight_bits, input_bits: of one element.
    """

    node: Node
    length: int
    dots: int
    weights: int
    inputs: int
    weight_bits: int
    input_bits: int


def is_linear(node: Node) -> bool:
    return isinstance(node.op, LINEAR)


def linear_layers(graph: Graph, assumed: Precision) -> tuple[LinearLayer, ...]:
    """The layers with weights in execution order; projections beside a residual are among them.

    Args:
        assumed: the bits of what is float.
    """
    layers = []
    for node in graph.nodes:
        if not is_linear(node):
            continue
        x, weights = graph.value(str(node.inputs[0])), graph.value(str(node.inputs[1]))
        dots = graph.value(node.outputs[0]).elements
        layers.append(
            LinearLayer(
                node,
                node_macs(graph, node) // dots,
                dots,
                weights.elements,
                x.elements,
                bits_of(graph, node, 1, assumed),
                bits_of(graph, node, 0, assumed),
            )
        )
    return tuple(layers)
