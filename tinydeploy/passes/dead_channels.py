"""Channels that never change, or that nobody reads, leave the graph."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tinydeploy.ir.channels import ChannelCoupler, ChannelIds
from tinydeploy.ir.graph import Graph, Node
from tinydeploy.ir.op import Site
from tinydeploy.ir.types import Array, Quantization, Value, constant
from tinydeploy.ir.verify import site_of
from tinydeploy.numerics import INT32_MAX
from tinydeploy.ops import Conv2D, FullyConnected
from tinydeploy.passes.channels import channel_ids, narrowed
from tinydeploy.passes.ranges import Range, channel_ranges, inputs_by_output, taps_by_channel, windows_inside


def remove_dead_channels(graph: Graph) -> Graph:
    """Removes the channels whose value is one number for every input, and those that nobody reads.

    What a constant channel adds to the layers that read it goes into their biases. Where such a layer pads,
    its border sees less of the channel than its middle, so the channel stays unless it holds the zero point,
    which adds nothing anywhere. A layer keeps at least one channel.

    Requires: a verified graph, float or integer. Ensures: the same outputs, bit for bit in an integer graph
    and to float rounding in a float one. Returns the graph itself where nothing changed.
    """
    while True:
        smaller = _once(graph)
        if smaller is graph:
            return graph
        graph = smaller


def _once(graph: Graph) -> Graph:
    coupler = ChannelCoupler()
    ids = channel_ids(graph, coupler)
    roots = {name: coupler.roots(numbers) for name, numbers in ids.items()}
    ranges = channel_ranges(graph)
    readers = [n for n in graph.nodes if isinstance(n.op, Conv2D | FullyConnected) and n.inputs[0] in roots]
    needed = {int(r) for numbers in roots.values() for r in numbers if coupler.is_frozen(int(r))}
    for node in readers:
        source = str(node.inputs[0])
        needed.update(int(r) for r in roots[source][_missed(graph, node, ranges[source])])
    _keep_one(roots, needed)
    kept = {name: np.flatnonzero(np.isin(r, sorted(needed))) for name, r in roots.items()}
    if all(len(kept[name]) == len(r) for name, r in roots.items()):
        return graph
    values, nodes = dict(graph.values), {node.name: node for node in graph.nodes}
    for node in readers:
        source = str(node.inputs[0])
        gone = ~np.isin(roots[source], sorted(needed))
        bias = _folded(site_of(graph, node), node, ranges[source], gone)
        if bias is not None:
            values[bias.name] = bias
            nodes[node.name] = replace(node, inputs=(*node.inputs[:2], bias.name))
    return narrowed(replace(graph, values=values, nodes=tuple(nodes.values())), kept)


def _keep_one(roots: dict[str, ChannelIds], needed: set[int]) -> None:
    """No layer may lose its last channel: the first one of it stays."""
    while True:
        empty = [r for r in roots.values() if len(r) and not needed.intersection(r.tolist())]
        if not empty:
            return
        needed.update(int(r[0]) for r in empty)


def _missed(graph: Graph, node: Node, x: Range) -> Array:
    """Which input channels the layer cannot do without: (channels,) of bool."""
    op, site = node.op, site_of(graph, node)
    assert isinstance(op, Conv2D | FullyConnected)
    channels = site.input(0).shape[-1]
    if isinstance(op, FullyConnected) and site.input(1).shape[1] % channels:
        # A row of the layer holds parts of several rows of its input.
        return np.ones(channels, np.bool_)
    is_float = site.output.dtype.is_float
    zero = 0 if is_float else site.input(0).padding
    whole = all(rows.all() and columns.all() for rows, columns in windows_inside(op, site))
    foldable = x.constant & (whole | (x.low == zero)) & _fits(op, site, x)
    missed: Array = _read(op, site) & ~foldable
    return missed


def _read(op: Conv2D | FullyConnected, site: Site) -> Array:
    """Which input channels have a weight other than zero somewhere."""
    weights = taps_by_channel(op, site).any(axis=(1, 2))
    order = inputs_by_output(op, site)
    read = np.zeros(site.input(0).shape[-1], np.bool_)
    read[order[weights]] = True
    return read


def _additions(op: Conv2D | FullyConnected, site: Site, x: Range, gone: Array) -> Array:
    """What the constant channels in `gone` add to each sum: (outputs,)."""
    zero = 0 if site.output.dtype.is_float else site.input(0).quant.zero_point
    each = np.where(gone & x.constant, x.low - zero, 0.0)
    weights = taps_by_channel(op, site).astype(np.float64).sum(axis=(1, 2))
    total: Array = (weights * each[inputs_by_output(op, site)]).sum(axis=1)
    return total


def _fits(op: Conv2D | FullyConnected, site: Site, x: Range) -> bool:
    """Whether the biases stay int32, whichever of the constant channels go into them."""
    bias = site.optional(2)
    if site.output.dtype.is_float:
        return True
    zero = site.input(0).quant.zero_point
    each = np.where(x.constant, np.abs(x.low - zero), 0.0)
    weights = np.abs(taps_by_channel(op, site).astype(np.float64)).sum(axis=(1, 2))
    reach = (weights * each[inputs_by_output(op, site)]).sum(axis=1)
    return bool((reach + (0 if bias is None else np.abs(bias.array.astype(np.int64)))).max() <= INT32_MAX)


def _folded(site: Site, node: Node, x: Range, gone: Array) -> Value | None:
    """The layer's bias with what the removed channels add, or None where they add nothing."""
    op = node.op
    assert isinstance(op, Conv2D | FullyConnected)
    more = _additions(op, site, x, gone)
    if not more.any():
        return None
    old = site.optional(2)
    name = f"{node.name}.bias.folded" if old is None else f"{old.name}.folded"
    start = 0 if old is None else old.array.astype(np.float64)
    if site.output.dtype.is_float:
        return constant(name, (start + more).astype(np.float32))
    weights = site.input(1).quant
    scales = tuple(float(np.float32(site.input(0).quant.scale * s)) for s in weights.scales)
    quantization = Quantization(scales, (0,) * len(scales), 0 if len(scales) > 1 else None)
    return constant(name, (start + more).astype(np.int32), quantization if old is None else old.quantization)
