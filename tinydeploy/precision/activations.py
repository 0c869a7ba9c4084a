"""The activations whose bits can be chosen: tensors that share one quantization."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array, DType
from tinydeploy.ops.quantize import dequantize_array, quantize_array
from tinydeploy.quantize.rules import activation_inputs, rule_of
from tinydeploy.quantize.scales import Activations, Range, activation_quantization
from tinydeploy.quantize.ties import Group, group_tensors


@dataclass(frozen=True)
class Shared:
    """Tensors with one quantization, which therefore have the same bits.

    Attributes:
        tensors: all of them; the first names them.
        sources: those that are computed anew; the others are copies of these, with the noise that these have.
        elements: of the sources together.
        span: what their integers have to hold.
    """

    tensors: tuple[str, ...]
    sources: tuple[str, ...]
    elements: int
    span: Range

    @property
    def name(self) -> str:
        return self.tensors[0]

    @property
    def half(self) -> float:
        """Half of the range."""
        return (self.span.high - self.span.low) / 2.0


def shared_activations(graph: Graph, ranges: Mapping[str, Range]) -> tuple[Shared, ...]:
    """What flows between layers and may have fewer than eight bits, in execution order.

    Inputs and outputs of the graph are not among them, since the caller sees them; nor is what an op fixes,
    such as the output of SOFTMAX.

    Args:
        ranges: per graph input and node output, as `calibrate` gives them.
    """
    found: dict[int, Group] = {}
    for group in group_tensors(graph, ranges).values():
        found.setdefault(id(group), group)
    seen = {*graph.inputs, *graph.outputs}
    made = {node.outputs[0]: node for node in graph.nodes}

    def is_copy(name: str, group: Group) -> bool:
        node = made[name]
        return all(n in group.members for n in activation_inputs(node, rule_of(graph, node)))

    result = []
    for group in found.values():
        flowing = tuple(n for n in made if n in group.members)
        if group.fixed is not None or not flowing or seen.intersection(group.members):
            continue
        sources = tuple(n for n in flowing if not is_copy(n, group))
        elements = sum(graph.value(n).elements for n in sources)
        result.append(Shared(flowing, sources, elements, group.span))
    return tuple(result)


def rounded(x: Array, span: Range, bits: int) -> Array:
    """What so many bits leave of real numbers: the nearest of the affine integers that span a range."""
    how = Activations(bits)
    quant = activation_quantization(span, how=how)
    return dequantize_array(quantize_array(x, quant, DType.INT8).clip(*how.limits), quant)
