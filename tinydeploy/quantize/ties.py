"""Which tensors share one quantization, and the range that each such group has to span."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from tinydeploy import ops
from tinydeploy.ir.graph import Graph, Node
from tinydeploy.ir.types import Quantization
from tinydeploy.ops import Activation
from tinydeploy.quantize.rules import PROBABILITY, Tie, activation_inputs, fused, rule_of
from tinydeploy.quantize.scales import LEVELS, Range

_PROBABILITIES = Range(0.0, LEVELS * PROBABILITY.scale)


@dataclass
class Group:
    """Tensors with one quantization.

    Attributes:
        span: what their integers have to hold.
        fixed: the quantization that an op demands, or None.
        least_scale: raised while scales settle.
    """

    members: list[str]
    span: Range
    fixed: Quantization | None = None
    least_scale: float = 0.0


def group_tensors(graph: Graph, ranges: Mapping[str, Range]) -> dict[str, Group]:
    """The group of every tensor that flows, and of every constant in the place of one.

    Args:
        ranges: per graph input and node output, as `calibrate` gives them.

    Raises:
        DeployError: an op without a rule.
    """
    return _Grouping(graph, ranges).groups


def clamp_behind(graph: Graph) -> dict[str, Activation]:
    """The tensors that only a RELU reads, with its clamp: what the clamp cuts off needs no integers.

    A graph input is none of them, for the caller sees its scale; nor is a graph output.
    """
    readers = Counter(name for node in graph.nodes for name in node.inputs)
    computed = {name for node in graph.nodes for name in node.outputs} - set(graph.outputs)
    return {
        node.inputs[0]: fused(node.op)
        for node in graph.nodes
        if isinstance(node.op, ops.Relu)
        and node.inputs[0] is not None
        and node.inputs[0] in computed
        and readers[node.inputs[0]] == 1
    }


class _Grouping:
    """Starts with every tensor alone and merges: copies first, which must hold, then the rest in order."""

    def __init__(self, graph: Graph, ranges: Mapping[str, Range]) -> None:
        self._graph = graph
        self.groups: dict[str, Group] = {}
        for name in graph.inputs:
            self._start(name, ranges[name])
        for node in graph.nodes:
            rule = rule_of(graph, node)
            for name in activation_inputs(node, rule):
                value = graph.value(name)
                if value.data is not None and name not in self.groups:
                    self._start(name, Range.of(value.data.min(), value.data.max()))
            output = node.outputs[0]
            self._start(output, ranges[output].clamp(*fused(node.op).range), rule.output)
        for node in graph.nodes:
            if rule_of(graph, node).tie is Tie.COPY:
                self._merge(activation_inputs(node, rule_of(graph, node))[0], node.outputs[0])
        self._merge_where_possible()

    def _start(self, name: str, span: Range, fixed: Quantization | None = None) -> None:
        self.groups[name] = Group([name], span, fixed)

    def _merge(self, a: str, b: str) -> None:
        first, second = self.groups[a], self.groups[b]
        if first is second:
            return
        # There is one fixed quantization only, so two never contradict each other.
        merged = Group(
            first.members + second.members, first.span.hull(second.span), first.fixed or second.fixed
        )
        for name in merged.members:
            self.groups[name] = merged

    def _merge_where_possible(self) -> None:
        clamps = clamp_behind(self._graph)
        for node in self._graph.nodes:
            rule = rule_of(self._graph, node)
            if rule.tie is Tie.CLAMP:
                self._clamp(node, clamps)
            elif rule.tie is Tie.JOIN:
                for name in activation_inputs(node, rule):
                    if self._compatible(self.groups[name], self.groups[node.outputs[0]]):
                        self._merge(name, node.outputs[0])

    def _clamp(self, node: Node, clamps: Mapping[str, Activation]) -> None:
        x, y = node.inputs[0], node.outputs[0]
        assert x is not None
        group = self.groups[x]
        if x in clamps and group.members == [x] and group.fixed is None:
            group.span = group.span.clamp(*clamps[x].range)
            self._merge(x, y)
        elif group.fixed is not None or fused(node.op) is not Activation.RELU:
            # TensorFlow Lite Micro changes the scale in RELU alone, and ignores the change in its kin.
            self._merge(x, y)

    @staticmethod
    def _compatible(a: Group, b: Group) -> bool:
        if a.fixed == b.fixed:
            return True
        free = a if a.fixed is None else b
        return free.span.within(_PROBABILITIES, PROBABILITY.scale)
