"""Which tensors share one quantization, and the range that each such group has to span."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tinydeploy.ir.forms import Form, Packed, Signs
from tinydeploy.ir.graph import Graph, Node
from tinydeploy.ir.types import Quantization
from tinydeploy.ops import Activation, Sign
from tinydeploy.quantize.rules import PROBABILITY, RULES, Ends, Tie, activation_inputs, fused, rule_of
from tinydeploy.quantize.scales import INT8_ACTIVATIONS, LEVELS, Activations, Range, activation_quantization

_PROBABILITIES = Range(0.0, LEVELS * PROBABILITY.scale)


@dataclass
class Group:
    """Tensors with one quantization.

    Attributes:
        span: what their integers have to hold.
        fixed: the quantization that an op demands, or None.
        how: how integers are chosen where nothing is fixed.
        signs: whether the elements are -1 and +1.
        least_scale: raised while scales settle.
    """

    members: list[str]
    span: Range
    fixed: Quantization | None = None
    how: Activations = INT8_ACTIVATIONS
    signs: bool = False
    least_scale: float = 0.0

    @property
    def quantization(self) -> Quantization:
        """As the scales stand now."""
        return self.fixed or activation_quantization(self.span, self.least_scale, self.how)

    @property
    def form(self) -> Form | None:
        """None where all of int8 is used."""
        if self.signs:
            return Signs()
        return None if self.fixed is not None or self.how.bits == 8 else Packed(self.how.bits)


def group_tensors(
    graph: Graph,
    ranges: Mapping[str, Range],
    how: Callable[[str], Activations] = lambda name: INT8_ACTIVATIONS,
) -> dict[str, Group]:
    """The group of every tensor that flows, and of every constant in the place of one.

    Args:
        ranges: per graph input and node output, as `calibrate` gives them.
        how: the bits of each of these by name; what shares a quantization takes the most of them.

    Raises:
        DeployError: an op without a rule.
    """
    return _Grouping(graph, ranges, how).groups


def clamps_behind(graph: Graph) -> dict[str, Ends]:
    """The tensors of which only what lies between two ends matters, which therefore need no integers beyond.

    They are read by one op alone, which saturates there (RELU, LOGISTIC), perhaps behind others that leave
    the order of numbers as it is. A graph input is none of them, for the caller sees its scale; nor is a
    graph output.
    """
    readers = Counter(name for node in graph.nodes for name in node.inputs)
    computed = {name for node in graph.nodes for name in node.outputs} - set(graph.outputs)
    clamps: dict[str, Ends] = {}
    for node in reversed(graph.nodes):
        rule, x = RULES.get(type(node.op)), node.inputs[0]
        if rule is None or x is None or x not in computed or readers[x] != 1:
            continue
        if rule.saturates is not None:
            clamps[x] = rule.saturates(node.op)
        elif rule.commutes and node.outputs[0] in clamps:
            clamps[x] = clamps[node.outputs[0]]
    return clamps


class _Grouping:
    """Starts with every tensor alone and merges: copies first, which must hold, then the rest in order."""

    def __init__(self, graph: Graph, ranges: Mapping[str, Range], how: Callable[[str], Activations]) -> None:
        self._graph, self._how = graph, how
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
            span = rule.span(node.op) or ranges[output].clamp(*fused(node.op).range)
            self._start(output, span, rule.output(node.op), signs=isinstance(node.op, Sign))
        for node in graph.nodes:
            if rule_of(graph, node).tie is Tie.COPY:
                self._merge(activation_inputs(node, rule_of(graph, node))[0], node.outputs[0])
        self._merge_where_possible()

    def _start(
        self, name: str, span: Range, fixed: Quantization | None = None, *, signs: bool = False
    ) -> None:
        how = INT8_ACTIVATIONS if self._graph.value(name).is_constant else self._how(name)
        self.groups[name] = Group([name], span, fixed, how, signs)

    def _merge(self, a: str, b: str) -> None:
        first, second = self.groups[a], self.groups[b]
        if first is second:
            return
        # There is one fixed quantization only, so two never contradict each other.
        merged = Group(
            first.members + second.members,
            first.span.hull(second.span),
            first.fixed or second.fixed,
            max(first.how, second.how, key=lambda how: (how.bits, not how.symmetric)),
            first.signs or second.signs,
        )
        for name in merged.members:
            self.groups[name] = merged

    def _merge_where_possible(self) -> None:
        clamps = clamps_behind(self._graph)
        for node in self._graph.nodes:
            rule = rule_of(self._graph, node)
            clamped = rule.saturates is not None and self._clamp(str(node.inputs[0]), clamps)
            if rule.tie is Tie.CLAMP:
                self._merge_clamp(node, clamped)
            elif rule.tie is Tie.JOIN:
                for name in activation_inputs(node, rule):
                    if self._compatible(self.groups[name], self.groups[node.outputs[0]]):
                        self._merge(name, node.outputs[0])

    def _clamp(self, x: str, clamps: Mapping[str, Ends]) -> bool:
        """Takes from the group of `x` what a clamp cuts off; false where some member needs it."""
        group = self.groups[x]
        if group.fixed is not None or not all(name in clamps for name in group.members):
            return False
        group.span = group.span.clamp(*clamps[x])
        return True

    def _merge_clamp(self, node: Node, clamped: bool) -> None:
        x = str(node.inputs[0])
        # TensorFlow Lite Micro changes the scale in RELU alone, and ignores the change in its kin.
        if clamped or self.groups[x].fixed is not None or fused(node.op) is not Activation.RELU:
            self._merge(x, node.outputs[0])

    @staticmethod
    def _compatible(a: Group, b: Group) -> bool:
        if a.fixed == b.fixed and a.signs == b.signs:
            return True
        if a.signs or b.signs:
            return False
        free = a if a.fixed is None else b
        return free.span.within(_PROBABILITIES, PROBABILITY.scale)
