"""What each channel of each activation can hold, whatever the input is: proved, not observed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinydeploy.ir.channels import ChannelCoupler
from tinydeploy.ir.forms import Signs
from tinydeploy.ir.graph import Graph, Node
from tinydeploy.ir.op import Site
from tinydeploy.ir.types import Array, Value
from tinydeploy.ir.verify import site_of
from tinydeploy.ops import Conv2D, DepthwiseConv2D, FullyConnected

Linear = Conv2D | DepthwiseConv2D | FullyConnected


@dataclass(frozen=True)
class Range:
    """The least and the greatest element of each channel of the last axis, as float64."""

    low: Array
    high: Array

    @property
    def constant(self) -> Array:
        """Which channels are one and the same number at every position."""
        fixed: Array = (self.low == self.high) & np.isfinite(self.low)
        return fixed


def channel_ranges(graph: Graph) -> dict[str, Range]:
    """The range of every activation of a verified graph."""
    found = {name: _anything(graph.value(name)) for name in graph.inputs}
    for node in graph.nodes:
        site = site_of(graph, node)
        inputs = [found.get(n or "") for n in node.inputs]
        if isinstance(node.op, Linear) and inputs[0] is not None:
            found[node.outputs[0]] = _of_linear(node.op, site, inputs[0])
        else:
            found[node.outputs[0]] = _of_other(node, site, inputs)
    return found


def _anything(value: Value) -> Range:
    channels = value.shape[-1] if value.shape else 1
    low, high = (-np.inf, np.inf) if value.dtype.is_float else value.limits
    return Range(np.full(channels, low, np.float64), np.full(channels, high, np.float64))


def _of_other(node: Node, site: Site, inputs: list[Range | None]) -> Range:
    """An op that works on each channel by itself is run on the constant channels; others say nothing."""
    result = _anything(site.output)
    sources = [(i, r) for i, r in enumerate(inputs) if r is not None]
    if not any(r.constant.any() for _, r in sources) or not site.output.shape:
        return result
    coupler = ChannelCoupler()
    ids = [None if r is None else coupler.fresh(len(r.low)) for r in inputs]
    outputs = node.op.couple(site, ids, coupler)
    varying = [coupler.roots(n)[~r.constant] for n, r in zip(ids, inputs, strict=True) if n is not None and r]
    arrays: list[Array | None] = [
        None if v is None else v.array[np.newaxis] if v.is_constant else np.zeros(()) for v in site.inputs
    ]
    for i, r in sources:
        value = site.input(i)
        filled = np.where(r.constant, r.low, 0).astype(value.dtype.numpy)
        arrays[i] = np.broadcast_to(filled, (1, *value.shape))
    compute = node.op.run_float if site.output.dtype.is_float else node.op.run_integer
    rows = compute(site, arrays).reshape(-1, site.output.shape[-1])
    settled = (rows == rows[0]).all(axis=0) & ~np.isin(coupler.roots(outputs), np.concatenate(varying))
    settled &= np.array([not coupler.is_frozen(int(i)) for i in outputs])
    exact = rows[0].astype(np.float64)
    return Range(np.where(settled, exact, result.low), np.where(settled, exact, result.high))


def _of_linear(op: Linear, site: Site, x: Range) -> Range:
    """The least and the greatest sum of products, for each way in which the border cuts the window."""
    cuts = windows_inside(op, site)
    if isinstance(site.input(0).form, Signs):
        # Around signs stands -1, not the real 0: as if the image were wider and could hold it.
        around = float(site.input(0).padding)
        whole = all(rows.all() and columns.all() for rows, columns in cuts)
        x = x if whole else Range(np.minimum(x.low, around), np.maximum(x.high, around))
        cuts = [(np.ones_like(rows), np.ones_like(columns)) for rows, columns in cuts[:1]]
    least, most, size = _products(op, site, x)
    lows, highs = [], []
    for rows, columns in cuts:
        low, high, reach = (e[:, rows][:, :, columns].sum(axis=(1, 2)) for e in (least, most, size))
        if site.output.dtype.is_float:
            # Sums are rounded on their way, by at most so much; a sum of constants is the same each time.
            depth = taps_by_channel(op, site)[0].size + 1
            margin = np.where(low == high, 0.0, (1 + reach) * depth * float(np.finfo(np.float32).eps))
            low, high = low - margin, high + margin
        lows.append(_outputs(op, site, low))
        highs.append(_outputs(op, site, high))
    return Range(np.min(lows, axis=0), np.max(highs, axis=0))


def taps_by_channel(op: Linear, site: Site) -> Array:
    """The weights as (outputs, rows, columns, inputs of one output)."""
    weights = site.input(1).array
    if isinstance(op, DepthwiseConv2D):
        return np.moveaxis(weights, 3, 0).transpose(0, 2, 3, 1)
    return weights.reshape(weights.shape[0], 1, 1, -1) if isinstance(op, FullyConnected) else weights


def inputs_by_output(op: Linear, site: Site) -> Array:
    """The input channels of each output, (outputs, inputs of one output), in the order of the weights."""
    outputs, _, _, depth = taps_by_channel(op, site).shape
    channels = site.input(0).shape[-1]
    if isinstance(op, DepthwiseConv2D):
        return np.arange(outputs).reshape(-1, 1) // op.multiplier(site)
    if isinstance(op, FullyConnected):
        return np.broadcast_to(np.arange(depth) % channels, (outputs, depth))
    group = np.arange(outputs).reshape(-1, 1) // (outputs // op.groups(site))
    return group * depth + np.arange(depth)


def windows_inside(op: Linear, site: Site) -> list[tuple[Array, Array]]:
    """The kernel rows and columns inside the image, for each way in which its border cuts the window."""
    if isinstance(op, FullyConnected):
        return [(np.array([True]), np.array([True]))]
    window, p = op.window(site), op.padding

    def cuts(axis: int, before: int) -> list[Array]:
        start = np.arange(site.output.shape[1 + axis]) * window.strides[axis] - before
        taps = start[:, None] + np.arange(window.kernel[axis]) * window.dilations[axis]
        return list(np.unique((taps >= 0) & (taps < site.input(0).shape[1 + axis]), axis=0))

    return [(rows, columns) for rows in cuts(0, p.top) for columns in cuts(1, p.left)]


def _products(op: Linear, site: Site, x: Range) -> tuple[Array, Array, Array]:
    """The least and the greatest of each tap's products and their largest size, summed over the inputs.

    Each is (outputs, rows, columns); each size has that of the bias in it.
    """
    weights = taps_by_channel(op, site).astype(np.float64)
    order = inputs_by_output(op, site)
    zero = 0 if site.output.dtype.is_float else site.input(0).quant.zero_point
    with np.errstate(invalid="ignore"):
        a, b = (
            np.where(weights == 0, 0.0, weights * (end[order] - zero)[:, None, None, :])
            for end in (x.low, x.high)
        )
    bias = site.optional(2)
    size = np.maximum(np.abs(a), np.abs(b)).sum(axis=3)
    if bias is not None:
        size = size + np.abs(bias.array.astype(np.float64))[:, None, None]
    return np.minimum(a, b).sum(axis=3), np.maximum(a, b).sum(axis=3), size


def _outputs(op: Linear, site: Site, sums: Array) -> Array:
    """Sums of products as elements of the output; the rule never falls where the sum grows."""
    bias = site.optional(2)
    acc = sums if bias is None else sums + bias.array
    if site.output.dtype.is_float:
        clamped: Array = op.activation.apply(acc.astype(np.float32)).astype(np.float64)
        return clamped
    return op.parameters(site).requantization.apply_wide(acc.astype(np.int64)).astype(np.float64)
