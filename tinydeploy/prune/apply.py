"""Removing channels from a graph, and masking them, which must come to the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Graph, Node
from tinydeploy.ir.types import Array, Quantization, Value
from tinydeploy.ir.verify import site_of, verify
from tinydeploy.prune.groups import Groups, kept_channels


def remove(graph: Graph, groups: Groups, removed: frozenset[int]) -> Graph:
    """The graph without the channels whose roots are in `removed`.

    Requires: `groups` of this very graph; float or integer.
    Ensures: equal, to float rounding, to `mask` of the same channels; passes the verifier.

    Raises:
        DeployError: a layer would keep no channel.
    """
    kept = kept_channels(groups, removed)
    values = dict(graph.values)
    nodes: list[Node] = []
    for name in graph.inputs:
        _require_some(name, kept[name], graph)
    for node in graph.nodes:
        output = kept[node.outputs[0]]
        _require_some(node.name, output, graph)
        inputs = [None if n is None or graph.value(n).is_constant else kept[n] for n in node.inputs]
        if all(k is None for k in inputs):
            nodes.append(node)
            continue
        op, constants = node.op.narrow(site_of(graph, node), inputs, output)
        names = list(node.inputs)
        for index, data in constants.items():
            narrowed = _narrow_constant(graph, node, index, data, kept)
            names[index] = narrowed.name
            values[narrowed.name] = narrowed
        nodes.append(replace(node, op=op, inputs=tuple(names)))
    for name, indices in kept.items():
        value = graph.value(name)
        if value.shape:
            values[name] = replace(value, shape=(*value.shape[:-1], len(indices)))
    used = {n for node in nodes for n in node.inputs if n is not None} | set(kept)
    outputs = {node.name: node.outputs[0] for node in nodes}
    result = replace(
        graph,
        values={n: v for n, v in values.items() if n in used},
        nodes=tuple(nodes),
        norm_scales={n: scale[kept[outputs[n]]] for n, scale in graph.norm_scales.items()},
    )
    verify(result)
    return result


def _require_some(name: str, kept: Array, graph: Graph) -> None:
    if len(kept) == 0:
        raise DeployError(
            "would lose its last channel",
            where=f"{graph.source or graph.name}: {name!r}",
            hint="prune less, or protect the layer",
        )


def _narrow_constant(graph: Graph, node: Node, index: int, data: Array, kept: dict[str, Array]) -> Value:
    """A constant of one node; one that several nodes share gets a name of its own."""
    name = str(node.inputs[index])
    value = graph.value(name)
    shared = sum(n == name for other in graph.nodes for n in other.inputs) > 1
    copy = np.ascontiguousarray(data)
    copy.setflags(write=False)
    quantization = value.quantization
    if quantization is not None and quantization.axis is not None:
        channels = kept[node.outputs[0]]
        quantization = Quantization(
            tuple(quantization.scales[i] for i in channels),
            tuple(quantization.zero_points[i] for i in channels),
            quantization.axis,
        )
    return Value(f"{name}/{node.name}" if shared else name, value.dtype, copy.shape, quantization, copy)


def mask(graph: Graph, groups: Groups, removed: frozenset[int]) -> Graph:
    """The graph in its old shape whose layers no longer see the channels in `removed`.

    The weights with which Conv2D and FullyConnected read such a channel become zero. Its layers still
    write it, and nothing depends on it.
    """
    values = dict(graph.values)
    for group in groups.groups:
        for channel in group.channels:
            if channel.root not in removed:
                continue
            for name, index in channel.inputs:
                _zero_input(graph, values, name, index)
    return replace(graph, values=values)


def _zero_input(graph: Graph, values: dict[str, Value], node_name: str, index: int) -> None:
    node = next(n for n in graph.nodes if n.name == node_name)
    weights_name = str(node.inputs[1])
    weights = values[weights_name]
    data = weights.array.copy()
    channels = graph.value(str(node.inputs[0])).shape[-1]
    if data.ndim == 2:
        data[:, index::channels] = 0
    else:
        per_group = data.shape[3]
        group, position = divmod(index, per_group)
        outputs = data.shape[0] // (channels // per_group)
        data[group * outputs : (group + 1) * outputs, :, :, position] = 0
    data.setflags(write=False)
    values[weights_name] = replace(weights, data=data)
