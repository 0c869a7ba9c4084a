"""Quantization noise gains of weights and activations, from gradients through the trainable form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array
from tinydeploy.quantize.calibrate import calibrate
from tinydeploy.quantize.recipe import linear_nodes
from tinydeploy.quantize.rules import rule_of
from tinydeploy.trainable import make_trainable, require_torch

if TYPE_CHECKING:
    from torch import Tensor

# A decision at a tie would have an infinite gain; a margin this small is a tie.
_LEAST_MARGIN = 1e-3


@dataclass(frozen=True)
class Gain:
    """Of one layer with weights, for tensors that span [-1, 1].

    Attributes:
        weights: E_W, for symmetric integers per output channel.
        activations: E_A, of what the layer reads.
        reads: the name of that tensor, which other layers may read as well.
    """

    name: str
    weights: float
    activations: float
    reads: str


def noise_gains(graph: Graph, inputs: Sequence[Array]) -> tuple[Gain, ...]:
    """The noise gains of each layer with weights, in execution order.

    `E = mean over samples of sum_{i != y} sum_h (r_h d(z_i - z_y)/dh)^2 / (24 (z_i - z_y)^2)`: h runs over
    the elements of the tensor, r_h is the half range of its integers (the peak of its channel for weights,
    half of what calibration saw for activations), z are the logits and y is what the float network decides.

    Source: Sakr and Shanbhag (ICASSP 2018), equation 3, with ranges other than [-1, 1] put into the gain.

    Args:
        graph: float, with one input and an output of at least two classes.
        inputs: one float32 array (samples, *value.shape); a few dozen samples suffice.

    Raises:
        DeployError: the graph is not float or decides nothing.
        MissingExtraError: PyTorch is not installed.
    """
    ranges = calibrate(graph, inputs)
    reads = {n.name: str(n.inputs[0]) for n in linear_nodes(graph)}
    halves = {x: (ranges[x].high - ranges[x].low) / 2.0 for x in reads.values()}
    weights, activations = tensor_gains(graph, inputs, halves)
    return tuple(Gain(name, weights[name], activations[x], x) for name, x in reads.items())


def tensor_gains(
    graph: Graph, inputs: Sequence[Array], halves: Mapping[str, float]
) -> tuple[dict[str, float], dict[str, float]]:
    """The noise gains of the weights of each layer by its name, and of activations by theirs.

    Args:
        halves: of the activations that are asked for, by name, half of the range of their integers.

    Raises:
        As `noise_gains`.
    """
    require_torch("noise gains")
    import torch  # noqa: PLC0415  # heavy, and an optional extra

    module = make_trainable(graph).eval()
    logits, _ = module.logits_name()
    if graph.value(logits).elements < 2:
        raise DeployError(
            "has one output, and noise gains need a decision between two or more",
            where=graph.source or graph.name,
        )
    layers = linear_nodes(graph)
    peaks = [_half_ranges(graph, node.inputs[1], rule_of(graph, node).weights_axis) for node in layers]
    scales = [*peaks, *(np.full(1, half) for half in halves.values())]
    sums = np.zeros(len(scales))
    for i in range(len(inputs[0])):
        given = [torch.tensor(x[i : i + 1], requires_grad=True) for x in inputs]
        values = module.values(*given)
        tensors: list[Tensor] = [module.weight(str(n.inputs[1])) for n in layers]
        tensors += [values[name] for name in halves]
        for squares in _of_decision(values[logits].reshape(-1), tensors):
            sums += [float((g * r**2).sum()) for g, r in zip(squares, scales, strict=True)]
    means = (sums / len(inputs[0])).tolist()
    of_weights = dict(zip((n.name for n in layers), means[: len(layers)], strict=True))
    return of_weights, dict(zip(halves, means[len(layers) :], strict=True))


def _half_ranges(graph: Graph, name: str | None, axis: int | None) -> Array:
    """The peak of each output channel, of a shape that multiplies the weights."""
    weights = np.abs(graph.value(str(name)).array)
    peaks: Array = weights.max(axis=tuple(a for a in range(weights.ndim) if a != axis), keepdims=True)
    return peaks


def _of_decision(z: Tensor, tensors: Sequence[Tensor]) -> list[list[Array]]:
    """By each class that lost, the squared gradients of its margin over 24 squared margins."""
    import torch  # noqa: PLC0415

    winner = int(z.argmax())
    found = []
    for i in range(len(z)):
        if i == winner:
            continue
        margin = z[i] - z[winner]
        size = max(abs(float(margin.detach())), _LEAST_MARGIN)
        gradients = torch.autograd.grad(margin, tensors, retain_graph=True, allow_unused=True)
        found.append(
            [np.zeros(1) if g is None else g.double().numpy() ** 2 / (24.0 * size**2) for g in gradients]
        )
    return found
