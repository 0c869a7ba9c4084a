"""Quantization noise gains of weights and activations, from gradients through the trainable form."""

from __future__ import annotations

from collections.abc import Sequence
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
    """

    name: str
    weights: float
    activations: float


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
    require_torch("noise gains")
    import torch  # noqa: PLC0415  # heavy, and an optional extra

    module = make_trainable(graph).eval()
    logits, _ = module.logits_name()
    if graph.value(logits).elements < 2:
        raise DeployError(
            "has one output, and noise gains need a decision between two or more",
            where=graph.source or graph.name,
        )
    ranges = calibrate(graph, inputs)
    layers = linear_nodes(graph)
    halves = [_half_ranges(graph, node.inputs[1], rule_of(graph, node).weights_axis) for node in layers]
    spans = [ranges[str(node.inputs[0])] for node in layers]
    sums = np.zeros((len(layers), 2))
    for i in range(len(inputs[0])):
        given = [torch.tensor(x[i : i + 1], requires_grad=True) for x in inputs]
        values = module.values(*given)
        tensors: list[Tensor] = [module.weight(str(n.inputs[1])) for n in layers]
        tensors += [values[str(n.inputs[0])] for n in layers]
        for squares in _of_decision(values[logits].reshape(-1), tensors):
            for k in range(len(layers)):
                half = (spans[k].high - spans[k].low) / 2.0
                sums[k, 0] += float((squares[k] * halves[k] ** 2).sum())
                sums[k, 1] += float(squares[len(layers) + k].sum()) * half**2
    sums /= len(inputs[0])
    return tuple(Gain(n.name, float(w), float(a)) for n, (w, a) in zip(layers, sums, strict=True))


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
