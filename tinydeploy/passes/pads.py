"""PAD in front of a convolution or a maximum pool becomes that layer's own padding."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np

from tinydeploy import ops
from tinydeploy.ir.graph import Graph, Node
from tinydeploy.ir.types import Value
from tinydeploy.ops import Padding
from tinydeploy.passes.rewrite import producers, reads, with_nodes

_Padded = ops.Conv2D | ops.DepthwiseConv2D | ops.MaxPool2D


def fold_pads(graph: Graph) -> Graph:
    """Folds each PAD of rows and columns that a layer can do by itself.

    Convolutions pad with zeros, signs with -1, and a maximum pool with what is never the largest. Average
    pools are left alone: their own padding does not count, and zeros do.

    Requires: a verified graph. Ensures: the same arithmetic. Returns the graph itself where nothing changed.
    """
    made, outputs = producers(graph), set(graph.outputs)
    nodes: list[Node] = []
    for node in graph.nodes:
        pad = made.get(node.inputs[0] or "")
        padding = None if pad is None else _folded(graph, pad, node)
        if pad is None or padding is None:
            nodes.append(node)
        else:
            op = replace(cast(_Padded, node.op), padding=padding)
            nodes.append(replace(node, op=op, inputs=(pad.inputs[0], *node.inputs[1:])))
    if all(a is b for a, b in zip(nodes, graph.nodes, strict=True)):
        return graph
    folded = with_nodes(graph, nodes)
    count = reads(folded)
    kept = [
        n for n in nodes if not isinstance(n.op, ops.Pad) or count[n.outputs[0]] or n.outputs[0] in outputs
    ]
    return with_nodes(folded, kept)


def _folded(graph: Graph, pad: Node, node: Node) -> Padding | None:
    """The padding of `node` with that of `pad`; None where it cannot do both."""
    if not isinstance(pad.op, ops.Pad) or not isinstance(node.op, _Padded):
        return None
    widths, value = pad.op.paddings, graph.value(pad.outputs[0])
    if len(widths) != 4 or widths[0] != (0, 0) or widths[3] != (0, 0):
        return None
    fits = _is_lowest if isinstance(node.op, ops.MaxPool2D) else _is_zero
    if not fits(pad.op, value):
        return None
    (top, bottom), (left, right) = widths[1:3]
    p = node.op.padding
    result = Padding(p.top + top, p.bottom + bottom, p.left + left, p.right + right)
    if isinstance(node.op, ops.MaxPool2D):
        height, width = node.op.kernel
        # A window that lies in the padding alone has no maximum.
        if max(result.top, result.bottom) >= height or max(result.left, result.right) >= width:
            return None
    return result


def _is_zero(op: ops.Pad, value: Value) -> bool:
    """Whether the fill is what a convolution pads with: the real number 0, or -1 around signs."""
    if value.dtype.is_float:
        return op.value in (None, 0.0)
    return value.padding == (value.quant.zero_point if op.value is None else op.value)


def _is_lowest(op: ops.Pad, value: Value) -> bool:
    if op.value is None:
        return False
    return op.value <= (float(np.finfo(np.float32).min) if value.dtype.is_float else value.dtype.limits[0])
