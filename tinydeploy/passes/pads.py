"""PAD with real zeros before a convolution becomes the convolution's own padding."""

from __future__ import annotations

from dataclasses import replace

from tinydeploy import ops
from tinydeploy.ir.graph import Graph, Node
from tinydeploy.ir.op import Site
from tinydeploy.ir.verify import site_of
from tinydeploy.ops import Padding
from tinydeploy.passes.rewrite import producers, reads, with_nodes


def fold_pads(graph: Graph) -> Graph:
    """Folds each PAD of rows and columns with zeros that only convolutions read.

    TFLite knows no padding of a convolution but SAME and VALID, and stands a PAD before it for any other.
    Pools are left alone: their padding does not count, and zeros do.

    Requires: a graph in execution order, float or integer. Ensures: the same arithmetic. Returns the graph
    itself where nothing changed.
    """
    made, outputs = producers(graph), set(graph.outputs)
    nodes: list[Node] = []
    for node in graph.nodes:
        pad = made.get(node.inputs[0] or "")
        if (
            isinstance(node.op, ops.Conv2D | ops.DepthwiseConv2D)
            and pad is not None
            and isinstance(pad.op, ops.Pad)
            and _is_plain(pad.op, site_of(graph, pad))
        ):
            (top, bottom), (left, right) = pad.op.paddings[1:3]
            p = node.op.padding
            padding = Padding(p.top + top, p.bottom + bottom, p.left + left, p.right + right)
            op = replace(node.op, padding=padding)
            nodes.append(replace(node, op=op, inputs=(pad.inputs[0], *node.inputs[1:])))
        else:
            nodes.append(node)
    folded = with_nodes(graph, nodes)
    count = reads(folded)
    kept = [
        n for n in nodes if not isinstance(n.op, ops.Pad) or count[n.outputs[0]] or n.outputs[0] in outputs
    ]
    unchanged = all(a is b for a, b in zip(nodes, graph.nodes, strict=True))
    return graph if unchanged else with_nodes(folded, kept)


def _is_plain(op: ops.Pad, site: Site) -> bool:
    """Real zeros around rows and columns of an image."""
    fill = 0.0 if op.value is None else op.value
    if not site.output.dtype.is_float:
        fill = op.fill(site) - site.output.quant.zero_point
    if len(op.paddings) != 4 or fill != 0.0:
        return False
    return op.paddings[0] == op.paddings[3] == (0, 0)
