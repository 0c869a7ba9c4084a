"""A float graph and its integer form side by side, node by node, the integer one changed on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from tinydeploy import ops
from tinydeploy.ir.graph import Graph, Node
from tinydeploy.ir.op import Site
from tinydeploy.ir.types import Array, Value
from tinydeploy.ir.verify import site_of, verify
from tinydeploy.ops import Activation
from tinydeploy.ops.quantize import dequantize_array, quantize_array
from tinydeploy.passes.rewrite import reads, with_nodes
from tinydeploy.quantize.rules import rule_of


@dataclass(frozen=True)
class Step:
    """One linear layer, as both graphs reach it.

    Attributes:
        real, integer: the node in either graph.
        site: the float values around it.
        integer_site: the integer values around it.
        axis: of the weights that counts output channels.
        x: what the float graph feeds it, (samples, *shape).
        x_quantized: what the integer graph feeds it, in real units.
    """

    real: Node
    integer: Node
    site: Site
    integer_site: Site
    axis: int
    x: Array
    x_quantized: Array

    def output(self, x: Array, weights: Array, bias: Array | None) -> Array:
        """What the layer makes of `x` before its activation, float32."""
        op = replace(cast(ops.Conv2D, self.real.op), activation=Activation.NONE)
        given = [x, weights[np.newaxis], bias]
        values = [self.site.input(0), _value(self.site.input(1), weights)]
        if bias is not None:
            values.append(Value("bias", self.site.output.dtype, bias.shape, None, bias))
        return op.run_float(Site(tuple(values), self.site.outputs), given[: len(values)])


Change = Callable[[Step], tuple[Value, ...]]
"""The integer weights and bias of a layer, changed."""


def walk(real: Graph, integer: Graph, inputs: Sequence[Array], change: Change) -> Graph:
    """The integer graph with every linear layer changed, in execution order.

    Each layer sees what the layers before it compute after their change.

    Args:
        inputs: one float32 array (samples, *value.shape) per graph input, in real units.

    Raises:
        DeployError: a change makes a layer that the integer rule does not admit.
    """
    count = reads(integer)
    left = Counter(n for node in real.nodes for n in node.inputs if n is not None)
    f = dict(zip(real.inputs, inputs, strict=True))
    values = [integer.value(name) for name in integer.inputs]
    q = {v.name: quantize_array(x, v.quant, v.dtype) for x, v in zip(inputs, values, strict=True)}
    nodes: list[Node] = []
    changed = integer
    for node, planned in zip(real.nodes, integer.nodes, strict=True):
        current = planned
        axis = rule_of(real, node).weights_axis
        if axis is not None:
            x = str(node.inputs[0])
            seen = dequantize_array(q[x], changed.value(x).quant)
            step = Step(node, planned, site_of(real, node), site_of(changed, planned), axis, f[x], seen)
            new = _named(integer, node, change(step), count)
            current = replace(planned, inputs=(planned.inputs[0], *(v.name for v in new)))
            changed = replace(changed, values={**changed.values, **{v.name: v for v in new}})
        nodes.append(current)
        f[node.outputs[0]] = _run(real, node, f, len(inputs[0]))
        q[node.outputs[0]] = _run(changed, current, q, len(inputs[0]))
        for name in {n for n in node.inputs if n is not None}:
            left[name] -= node.inputs.count(name)
            if not left[name]:
                f.pop(name, None)
                q.pop(name, None)
    result = with_nodes(changed, nodes)
    verify(result)
    return result


def _named(graph: Graph, node: Node, new: Sequence[Value], count: Mapping[str, int]) -> list[Value]:
    """Under a name of its own where other layers share the constant."""
    shared = [v.name in graph.values and count[v.name] > 1 for v in new]
    return [replace(v, name=f"{v.name}/{node.name}") if s else v for v, s in zip(new, shared, strict=True)]


def _run(graph: Graph, node: Node, arrays: dict[str, Array], samples: int) -> Array:
    site = site_of(graph, node)
    given = [
        None if v is None else arrays[v.name] if v.data is None else v.data[np.newaxis] for v in site.inputs
    ]
    compute = node.op.run_float if site.output.dtype.is_float else node.op.run_integer
    result = compute(site, given)
    if result.shape[0] != samples:
        result = np.broadcast_to(result, (samples, *result.shape[1:]))
    return result


def _value(like: Value, data: Array) -> Value:
    return Value(like.name, like.dtype, like.shape, None, data)
