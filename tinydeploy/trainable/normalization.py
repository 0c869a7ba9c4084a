"""Batch normalization while training, for networks that come without it; folded away afterwards.

A network whose batch normalizations are folded into its convolutions trains badly at useful learning rates,
most of all after channels were removed. So training puts them back: each convolution's output is normalized
over the batch, with a scale and an offset that start at the output's own deviation and mean, which changes
nothing at the start. Source: Ioffe and Szegedy 2015, "Batch Normalization", algorithms 1 and 2.
"""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn
from torch.nn import functional

from tinydeploy import ops
from tinydeploy.ir.graph import Graph, Node
from tinydeploy.ir.op import Op

_EPSILON = 1e-5
MOMENTUM = 0.1
"""Share of a batch in the running statistics while training."""

_OUTPUT_AXIS: dict[type[Op], int] = {ops.Conv2D: 0, ops.DepthwiseConv2D: 3}
"""Where the output channels of the weights lie."""


def normalized_nodes(graph: Graph, logits: str) -> tuple[Node, ...]:
    """The convolutions that can be normalized: with weights and bias of their own, and not the last layer."""
    uses = Counter(name for node in graph.nodes for name in node.inputs if name is not None)

    def own(name: str | None) -> bool:
        return name is not None and graph.value(name).is_constant and uses[name] == 1

    return tuple(
        node
        for node in graph.nodes
        if type(node.op) in _OUTPUT_AXIS
        and len(node.inputs) == 3
        and own(node.inputs[1])
        and own(node.inputs[2])
        and node.outputs[0] != logits
    )


Statistics = tuple[Tensor, Tensor]
"""Mean and variance, each (channels,)."""


class Normalization(nn.Module):
    """Scale, offset, running mean and running variance of one convolution.

    The scale counts without its sign, which the weights can have instead: so what is folded multiplies by
    positive numbers only, and integers that training had for the weights stay.

    Args:
        channels: C of its output (..., H, W, C).

    Attributes:
        measuring: the next batch sets everything; the output keeps its own mean and variance, or gets those
            in `wanted`.
        wanted: mean and variance (channels,), or None.
        momentum: share of a batch in the running statistics.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.offset = nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))
        self.measuring = False
        self.wanted: Statistics | None = None
        self.momentum = MOMENTUM

    def forward(self, y: Tensor) -> Tensor:
        if self.measuring:
            self._measure(y)
        image = y.reshape(-1, *y.shape[-3:]).permute(0, 3, 1, 2)
        batch = self.training and not self.measuring
        z = functional.batch_norm(
            image, self.mean, self.variance, self.scale.abs(), self.offset, batch, self.momentum, _EPSILON
        )
        return z.permute(0, 2, 3, 1).reshape(y.shape)

    def statistics(self) -> Statistics:
        """Those of the outputs in evaluation: the offset, and the square of the scale."""
        return self.offset.detach(), self.scale.detach() ** 2 - _EPSILON

    def fold(self) -> tuple[Tensor, Tensor]:
        """Factor and addend (channels,) that this comes to in evaluation: y * factor + addend."""
        factor = self.scale.abs() / torch.sqrt(self.variance + _EPSILON)
        return factor.detach(), (self.offset - self.mean * factor).detach()

    @torch.no_grad()
    def _measure(self, y: Tensor) -> None:
        rows = y.reshape(-1, y.shape[-1]).double()
        variance, mean = torch.var_mean(rows, dim=0, correction=0)
        self.mean.copy_(mean)
        self.variance.copy_(variance)
        wanted_mean, wanted_variance = (mean, variance) if self.wanted is None else self.wanted
        self.scale.copy_(torch.sqrt(wanted_variance + _EPSILON))
        self.offset.copy_(wanted_mean)


def fold_into(node: Node, weights: Tensor, bias: Tensor, norm: Normalization) -> tuple[Tensor, Tensor]:
    """Weights and bias, of their own shapes, of the convolution that does what both did."""
    factor, addend = norm.fold()
    shape = [1] * weights.ndim
    shape[_OUTPUT_AXIS[type(node.op)]] = -1
    return weights.detach() * factor.reshape(shape), bias.detach() * factor + addend
