"""How many bits a tensor's elements take: the one place that knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tinydeploy.ir.graph import Graph, Node
from tinydeploy.ir.types import Value


def weight_bits(value: Value) -> int:
    """Bits of one element as it is stored, from its element type."""
    return value.dtype.bytes * 8


@dataclass(frozen=True)
class Precision:
    """The bits that a float graph is taken to have; an integer graph has its own.

    Attributes:
        weights, activations: of every layer's weights, and of every tensor that flows.
        layer_weights, layer_activations: of one layer's weights and input, by its name, where they differ.
    """

    weights: int = 8
    activations: int = 8
    layer_weights: Mapping[str, int] = field(default_factory=dict)
    layer_activations: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_int8(self) -> bool:
        """Whether it is what `quantize` makes."""
        mixed = self.layer_weights or self.layer_activations
        return (self.weights, self.activations) == (8, 8) and not mixed


def bits_of(graph: Graph, node: Node, index: int, assumed: Precision) -> int:
    """Bits of an element of a node's input: its own where it is integer, else the assumed ones."""
    value = graph.value(str(node.inputs[index]))
    if not value.dtype.is_float:
        return weight_bits(value)
    if value.is_constant:
        return assumed.layer_weights.get(node.name, assumed.weights)
    return assumed.layer_activations.get(node.name, assumed.activations)
