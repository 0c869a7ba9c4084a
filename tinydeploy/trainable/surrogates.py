"""Gradients that stand in for those of a sign and of a staircase, which are zero wherever they exist.

Those of a sign are given for `u = (x - middle) / half`, half the distance of the two levels, so that the
levels are at -1 and +1; the gradient of the level in x is then that of the sign in u.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Slope = Callable[[Tensor], Tensor]


def wide(u: Tensor) -> Tensor:
    """1 within twice the distance of the levels from their middle: hard tanh with room."""
    return (u.abs() <= 2.0).to(u.dtype)


def hardtanh(u: Tensor) -> Tensor:
    """1 between the levels. Source: I. Hubara et al., "Binarized Neural Networks", 2016, section 1.3."""
    return (u.abs() <= 1.0).to(u.dtype)


def relu(u: Tensor) -> Tensor:
    """1 above the lower level: of the levels 0 and beta the plain ReLU.

    Source: Z. Cai et al., "Deep Learning with Low Precision by Half-wave Gaussian Quantization", CVPR 2017,
    section 3.3, which sets it against the hard tanh.
    """
    return (u > -1.0).to(u.dtype)


def polynomial(u: Tensor) -> Tensor:
    """2 - 2|u| between the levels: the derivative of a sign made of two parabolas.

    Source: Z. Liu et al., "Bi-Real Net", ECCV 2018, equation 7.
    """
    return (2.0 - 2.0 * u.abs()).clamp_min(0.0)


SURROGATES: Mapping[str, Slope] = {
    "wide": wide,
    "hardtanh": hardtanh,
    "relu": relu,
    "polynomial": polynomial,
}


def sign(x: Tensor, low: float, high: float, slope: Slope = wide) -> Tensor:
    """The nearer of two levels, with the gradient of a surrogate."""
    result: Tensor = _Sign.apply(x, low, high, slope)  # type: ignore[no-untyped-call]
    return result


class _Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float, slope: Slope) -> Tensor:
        ctx.save_for_backward(x)
        ctx.middle, ctx.half, ctx.slope = (low + high) / 2, (high - low) / 2, slope
        # In the numbers that come in: `where` of two Python numbers would widen them.
        above = (x >= ctx.middle).to(x.dtype)
        return torch.add(low * (1.0 - above), above, alpha=high)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (x,) = ctx.saved_tensors
        slope: Tensor = ctx.slope((x - ctx.middle) / ctx.half)
        return gradients[0] * slope, None, None, None


def staircase(x: Tensor, thresholds: Sequence[float], levels: Sequence[float]) -> Tensor:
    """The level between two thresholds, with a gradient of 1 between the lowest and the highest level."""
    edges, steps = (torch.tensor(v, dtype=x.dtype, device=x.device) for v in (thresholds, levels))
    value = steps[torch.bucketize(x.detach().contiguous(), edges, right=True)]
    inside = x.clamp(min(levels), max(levels))
    return inside + (value - inside).detach()
