"""How many bits a tensor's elements take: the one place that knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tinydeploy.ir.forms import Signs
from tinydeploy.ir.graph import Graph, Node
from tinydeploy.ir.types import Value


def stored_bits(value: Value) -> int:
    """Bits of one element: those of its stored form where it has one, else those of its type.

    Of bit planes all together; the table of a codebook and the coefficients of planes are left out.
    """
    if value.form is None:
        return value.dtype.bytes * 8
    return 1 if isinstance(value.form, Signs) else value.form.bits


@dataclass(frozen=True)
class Precision:
    """The bits that a float graph is counted with; an integer graph has its own.

    Attributes:
        weights, activations: of every layer's weights, and of what it reads.
        layer_weights, layer_activations: of one layer's weights and input, by its name, where they differ.
    """

    weights: int = 32
    activations: int = 32
    layer_weights: Mapping[str, int] = field(default_factory=dict)
    layer_activations: Mapping[str, int] = field(default_factory=dict)


def bits_of(graph: Graph, node: Node, index: int, assumed: Precision) -> int:
    """Bits of an element of a node's input: its own where it is integer, else the assumed ones."""
    value = graph.value(str(node.inputs[index]))
    if not value.dtype.is_float:
        return stored_bits(value)
    if value.is_constant:
        return assumed.layer_weights.get(node.name, assumed.weights)
    return assumed.layer_activations.get(node.name, assumed.activations)
