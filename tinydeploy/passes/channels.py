"""Channels of a whole graph: their numbers by each op's coupling rule, and a graph with fewer of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from tinydeploy.ir.channels import ChannelCoupler, ChannelIds, Kept
from tinydeploy.ir.forms import Planes
from tinydeploy.ir.graph import Graph, Node
from tinydeploy.ir.types import Array, Quantization, Value
from tinydeploy.ir.verify import site_of, verify


def channel_ids(
    graph: Graph, coupler: ChannelCoupler, protected: Collection[str] = ()
) -> dict[str, ChannelIds]:
    """For each activation one number per index of its last axis; inputs and outputs are frozen.

    Args:
        protected: names of nodes whose output channels stay as well.
    """
    ids = {name: coupler.frozen(_last_axis(graph.value(name).shape)) for name in graph.inputs}
    for node in graph.nodes:
        operands = [None if n is None or graph.value(n).is_constant else ids[n] for n in node.inputs]
        output = _couple(graph, node, operands, coupler)
        if node.name in protected:
            coupler.freeze(output)
        ids[node.outputs[0]] = output
    coupler.freeze(*(ids[name] for name in graph.outputs))
    return ids


def _couple(
    graph: Graph, node: Node, operands: list[ChannelIds | None], coupler: ChannelCoupler
) -> ChannelIds:
    site = site_of(graph, node)
    if all(numbers is None for numbers in operands):
        return coupler.frozen(_last_axis(site.output.shape))
    return node.op.couple(site, operands, coupler)


def _last_axis(shape: tuple[int, ...]) -> int:
    return shape[-1] if shape else 1


def narrowed(graph: Graph, kept: Mapping[str, Kept]) -> Graph:
    """The graph with only some channels of each activation.

    Requires: for every activation the indices of its last axis that stay, at least one, and the same ones
    of values whose channels are tied. Ensures: passes the verifier.
    """
    values = dict(graph.values)
    nodes: list[Node] = []
    for node in graph.nodes:
        output = kept[node.outputs[0]]
        inputs = [None if n is None or graph.value(n).is_constant else kept[n] for n in node.inputs]
        if all(k is None for k in inputs):
            nodes.append(node)
            continue
        op, constants = node.op.narrow(site_of(graph, node), inputs, output)
        names = list(node.inputs)
        for index, data in constants.items():
            narrow = _narrow_constant(graph, node, index, data, inputs, output)
            names[index] = narrow.name
            values[narrow.name] = narrow
        nodes.append(replace(node, op=op, inputs=tuple(names)))
    for name, indices in kept.items():
        value = graph.value(name)
        if value.shape:
            values[name] = replace(value, shape=(*value.shape[:-1], len(indices)))
    used = {n for node in nodes for n in node.inputs if n is not None} | set(kept)
    stays = {node.name: np.asarray(kept[node.outputs[0]]) for node in nodes}
    result = replace(
        graph,
        values={n: v for n, v in values.items() if n in used},
        nodes=tuple(nodes),
        norm_scales={n: scale[stays[n]] for n, scale in graph.norm_scales.items() if n in stays},
    )
    verify(result)
    return result


def _narrow_constant(
    graph: Graph, node: Node, index: int, data: Array, kept: Sequence[Kept | None], output: Kept
) -> Value:
    """A constant of one node; one that several nodes share gets a name of its own."""
    name = str(node.inputs[index])
    value = graph.value(name)
    shared = sum(n == name for other in graph.nodes for n in other.inputs) > 1
    copy = np.ascontiguousarray(data)
    copy.setflags(write=False)
    quantization = value.quantization
    if quantization is not None and quantization.axis is not None:
        quantization = Quantization(
            tuple(quantization.scales[i] for i in output),
            tuple(quantization.zero_points[i] for i in output),
            quantization.axis,
        )
    form = _narrow_planes(graph, node, index, kept, output) if isinstance(value.form, Planes) else value.form
    return Value(f"{name}/{node.name}" if shared else name, value.dtype, copy.shape, quantization, copy, form)


def _narrow_planes(graph: Graph, node: Node, index: int, kept: Sequence[Kept | None], output: Kept) -> Planes:
    """The same channels of each plane of signs, by the rule that narrows the weights."""
    site = site_of(graph, node)
    form = site.input(index).form
    assert isinstance(form, Planes)
    planes = []
    for signs in form.signs:
        inputs = [replace(v, data=signs) if i == index and v else v for i, v in enumerate(site.inputs)]
        planes.append(node.op.narrow(replace(site, inputs=tuple(inputs)), kept, output)[1][index])
    return Planes(np.stack(planes), np.ascontiguousarray(form.coefficients[:, output]), form.axis)
