"""A graph as the layers that two forms of one network have in common, whatever stands between them.

One format fuses RELU and another does not; one pads in front of a convolution and another inside; reshapes
and changes of scale come and go. None of these is a layer here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tinydeploy import ops
from tinydeploy.ir.graph import Graph, Node
from tinydeploy.ops import Activation
from tinydeploy.passes.rewrite import reads

_BETWEEN = (ops.Reshape, ops.Pad, ops.Quantize, ops.Dequantize)

# Formats disagree on which of these a layer is; what it computes is the same.
_KINDS = {
    "CONV_2D": "linear",
    "DEPTHWISE_CONV_2D": "linear",
    "FULLY_CONNECTED": "linear",
    "AVERAGE_POOL_2D": "mean",
    "MEAN": "mean",
}


@dataclass(frozen=True)
class Unit:
    """A layer, with the clamp behind it.

    Attributes:
        node: the operator that does the work.
        value: the name of what is compared: the result, clamped.
        inputs: what flows in, by the names of the values of other units or of graph inputs.
        kind: the same for operators that may stand for each other.
        elements: of the value.
    """

    node: Node
    value: str
    inputs: tuple[str, ...]
    kind: str
    elements: int


@dataclass(frozen=True)
class Units:
    """The units of a graph in execution order, by the name of their value.

    Attributes:
        source: for a value that is no unit's own, such as a reshaped one, the unit's or input's behind it.
        readers: the units that read a unit's value or a graph input.
    """

    graph: Graph
    units: dict[str, Unit]
    source: dict[str, str] = field(default_factory=dict)
    readers: dict[str, list[Unit]] = field(default_factory=dict)

    def behind(self, name: str) -> str:
        """The value of a unit, or the graph input, that a value was made of without a layer."""
        return self.source.get(name, name)


def units_of(graph: Graph) -> Units:
    """The units of a verified graph."""
    count = reads(graph)
    found = Units(graph, {})
    for node in graph.nodes:
        flows = [n for n in node.inputs if n is not None and not graph.value(n).is_constant]
        inputs = tuple(found.behind(n) for n in flows)
        output = node.outputs[0]
        if isinstance(node.op, _BETWEEN) and inputs:
            found.source[output] = inputs[0]
        elif isinstance(node.op, ops.Relu) and inputs and count[flows[0]] == 1 and _open(found, flows[0]):
            before = found.units.pop(flows[0])
            found.units[output] = Unit(before.node, output, before.inputs, before.kind, before.elements)
        else:
            kind = _KINDS.get(node.op.kind, node.op.kind)
            found.units[output] = Unit(node, output, inputs, kind, graph.value(output).elements)
    for unit in found.units.values():
        for name in unit.inputs:
            found.readers.setdefault(name, []).append(unit)
    return found


def _open(found: Units, name: str) -> bool:
    """Whether a clamp of `name` could be fused into the unit that computes it."""
    unit = found.units.get(name)
    return unit is not None and getattr(unit.node.op, "activation", None) is Activation.NONE
