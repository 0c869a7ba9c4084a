"""The float graph that an integer graph stands for: the same weights and biases in real units."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tinydeploy import ops
from tinydeploy.ir.graph import Graph, Node
from tinydeploy.ir.types import Array, DType, Value, constant
from tinydeploy.ir.verify import site_of
from tinydeploy.passes.rewrite import with_nodes


def float_twin(graph: Graph) -> Graph:
    """What an integer graph would compute if nothing but its constants were quantized.

    The difference between both is what the quantization of activations costs; what that of the weights cost
    cannot be told from the integers alone.

    Ensures: the names of nodes and of the values that both have; changes of scale are gone.
    """
    alias: dict[str, str] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        inputs = tuple(None if n is None else alias.get(n, n) for n in node.inputs)
        if isinstance(node.op, ops.Quantize):
            alias[node.outputs[0]] = str(inputs[0])
            continue
        op = node.op
        if isinstance(op, ops.Pad) and op.value is not None:
            quant = graph.value(str(node.inputs[0])).quant
            op = replace(op, value=(op.value - quant.zero_point) * quant.scale)
        if isinstance(op, ops.Sign):
            quant = graph.value(node.outputs[0]).quant
            op = ops.Sign(*((q - quant.zero_point) * quant.scale for q in (-1, 1)))
        if isinstance(op, ops.Staircase):
            op = op.real(site_of(graph, node))
        nodes.append(replace(node, op=op, inputs=inputs))
    values = {name: _float(value) for name, value in graph.values.items()}
    outputs = tuple(alias.get(name, name) for name in graph.outputs)
    return with_nodes(replace(graph, values=values, outputs=outputs), nodes)


def _float(value: Value) -> Value:
    if value.data is None:
        return Value(value.name, DType.FLOAT32, value.shape)
    return constant(value.name, real_constant(value))


def real_constant(value: Value) -> Array:
    """A quantized constant in real units, float32."""
    quant = value.quant
    shape = [1] * len(value.shape)
    if quant.axis is not None:
        shape[quant.axis] = value.shape[quant.axis]
    scales, zeros = (np.array(a).reshape(shape) for a in (quant.scales, quant.zero_points))
    result: Array = ((value.array.astype(np.int64) - zeros) * scales).astype(np.float32)
    return result
