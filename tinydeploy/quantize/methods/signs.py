"""Binary weights: what only their signs are seen of has to reach zero before anything changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tinydeploy.quantize.methods.base import Round
from tinydeploy.quantize.methods.straight import StraightThrough
from tinydeploy.quantize.schemes import Binary

PACE = 10.0
"""Times the learning rate. The usual 0.0003 moves a weight by 3e-4 of its size a step, and most need
thousands of steps to reach zero; what was measured is in docs/quantizers/binary.md."""

ROOM = 2.0
"""Weights stay within so many times their mean magnitude at the start."""


class BinaryWeights(StraightThrough):
    """`alpha sign(W)`; the gradient of W is that of what it stands for.

    A weight changes nothing until its sign does. It therefore moves faster than others, and not beyond a
    bound, from where it would not come back: within it the straight-through gradient is all of it, at the
    bound only what leads back passes.

    Source: M. Courbariaux et al., "BinaryConnect" (NeurIPS 2015), section 2.4, where the bound is 1; here it
    goes by the size that the float weights have.

    Args:
        weights: where they start.
        axis: that of outputs.
    """

    pace = PACE

    def __init__(self, scheme: Binary, weights: Tensor, axis: int, rounding: Round) -> None:
        bound = ROOM * float(weights.detach().abs().mean())
        super().__init__(replace(scheme, bound=bound), axis, rounding)
        self.bound = bound
        # What is lowered is bounded before batch normalization multiplies it.
        self.unfolded = True

    def forward(self, weights: Tensor) -> Tensor:
        return super().forward(held(weights, self.bound))


def held(weights: Tensor, bound: float) -> Tensor:
    """Weights within [-bound, bound], with the gradient of all that does not lead out of it."""
    result: Tensor = _Held.apply(weights, bound)  # type: ignore[no-untyped-call]
    return result


class _Held(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, bound: float) -> Tensor:
        ctx.save_for_backward(weights)
        ctx.bound = bound
        return weights.clamp(-bound, bound)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,), (weights,) = gradients, ctx.saved_tensors
        # What is subtracted from a weight has the sign of its gradient.
        out = ((weights >= ctx.bound) & (gradient < 0)) | ((weights <= -ctx.bound) & (gradient > 0))
        return gradient.masked_fill(out, 0.0), None
