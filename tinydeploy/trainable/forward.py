"""The ops in PyTorch, one small function each, with the arithmetic of their float references.

Activations are (samples, *shape of the value), NHWC as in the graph; inside convolutions and pools the same
memory is seen as a channels-last NCHW tensor, so nothing is moved.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tinydeploy import ops
from tinydeploy.ir.op import Op, Site
from tinydeploy.ops import Activation, Padding
from tinydeploy.trainable.surrogates import sign, staircase

Forward = Callable[[Any, Site, Sequence[Tensor | None]], Tensor]


def required(operands: Sequence[Tensor | None], index: int) -> Tensor:
    operand = operands[index]
    assert operand is not None
    return operand


def clamp(x: Tensor, activation: Activation) -> Tensor:
    """A fused activation."""
    low, high = activation.range
    if low is None and high is None:
        return x
    return torch.relu(x) if high is None else torch.clamp(x, low, high)


def _image(x: Tensor) -> Tensor:
    """(samples, 1, H, W, C) as (samples, C, H, W), the same memory."""
    return x.reshape(-1, *x.shape[-3:]).permute(0, 3, 1, 2)


def _back(y: Tensor, site: Site) -> Tensor:
    return y.permute(0, 2, 3, 1).reshape(-1, *site.output.shape)


def _padded(x: Tensor, p: Padding, fill: float) -> Tensor:
    return x if p.none else functional.pad(x, (p.left, p.right, p.top, p.bottom), value=fill)


def _spatial(x: Tensor, p: Padding) -> tuple[Tensor, tuple[int, int]]:
    """The image, and the padding that the convolution can do by itself, which is the symmetric one."""
    if p.top == p.bottom and p.left == p.right:
        return x, (p.top, p.left)
    return _padded(x, p, 0.0), (0, 0)


def _bias(operands: Sequence[Tensor | None]) -> Tensor | None:
    return operands[2] if len(operands) > 2 else None


def _conv(op: ops.Conv2D, site: Site, operands: Sequence[Tensor | None]) -> Tensor:
    x, padding = _spatial(_image(required(operands, 0)), op.padding)
    weights = required(operands, 1).permute(0, 3, 1, 2)
    y = functional.conv2d(x, weights, _bias(operands), op.strides, padding, op.dilations, op.groups(site))
    return _back(clamp(y, op.activation), site)


def _depthwise(op: ops.DepthwiseConv2D, site: Site, operands: Sequence[Tensor | None]) -> Tensor:
    x, padding = _spatial(_image(required(operands, 0)), op.padding)
    weights = required(operands, 1).permute(3, 0, 1, 2)
    y = functional.conv2d(x, weights, _bias(operands), op.strides, padding, op.dilations, x.shape[1])
    return _back(clamp(y, op.activation), site)


def _fully_connected(op: ops.FullyConnected, site: Site, operands: Sequence[Tensor | None]) -> Tensor:
    weights = required(operands, 1)
    x = required(operands, 0).reshape(-1, weights.shape[1])
    y = functional.linear(x, weights, _bias(operands))
    return clamp(y, op.activation).reshape(-1, *site.output.shape)


def _operands(site: Site, operands: Sequence[Tensor | None]) -> tuple[Tensor, Tensor]:
    """Both operands with the rank of the output; a constant has no samples and broadcasts over them."""
    rank = len(site.output.shape)
    both = []
    for i in range(2):
        x, shape = required(operands, i), site.input(i).shape
        lead = () if site.input(i).is_constant else (x.shape[0],)
        both.append(x.reshape(*lead, *(1,) * (rank - len(shape)), *shape))
    return both[0], both[1]


def _add(op: ops.Add, site: Site, operands: Sequence[Tensor | None]) -> Tensor:
    a, b = _operands(site, operands)
    return clamp(a + b, op.activation)


def _mul(op: ops.Mul, site: Site, operands: Sequence[Tensor | None]) -> Tensor:
    a, b = _operands(site, operands)
    return clamp(a * b, op.activation)


def _average(op: ops.AveragePool2D, site: Site, operands: Sequence[Tensor | None]) -> Tensor:
    """Padding never counts, so the sum is divided by the number of real elements at each place."""
    x = _image(required(operands, 0))
    y = functional.avg_pool2d(_padded(x, op.padding, 0.0), op.kernel, op.strides)
    if not op.padding.none:
        ones = torch.ones((1, 1, *x.shape[2:]), dtype=x.dtype, device=x.device)
        y = y / functional.avg_pool2d(_padded(ones, op.padding, 0.0), op.kernel, op.strides)
    return _back(clamp(y, op.activation), site)


def _maximum(op: ops.MaxPool2D, site: Site, operands: Sequence[Tensor | None]) -> Tensor:
    x = _padded(_image(required(operands, 0)), op.padding, -torch.inf)
    return _back(clamp(functional.max_pool2d(x, op.kernel, op.strides), op.activation), site)


def _mean(op: ops.Mean, site: Site, operands: Sequence[Tensor | None]) -> Tensor:
    y = required(operands, 0).mean(dim=tuple(a + 1 for a in op.axes)) if op.axes else required(operands, 0)
    return y.reshape(-1, *site.output.shape)


def _pad(op: ops.Pad, site: Site, operands: Sequence[Tensor | None]) -> Tensor:
    widths = [n for pair in reversed(op.paddings) for n in pair]
    return functional.pad(required(operands, 0), widths, value=op.value or 0.0)


def _concatenation(op: ops.Concatenation, site: Site, operands: Sequence[Tensor | None]) -> Tensor:
    parts = []
    samples = max(
        x.shape[0] for i, x in enumerate(operands) if x is not None and not site.input(i).is_constant
    )
    for i in range(len(operands)):
        x = required(operands, i)
        parts.append(x.expand(samples, *x.shape) if site.input(i).is_constant else x)
    return torch.cat(parts, dim=op.axis + 1)


def _reshape(op: ops.Reshape, site: Site, operands: Sequence[Tensor | None]) -> Tensor:
    return required(operands, 0).reshape(-1, *op.shape)


def _relu(op: ops.Relu, site: Site, operands: Sequence[Tensor | None]) -> Tensor:
    return clamp(required(operands, 0), op.activation)


def _sign(op: ops.Sign, site: Site, operands: Sequence[Tensor | None]) -> Tensor:
    return sign(required(operands, 0), op.low, op.high)


def _staircase(op: ops.Staircase, site: Site, operands: Sequence[Tensor | None]) -> Tensor:
    return staircase(required(operands, 0), op.thresholds, op.levels)


def _softmax(op: ops.Softmax, site: Site, operands: Sequence[Tensor | None]) -> Tensor:
    return torch.softmax(required(operands, 0) * op.beta, dim=-1)


def _logistic(op: ops.Logistic, site: Site, operands: Sequence[Tensor | None]) -> Tensor:
    return torch.sigmoid(required(operands, 0))


FORWARD: Mapping[type[Op], Forward] = {
    ops.Add: _add,
    ops.AveragePool2D: _average,
    ops.Concatenation: _concatenation,
    ops.Conv2D: _conv,
    ops.DepthwiseConv2D: _depthwise,
    ops.FullyConnected: _fully_connected,
    ops.Logistic: _logistic,
    ops.MaxPool2D: _maximum,
    ops.Mean: _mean,
    ops.Mul: _mul,
    ops.Pad: _pad,
    ops.Relu: _relu,
    ops.Reshape: _reshape,
    ops.Sign: _sign,
    ops.Softmax: _softmax,
    ops.Staircase: _staircase,
}
