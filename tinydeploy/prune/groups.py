"""Coupled channel groups, derived from the coupling rule of each op."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tinydeploy.ir.channels import ChannelCoupler, ChannelIds
from tinydeploy.ir.graph import Graph
from tinydeploy.ops import Conv2D, DepthwiseConv2D, FullyConnected
from tinydeploy.passes.channels import channel_ids

PRODUCERS = (Conv2D, FullyConnected)
"""Ops that make new channels; what they make may be removed."""

WEIGHTED = (Conv2D, DepthwiseConv2D, FullyConnected)


@dataclass(frozen=True)
class Channel:
    """Channels of several layers that are one: they stay or go together.

    Attributes:
        root: its number.
        outputs: (node name, output channel) of every weighted layer that writes it.
        inputs: (node name, input channel) of every Conv2D or FullyConnected that reads it.
    """

    root: int
    outputs: tuple[tuple[str, int], ...]
    inputs: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Group:
    """Channels that the same layers write: one width of the network.

    Attributes:
        layers: names of the Conv2D, DepthwiseConv2D and FullyConnected nodes that write it.
        consumers: names of the Conv2D and FullyConnected nodes that read it.
        channels: every one may be removed, as long as one stays.
    """

    layers: tuple[str, ...]
    consumers: tuple[str, ...]
    channels: tuple[Channel, ...]

    @property
    def name(self) -> str:
        return self.layers[0]


@dataclass(frozen=True)
class Groups:
    """All groups of a graph and the channel roots of every value.

    Attributes:
        roots: for each activation one root per index of its last axis.
        frozen: names of the weighted layers whose outputs must stay.
    """

    groups: tuple[Group, ...]
    roots: dict[str, ChannelIds]
    frozen: tuple[str, ...]


def find_groups(graph: Graph, protected: Iterable[str] = ()) -> Groups:
    """Derives the groups of a graph.

    Args:
        protected: names of nodes whose output channels stay.
    """
    coupler = ChannelCoupler()
    ids = channel_ids(graph, coupler, set(protected))
    roots = {name: coupler.roots(numbers) for name, numbers in ids.items()}
    outputs: dict[int, list[tuple[str, int]]] = defaultdict(list)
    inputs: dict[int, list[tuple[str, int]]] = defaultdict(list)
    frozen: list[str] = []
    for node in graph.nodes:
        if not isinstance(node.op, WEIGHTED):
            continue
        numbers = roots[node.outputs[0]]
        if any(coupler.is_frozen(int(r)) for r in numbers):
            frozen.append(node.name)
        for channel, root in enumerate(numbers):
            outputs[int(root)].append((node.name, channel))
        if isinstance(node.op, PRODUCERS):
            for channel, root in enumerate(roots[str(node.inputs[0])]):
                inputs[int(root)].append((node.name, channel))
    return Groups(_collect(graph, coupler, outputs, inputs), roots, tuple(frozen))


def _collect(
    graph: Graph,
    coupler: ChannelCoupler,
    outputs: dict[int, list[tuple[str, int]]],
    inputs: dict[int, list[tuple[str, int]]],
) -> tuple[Group, ...]:
    order = {node.name: i for i, node in enumerate(graph.nodes)}
    by_layers: dict[tuple[str, ...], list[Channel]] = defaultdict(list)
    for root, writers in outputs.items():
        if not coupler.is_frozen(root):
            layers = tuple(sorted({name for name, _ in writers}, key=order.__getitem__))
            by_layers[layers].append(Channel(root, tuple(writers), tuple(inputs[root])))
    groups = []
    for layers, channels in by_layers.items():
        readers = {name for channel in channels for name, _ in channel.inputs}
        consumers = tuple(sorted(readers, key=order.__getitem__))
        groups.append(Group(layers, consumers, tuple(channels)))
    return tuple(sorted(groups, key=lambda g: order[g.name]))


def kept_channels(groups: Groups, removed: frozenset[int]) -> dict[str, ChannelIds]:
    """For every activation the indices of its last axis that stay."""
    gone = np.array(sorted(removed), dtype=np.int64)
    return {name: np.flatnonzero(~np.isin(roots, gone)) for name, roots in groups.roots.items()}
