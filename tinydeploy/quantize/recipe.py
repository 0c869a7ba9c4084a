"""Which layer is quantized how: rules by layer name, the first that matches wins."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Graph, Node
from tinydeploy.ops import DepthwiseConv2D, Staircase
from tinydeploy.ops.staircase import MAX_STEPS
from tinydeploy.quantize.qat_options import LEVELS_OF_RANGES, QatOptions
from tinydeploy.quantize.rules import rule_of
from tinydeploy.quantize.scales import INT8_ACTIVATIONS, Activations
from tinydeploy.quantize.schemes import INT8, Binary, Linear, Scheme


@dataclass(frozen=True)
class Treatment:
    """What happens to one layer.

    Attributes:
        weights: the scheme.
        activations: of what the layer reads.
        signs: what it reads becomes signs (XNOR-Net).
    """

    weights: Scheme = INT8
    activations: Activations = INT8_ACTIVATIONS
    signs: bool = False


INT8_TREATMENT = Treatment()


@dataclass(frozen=True)
class LayerRule:
    """One rule of a recipe.

    Attributes:
        pattern: of layer names, as in a shell: `*`, `?` and `[...]`.
    """

    pattern: str
    treatment: Treatment


@dataclass(frozen=True)
class Recipe:
    """Treatments by layer.

    Attributes:
        rules: the first whose pattern matches wins.
        default: for all other layers.
        ends: whether the default holds for the first layers, the last ones and depthwise ones too; else
            these stay linear. Their few weights save little and cost most of the accuracy.
        depthwise: of depthwise layers then; the first and the last ones stay int8.
        tensors: by the name of an activation, how its integers are chosen, whatever layers read it.
        training: how quantization-aware training learns it; ranges whose levels are not even make those of
            all activations below eight bits so.
    """

    rules: tuple[LayerRule, ...] = ()
    default: Treatment = field(default_factory=Treatment)
    ends: bool = True
    depthwise: Treatment = INT8_TREATMENT
    where: str = "--recipe"
    training: QatOptions = field(default_factory=QatOptions)
    tensors: Mapping[str, Activations] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """A short name of what comes out: `int8`, `4:8`, `ternary`, `recipe`."""
        d = self.default
        if self.rules:
            return "recipe"
        if not isinstance(d.weights, Linear):
            return d.weights.name
        label = f"{d.weights.bits}:{self._levelled(d).activations.label}"
        return "int8" if label == "8:8" else label

    @property
    def binary(self) -> bool:
        """Whether some layers have binary weights or read signs."""
        treatments = (*(rule.treatment for rule in self.rules), self.default)
        return any(t.signs or isinstance(t.weights, Binary) for t in treatments)

    def with_weights(self, graph: Graph, schemes: Mapping[str, Scheme]) -> Recipe:
        """The same with other schemes for some layers, by name; each keeps the rest of its treatment."""
        assigned = self.assign(graph)
        made = tuple(
            LayerRule(glob.escape(node.name), replace(assigned.of(node), weights=schemes[node.name]))
            for node in graph.nodes
            if node.name in schemes
        )
        return replace(self, rules=made + self.rules)

    def assign(self, graph: Graph) -> Assignment:
        """The treatment of each node of a float graph.

        Raises:
            DeployError: a pattern matches no layer, or levels of so many bits are not possible.
        """
        names = [node.name for node in graph.nodes]
        for rule in self.rules:
            if not any(fnmatchcase(name, rule.pattern) for name in names):
                raise DeployError(
                    f"the pattern {rule.pattern!r} matches no layer",
                    where=self.where,
                    hint="tinydeploy inspect MODEL lists the layers",
                )
        kept = frozenset() if self.ends else _ends(graph)
        treatments = {node.name: self._levelled(self._treatment(node, kept)) for node in graph.nodes}
        return Assignment(graph, treatments, self.tensors)

    def _treatment(self, node: Node, kept: frozenset[str]) -> Treatment:
        for rule in self.rules:
            if fnmatchcase(node.name, rule.pattern):
                return rule.treatment
        if node.name in kept:
            return INT8_TREATMENT
        between = not self.ends and isinstance(node.op, DepthwiseConv2D)
        return self.depthwise if between else self.default

    def _levelled(self, treatment: Treatment) -> Treatment:
        """With the levels of the ranges that training was asked for."""
        how, levels = treatment.activations, LEVELS_OF_RANGES.get(self.training.ranges)
        plain = how.bits < 8 and how.levels == "even" and not how.symmetric and not treatment.signs
        if levels is not None and plain:
            how = replace(how, levels=levels)
        if how.levels == "lloyd" and (1 << how.bits) - 1 > MAX_STEPS:
            raise DeployError(
                f"activations at Lloyd's levels of {how.bits} bits, and 2 to 4 are possible",
                where="--qat-ranges" if plain else self.where,
                hint="from five bits on even levels are as good: take the ranges hwgq",
            )
        return replace(treatment, activations=how)


INT8_RECIPE = Recipe()


class Assignment:
    """A recipe as it falls on one graph."""

    def __init__(
        self, graph: Graph, treatments: dict[str, Treatment], tensors: Mapping[str, Activations]
    ) -> None:
        self._treatments = treatments
        self._seen = {*graph.inputs, *graph.outputs}
        self._stairs = {node.outputs[0] for node in graph.nodes if isinstance(node.op, Staircase)}
        readers: dict[str, list[Activations]] = {}
        for node in graph.nodes:
            for name in node.inputs:
                readers.setdefault(str(name), []).append(self._asked(graph, node))
        self._activations = {
            name: max(all_, key=lambda how: (how.bits, not how.symmetric)) for name, all_ in readers.items()
        } | dict(tensors)

    def _asked(self, graph: Graph, node: Node) -> Activations:
        """What a node asks for in what it reads: of levels that are not even eight bits, or even ones."""
        how = self._treatments[node.name].activations
        if isinstance(node.op, Staircase):
            return INT8_ACTIVATIONS
        if how.levels == "even":
            return how
        linear = rule_of(graph, node).weights_axis is not None
        plain = linear and how.levels == "lloyd" and node.inputs[0] not in self._stairs
        return replace(how, levels="even") if plain else INT8_ACTIVATIONS

    def of(self, node: Node) -> Treatment:
        """Of a layer; int8 for one that the graph had not when the recipe was read."""
        return self._treatments.get(node.name, INT8_TREATMENT)

    def activations(self, name: str) -> Activations:
        """Of a tensor: what the recipe says of it, else the most that a layer which reads it asks for.

        Inputs and outputs of the graph have eight bits, since the caller sees them.
        """
        return INT8_ACTIVATIONS if name in self._seen else self._activations.get(name, INT8_ACTIVATIONS)

    def bits(self, name: str) -> int:
        """Of a tensor."""
        return self.activations(name).bits


def linear_nodes(graph: Graph) -> list[Node]:
    """The layers with weights, in execution order."""
    return [node for node in graph.nodes if rule_of(graph, node).weights_axis is not None]


def _ends(graph: Graph) -> frozenset[str]:
    """Layers with weights that have none before them, or none behind them."""
    linear = {node.name for node in linear_nodes(graph)}
    first = _not_reached(graph.nodes, linear, forward=True)
    last = _not_reached(reversed(graph.nodes), linear, forward=False)
    return frozenset(first | last)


def _not_reached(nodes: Iterable[Node], linear: set[str], *, forward: bool) -> set[str]:
    """The linear nodes to which no other one leads, along the edges or against them."""
    marked: set[str] = set()
    found = set()
    for node in nodes:
        sources = node.inputs if forward else node.outputs
        targets = node.outputs if forward else tuple(n for n in node.inputs if n is not None)
        behind = any(name in marked for name in sources)
        if node.name in linear and not behind:
            found.add(node.name)
        if behind or node.name in linear:
            marked.update(targets)
    return found
