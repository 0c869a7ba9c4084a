"""The verifier: what must hold of every graph, whoever built it."""

from __future__ import annotations

import math

from tinydeploy.errors import DeployError
from tinydeploy.ir import limits
from tinydeploy.ir.form_check import unfit
from tinydeploy.ir.graph import Graph, Node
from tinydeploy.ir.op import Site
from tinydeploy.ir.types import DType, Quantization, Value


def verify(graph: Graph) -> None:
    """Checks names, order, shapes, types, quantization, each op's support limits, and sizes.

    Raises:
        DeployError: naming the layer or tensor, the fact and what to do; the first one found.
    """
    where = graph.source or graph.name
    if len(graph.nodes) > limits.MAX_NODES:
        raise DeployError(f"{len(graph.nodes)} layers; the limit is {limits.MAX_NODES}", where=where)
    for name, value in graph.values.items():
        _verify_value(name, value, where)
    total = sum(v.elements for v in graph.values.values())
    if total > limits.MAX_TOTAL_ELEMENTS:
        raise DeployError(
            f"all tensors together have {total} elements; the limit is {limits.MAX_TOTAL_ELEMENTS}",
            where=where,
        )
    _verify_borders(graph, where)
    _verify_nodes(graph, where)


def site_of(graph: Graph, node: Node) -> Site:
    """The values around a node."""
    return Site(graph.node_inputs(node), graph.node_outputs(node))


def node_macs(graph: Graph, node: Node) -> int:
    return node.op.macs(site_of(graph, node))


def graph_macs(graph: Graph) -> int:
    """Multiply-accumulates of one inference."""
    return sum(node_macs(graph, node) for node in graph.nodes)


def _verify_value(name: str, value: Value, where: str) -> None:
    here = f"{where}: tensor {name!r}"
    if name != value.name:
        raise DeployError(f"is filed under another name than its own, {value.name!r}", where=here)
    if len(value.shape) > limits.MAX_RANK:
        raise DeployError(f"has {len(value.shape)} axes; the limit is {limits.MAX_RANK}", where=here)
    if any(n < 1 for n in value.shape):
        raise DeployError(f"has the empty or unknown shape {value.shape}", where=here)
    if math.prod(value.shape) > limits.MAX_ELEMENTS:
        raise DeployError(
            f"has {math.prod(value.shape)} elements; the limit is {limits.MAX_ELEMENTS}", where=here
        )
    if value.data is not None and (
        value.data.shape != value.shape or value.data.dtype != value.dtype.numpy or value.data.flags.writeable
    ):
        raise DeployError("holds data of another shape or type, or data that can be changed", where=here)
    if value.quantization is not None:
        _verify_quantization(value.quantization, value, here)
    if value.form is not None:
        fact = unfit(value)
        if fact:
            raise DeployError(fact, where=here, hint="the file is damaged, or its bits were changed by hand")


def _verify_quantization(quant: Quantization, value: Value, here: str) -> None:
    if value.dtype.is_float:
        raise DeployError("is float and has a quantization", where=here)
    for scale in quant.scales:
        if not (math.isfinite(scale) and scale > 0.0):
            raise DeployError(f"has the scale {scale!r}, which is not a positive number", where=here)
    low, high = value.dtype.limits
    for zero_point in quant.zero_points:
        if not low <= zero_point <= high:
            raise DeployError(
                f"has the zero point {zero_point}, which is no {value.dtype.value}",
                where=here,
            )
    count = 1
    if quant.axis is not None:
        if not 0 <= quant.axis < len(value.shape):
            raise DeployError(f"is quantized along axis {quant.axis} of {len(value.shape)}", where=here)
        count = value.shape[quant.axis]
    if len(quant.scales) != count or len(quant.zero_points) != count:
        raise DeployError(
            f"has {len(quant.scales)} scales and {len(quant.zero_points)} zero points for {count} channels",
            where=here,
        )


def _verify_borders(graph: Graph, where: str) -> None:
    if not graph.inputs or not graph.outputs:
        raise DeployError("the model has no input or no output", where=where)
    if len(set(graph.inputs)) != len(graph.inputs) or len(set(graph.outputs)) != len(graph.outputs):
        raise DeployError("an input or output is listed twice", where=where)
    if len(graph.input_borders) != len(graph.inputs) or len(graph.output_borders) != len(graph.outputs):
        raise DeployError("the borders do not match the inputs and outputs", where=where)
    for name in (*graph.inputs, *graph.outputs):
        if name not in graph.values:
            raise DeployError(f"the input or output {name!r} does not exist", where=where)
        value = graph.value(name)
        if value.is_constant:
            raise DeployError(f"the input or output {name!r} is a constant", where=where)
        if value.dtype not in (DType.INT8, DType.UINT8, DType.FLOAT32):
            raise DeployError(
                f"the input or output {name!r} is {value.dtype.value}",
                where=where,
                hint="inputs and outputs are int8, uint8 or float32",
            )


def _verify_nodes(graph: Graph, where: str) -> None:
    known = {*graph.inputs, *(v.name for v in graph.constants())}
    names: set[str] = set()
    macs = 0
    for node in graph.nodes:
        here = f"{where}: {node.op.kind} {node.name!r}"
        if node.name in names:
            raise DeployError("is the name of two layers", where=here)
        names.add(node.name)
        _verify_edges(graph, node, known, here)
        try:
            _verify_shape(graph, node)
            # Before the op's own check, whose work grows with its weights.
            macs += node_macs(graph, node)
            if macs > limits.MAX_MACS:
                raise DeployError(f"over {limits.MAX_MACS} multiply-accumulates, which is the limit")
            node.op.check(site_of(graph, node))
        except DeployError as error:
            raise DeployError(error.fact, where=here, hint=error.hint) from None
        known.update(node.outputs)
    _verify_norm_scales(graph, where)
    for name in graph.outputs:
        if name not in known:
            raise DeployError(f"nothing computes the output {name!r}", where=where)


def _verify_norm_scales(graph: Graph, where: str) -> None:
    outputs = {node.name: graph.value(node.outputs[0]) for node in graph.nodes}
    for name, scale in graph.norm_scales.items():
        if name not in outputs or scale.shape != outputs[name].shape[-1:]:
            raise DeployError("has a batch-norm scale that does not fit", where=f"{where}: {name!r}")


def _verify_edges(graph: Graph, node: Node, known: set[str], here: str) -> None:
    least, most = node.op.arity
    if not least <= len(node.inputs) <= most:
        raise DeployError(f"has {len(node.inputs)} inputs, not {least} to {most}", where=here)
    if len(node.outputs) != 1:
        raise DeployError(f"has {len(node.outputs)} outputs, not 1", where=here)
    for name in node.inputs:
        if name is not None and name not in known:
            raise DeployError(f"reads {name!r}, which nothing has computed yet", where=here)
    for name in node.outputs:
        if name not in graph.values:
            raise DeployError(f"writes {name!r}, which does not exist", where=here)
        if name in known:
            raise DeployError(f"writes {name!r}, which something else gives already", where=here)


def _verify_shape(graph: Graph, node: Node) -> None:
    site = site_of(graph, node)
    expected = node.op.output_shape(site)
    if expected != site.output.shape:
        raise DeployError(
            f"the output {site.output.name!r} is declared as {site.output.shape} and computes to {expected}",
            hint="the file is damaged or was made by a tool that this version does not know",
        )
    if site.output.elements > limits.MAX_ELEMENTS:
        raise DeployError(f"the output has {site.output.elements} elements")
