"""Post-training quantization: a float graph and some data in, an int8 graph out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Border, Graph, Node
from tinydeploy.ir.op import Site
from tinydeploy.ir.types import Array, DType, Quantization, Value, constant
from tinydeploy.ir.verify import verify
from tinydeploy.ops.quantize import quantize_array
from tinydeploy.quantize.calibrate import calibrate
from tinydeploy.quantize.recipe import INT8_RECIPE, Recipe
from tinydeploy.quantize.rules import Rule, least_for_clamp, rule_of
from tinydeploy.quantize.scales import MAX_MAGNITUDE, Range, least_output_scale
from tinydeploy.quantize.schemes import Fitted, Scheme, folded
from tinydeploy.quantize.staircases import few_levels
from tinydeploy.quantize.ties import Group, group_tensors
from tinydeploy.quantize.weights import LinearConstants, linear_constants

# Scales only rise, and a rise passes through the graph once; more rounds than this chase each other.
_ROUNDS = 64


@dataclass(frozen=True)
class QuantizeOptions:
    """How to quantize.

    Attributes:
        calibration: a name of `observers.CALIBRATORS`.
        float_borders: the model's inputs and outputs stay float32 for its users.
        recipe: which layer in how many bits and by which scheme.
    """

    calibration: str = "minmax"
    float_borders: bool = False
    recipe: Recipe = field(default_factory=Recipe)


DEFAULT_OPTIONS = QuantizeOptions()


def quantize(graph: Graph, inputs: Sequence[Array], options: QuantizeOptions = DEFAULT_OPTIONS) -> Graph:
    """The integer graph of a float graph, with the same names, verified.

    Activations are asymmetric int8 whose range contains zero; weights symmetric int8 per output channel in
    [-127, 127], unless the recipe says otherwise; biases int32 at `S_in * S_w`.

    Args:
        inputs: calibration data, one float32 array (samples, *value.shape) per graph input, in real units.

    Raises:
        DeployError: the graph is not float, an op has no rule, the data do not fit, or activations or
            weights are not finite.
    """
    _require_quantizable(graph)
    graph = few_levels(graph, inputs, options.recipe)
    ranges = calibrate(graph, inputs, options.calibration, options.recipe.assign(graph).bits)
    return quantize_with_ranges(graph, ranges, options.recipe, float_borders=options.float_borders)


def quantize_with_ranges(
    graph: Graph, ranges: Mapping[str, Range], recipe: Recipe = INT8_RECIPE, *, float_borders: bool = False
) -> Graph:
    """Like `quantize`, for ranges that are known: one per graph input and node output.

    Layers that read signs have SIGN in front already, see `few_levels`.
    """
    _require_quantizable(graph)
    result = _Quantizing(graph, ranges, recipe).graph(float_borders)
    verify(result)
    return result


def _require_quantizable(graph: Graph) -> None:
    where = graph.source or graph.name
    for node in graph.nodes:
        if rule_of(graph, node).weights_axis is not None:
            for name in node.inputs[1:]:
                _require_parameter(graph, name, f"{where}: {node.op.kind} {node.name!r}")
    for value in graph.values.values():
        if not value.is_constant and not value.dtype.is_float:
            raise DeployError(
                f"the tensor {value.name!r} is {value.dtype.value} already",
                where=where,
                hint="only a float model can be quantized",
            )


def _require_parameter(graph: Graph, name: str | None, where: str) -> None:
    if name is None:
        return
    data = graph.value(name).data
    if data is None:
        raise DeployError(
            f"its parameter {name!r} is not a constant",
            where=where,
            hint="weights that are computed cannot be quantized ahead of time",
        )
    # NaN fails the comparison as well.
    if not np.abs(data).max() <= MAX_MAGNITUDE:
        raise DeployError(
            f"its parameter {name!r} holds NaN, infinity or numbers beyond {MAX_MAGNITUDE:.0e}",
            where=where,
            hint="the training of the model diverged, or its file is damaged",
        )


class _Quantizing:
    """One graph on its way: settles the scales, then rebuilds values and nodes in their order."""

    def __init__(self, graph: Graph, ranges: Mapping[str, Range], recipe: Recipe) -> None:
        self._graph = graph
        self._where = graph.source or graph.name
        self._assigned = recipe.assign(graph)
        self._groups = group_tensors(graph, ranges, self._assigned.activations)
        self._constants: dict[str, Value] = {}
        self._fits: dict[tuple[str, int, Scheme], Fitted] = {}
        self._settle()

    def quantization(self, name: str) -> Quantization:
        """Of a tensor that flows, or of a constant in the place of one."""
        return self._groups[name].quantization

    def _settle(self) -> None:
        """Raises scales until every op's integer rule admits them; a fixed quantization stays."""
        for _ in range(_ROUNDS):
            raised = [self._raise_scales(node) for node in self._graph.nodes]
            if not any(raised):
                return
            if max(g.least_scale for g in self._groups.values()) > MAX_MAGNITUDE:
                break
        raise DeployError(
            "no scales satisfy all layers at once",
            where=self._where,
            hint="the ranges of its tensors differ by many orders of magnitude; check the calibration data",
        )

    def _raise_scales(self, node: Node) -> bool:
        """Whether a scale had to rise for the sake of this node."""
        rule = rule_of(self._graph, node)
        x = node.inputs[0]
        assert x is not None
        changed = _raise(self._groups[x], rule.least_input(node.op))
        least = max(self._least_output(node, rule), least_for_clamp(node.op))
        return _raise(self._groups[node.outputs[0]], least) or changed

    def _least_output(self, node: Node, rule: Rule) -> float:
        if rule.weights_axis is None:
            return rule.least_output(self._site(node))
        c = self._linear(node, rule.weights_axis)
        x = self._activation(str(node.inputs[0]))
        low, high = x.limits
        reach = max(high - x.quant.zero_point, x.quant.zero_point - low)
        return least_output_scale(x.quant.scale * max(c.scales), c.bound(reach))

    def _site(self, node: Node) -> Site:
        """The integer values around a node without weights; constants among them without their data."""
        names = [*(str(n) for n in node.inputs), node.outputs[0]]
        values = tuple(self._activation(n) for n in names)
        return Site(values[:-1], values[-1:])

    def _activation(self, name: str) -> Value:
        shape = self._graph.value(name).shape
        return Value(name, DType.INT8, shape, self.quantization(name), form=self._groups[name].form)

    def _linear(self, node: Node, axis: int) -> LinearConstants:
        weights, bias = (self._graph.value(n).array if n else None for n in (*node.inputs, None)[1:3])
        assert weights is not None
        scheme = self._assigned.of(node).weights
        key = (str(node.inputs[1]), axis, scheme)
        if key not in self._fits:
            self._fits[key] = scheme.fit(folded(weights, axis))
        scale = self.quantization(str(node.inputs[0])).scale
        return linear_constants(
            self._fits[key], weights.shape, bias, axis, scale, one_scale=scheme.per_tensor
        )

    def graph(self, float_borders: bool) -> Graph:
        nodes = tuple(self._node(node) for node in self._graph.nodes)
        flowing = {*self._graph.inputs, *(n for node in nodes for n in node.outputs)}
        values = {
            name: self._activation(name) if name in flowing else self._constants[name]
            for name in self._graph.values
            if name in flowing or name in self._constants
        }
        values.update(self._constants)
        return replace(
            self._graph,
            values=values,
            nodes=nodes,
            input_borders=_borders(self._graph.input_borders, float_borders),
            output_borders=_borders(self._graph.output_borders, float_borders),
        )

    def _node(self, node: Node) -> Node:
        rule = rule_of(self._graph, node)
        scale = self.quantization(str(node.inputs[0])).scale
        if scale > rule.greatest_input:
            raise DeployError(
                f"its input needs the scale {scale:.6g}, and at most {rule.greatest_input:g} is possible",
                where=self._here(node),
                hint="scale the input down in the model, or calibrate with data of its real range",
            )
        if rule.weights_axis is not None:
            return replace(node, inputs=self._linear_inputs(node, rule.weights_axis))
        try:
            op = rule.lower(node.op, self._site(node))
        except DeployError as error:
            raise DeployError(error.fact, where=self._here(node), hint=error.hint) from None
        return replace(node, op=op, inputs=tuple(self._input(node, str(n)) for n in node.inputs))

    def _input(self, node: Node, name: str) -> str:
        data = self._graph.value(name).data
        if data is None:
            return name
        quant = self.quantization(name)
        return self._constant(node, constant(name, quantize_array(data, quant, DType.INT8), quant))

    def _linear_inputs(self, node: Node, axis: int) -> tuple[str | None, ...]:
        x, weights, *rest = (str(n) for n in node.inputs if n is not None)
        c = self._linear(node, axis)
        # One scale is written as a scale for the whole tensor, the form that files give back.
        several = len(c.scales) > 1
        zeros = (0,) * len(c.scales)
        names: list[str | None] = [self._input(node, x)]
        quant = Quantization(c.scales, zeros, axis if several else None)
        names.append(self._constant(node, constant(weights, c.weights, quant, c.form)))
        if c.bias is not None:
            scale = self.quantization(x).scale
            products = tuple(float(np.float32(scale * s)) for s in c.scales)
            quant = Quantization(products, zeros, 0 if several else None)
            names.append(self._constant(node, constant(rest[0], c.bias, quant)))
        return (*names, *node.inputs[len(names) :])

    def _constant(self, node: Node, value: Value) -> str:
        """Files a constant; where its float original serves several layers differently, under a new name."""
        name = value.name
        while name in self._constants or (name != value.name and name in self._graph.values):
            known = self._constants.get(name)
            if (
                known is not None
                and known.quantization == value.quantization
                and np.array_equal(known.array, value.array)
                and known.dtype is value.dtype
                and type(known.form) is type(value.form)
            ):
                return name
            name = f"{name}/{node.name}"
        self._constants[name] = replace(value, name=name)
        return name

    def _here(self, node: Node) -> str:
        return f"{self._where}: {node.op.kind} {node.name!r}"


def _raise(group: Group, least: float) -> bool:
    if group.fixed is not None:
        return False
    if group.quantization.scale >= least:
        return False
    group.least_scale = least
    return True


def _borders(borders: Sequence[Border], is_float: bool) -> tuple[Border, ...]:
    return tuple(replace(b, is_float=is_float) for b in borders)
