"""Removing channels from a graph, and masking them, which must come to the same."""

from __future__ import annotations

from dataclasses import replace

from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array, Value
from tinydeploy.passes.channels import narrowed
from tinydeploy.prune.groups import Groups, kept_channels


def remove(graph: Graph, groups: Groups, removed: frozenset[int]) -> Graph:
    """The graph without the channels whose roots are in `removed`.

    Requires: `groups` of this very graph; float or integer.
    Ensures: equal, to float rounding, to `mask` of the same channels; passes the verifier.

    Raises:
        DeployError: a layer would keep no channel.
    """
    kept = kept_channels(groups, removed)
    for name in graph.inputs:
        _require_some(name, kept[name], graph)
    for node in graph.nodes:
        _require_some(node.name, kept[node.outputs[0]], graph)
    return narrowed(graph, kept)


def _require_some(name: str, kept: Array, graph: Graph) -> None:
    if len(kept) == 0:
        raise DeployError(
            "would lose its last channel",
            where=f"{graph.source or graph.name}: {name!r}",
            hint="prune less, or protect the layer",
        )


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
