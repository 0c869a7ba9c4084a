"""How much each channel matters, by one of several measures."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Graph, Node
from tinydeploy.ir.types import Array
from tinydeploy.ops import DepthwiseConv2D
from tinydeploy.prune.groups import Groups

Gradients = Mapping[str, Array]
"""For each weight constant the gradient of the loss, of the constant's shape."""

_Measure = Callable[[Array], Array]


def _l1(rows: Array) -> Array:
    result: Array = np.abs(rows).sum(axis=1)
    return result


def _l2(rows: Array) -> Array:
    result: Array = np.sqrt((rows**2).sum(axis=1))
    return result


_NORMS: dict[str, _Measure] = {"l1": _l1, "l2": _l2}

IMPORTANCES = ("l1", "l2", "bn", "taylor", "random")
"""The measures:

l1, l2: norm of the weights that write a channel (Li et al. 2017, "Pruning Filters for Efficient ConvNets",
section 3.1).
bn: magnitude of the batch norm's scale as the model came with it (Liu et al. 2017, "Learning Efficient
Convolutional Networks through Network Slimming", section 3).
taylor: what the loss does, to first order, when the channel goes: the sum of parameter times gradient, bias
included, squared and averaged over batches; here its root (Molchanov et al. 2019, "Importance Estimation for
Neural Network Pruning", equation 8 for a gate on the channel).
random: a seeded draw, the baseline.
"""


def importance(
    graph: Graph,
    groups: Groups,
    measure: str,
    *,
    gradients: Iterable[Gradients] | None = None,
    seed: int = 0,
) -> dict[int, float]:
    """A number for every channel root that may be removed; larger matters more.

    Each layer's numbers are divided by their mean over the layer, so that layers of different scale can be
    compared, and averaged over the layers that write the channel. Scales of batch norms are compared as they
    are: what they multiply has variance 1 in every layer.

    Args:
        gradients: one entry a batch of data, for `taylor`.

    Raises:
        DeployError: the measure does not exist, `taylor` was given no gradients, or `bn` finds no batch norm
            behind the channels of a group.
    """
    if measure not in IMPORTANCES:
        raise DeployError(
            f"{measure!r} is no importance", where="--importance", hint=f"one of {', '.join(IMPORTANCES)}"
        )
    if measure == "taylor" and gradients is None:
        raise DeployError("taylor importance needs gradients", where="--importance", hint="give it data")
    if measure == "bn":
        return _norm_scales(graph, groups)
    if measure == "random":
        return _drawn(groups, seed)
    layers = [n for n in graph.nodes if any(n.name in g.layers for g in groups.groups)]
    scores = {n.name: _NORMS[measure](_rows(graph, n)) for n in layers} if measure in _NORMS else {}
    if gradients is not None and measure == "taylor":
        scores = _taylor(graph, layers, gradients)
    means = {name: float(score.mean()) for name, score in scores.items()}
    result: dict[int, float] = {}
    for group in groups.groups:
        for channel in group.channels:
            own = [float(scores[n][i]) / means[n] if means[n] > 0 else 0.0 for n, i in channel.outputs]
            # The mean, not the sum: a channel of a residual stream is not worth more for being written often.
            result[channel.root] = sum(own) / len(own)
    return result


def _drawn(groups: Groups, seed: int) -> dict[int, float]:
    result: dict[int, float] = {}
    for group in groups.groups:
        # By the group's name, so that a draw does not depend on what else is in the network.
        rng = np.random.default_rng([seed, zlib.crc32(group.name.encode())])
        drawn = rng.random(len(group.channels))
        result.update({c.root: float(v) for c, v in zip(group.channels, drawn, strict=True)})
    return result


def _norm_scales(graph: Graph, groups: Groups) -> dict[int, float]:
    """The mean magnitude of the scales that multiply each channel, wherever on its way that is."""
    where = graph.source or graph.name
    if not graph.norm_scales:
        raise DeployError(
            "holds no batch norm to rank channels by",
            where=where,
            hint="take another --importance; an exporter may have folded the batch norms before this file"
            " was written (TFLite always, torch.onnx.export in evaluation mode)",
        )
    found: dict[int, list[float]] = defaultdict(list)
    for node in graph.nodes:
        if node.name in graph.norm_scales:
            scale = np.abs(graph.norm_scales[node.name])
            for root, value in zip(groups.roots[node.outputs[0]], scale, strict=True):
                found[int(root)].append(float(value))
    bare = [g.name for g in groups.groups if any(c.root not in found for c in g.channels)]
    if bare:
        raise DeployError(
            f"no batch norm scales the channels of {', '.join(repr(name) for name in bare)}",
            where=where,
            hint="protect these layers with --protect, or take another --importance",
        )
    return {c.root: sum(found[c.root]) / len(found[c.root]) for g in groups.groups for c in g.channels}


def _taylor(graph: Graph, layers: Sequence[Node], gradients: Iterable[Gradients]) -> dict[str, Array]:
    squares = {n.name: np.zeros(len(_rows(graph, n))) for n in layers}
    batches = 0
    for batch in gradients:
        batches += 1
        for node in layers:
            change = (_rows(graph, node) * _rows(graph, node, batch)).sum(axis=1)
            if len(node.inputs) > 2 and node.inputs[2] is not None:
                bias = node.inputs[2]
                change = change + graph.value(bias).array * batch[bias]
            squares[node.name] += change**2
    return {name: np.sqrt(total / max(batches, 1)) for name, total in squares.items()}


def _rows(graph: Graph, node: Node, arrays: Gradients | None = None) -> Array:
    """The weights of a layer, or as many gradients, one row an output channel, in double precision."""
    name = str(node.inputs[1])
    weights = graph.value(name).array if arrays is None else arrays[name]
    moved = np.moveaxis(weights.astype(np.float64), 3 if isinstance(node.op, DepthwiseConv2D) else 0, 0)
    return moved.reshape(moved.shape[0], -1)
