"""PACT: activations are clipped at a number that is learned.

    y = clip(x, 0, alpha), on 2^b - 1 steps of alpha / (2^b - 1)
    dy/dalpha = 1 where x >= alpha, else 0;  dy/dx = 1 where 0 <= x < alpha, else 0
    (lambda / 2) alpha^2 joins the loss

Source: J. Choi et al., "PACT: Parameterized Clipping Activation for Quantized Neural Networks" (2018),
section 3. Differences: tensors with negative numbers are clipped at -alpha too, where dy/dalpha is -1; and
alpha is penalized in parts of where it started, since networks come in any unit.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tinydeploy.quantize.methods.base import ActivationMethod, Learned, Round, in_training
from tinydeploy.quantize.scales import Activations, Range

PENALTY = 2e-4
"""lambda; the paper takes the weight decay of the network, which for its ResNet-20 is this."""


def clipped(x: Tensor, alpha: Tensor, limits: tuple[int, int], rounding: Round) -> Tensor:
    """x on the grid that ends at a clip that learns.

    Args:
        alpha: (1,).
        limits: smallest and largest integer; the largest stands for alpha.
    """
    result: Tensor = _Clipped.apply(x, alpha, limits, rounding)  # type: ignore[no-untyped-call]
    return result


class _Clipped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor, limits: tuple[int, int], rounding: Round) -> Tensor:
        low, high = limits
        step = alpha / high
        ctx.save_for_backward(x, low * step, alpha)
        return rounding((x / step).clamp(low, high)) * step

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (gradient,), (x, low, alpha) = gradients, ctx.saved_tensors
        above, below = x >= alpha, x < low
        of_alpha = gradient.masked_fill(~above, 0.0).sum()
        if bool((low < 0).all()):
            of_alpha = of_alpha - gradient.masked_fill(~below, 0.0).sum()
        return gradient.masked_fill(above | below, 0.0), of_alpha.reshape(1), None, None


class PactActivations(ActivationMethod):
    """One clip; it starts at the end of what calibration saw."""

    def __init__(self, span: Range, how: Activations, ceiling: float, rounding: Round) -> None:
        super().__init__(span, how, ceiling)
        self._rounding = rounding
        self.alpha = Learned(torch.tensor([self.least_span()]))

    def forward(self, x: Tensor) -> Tensor:
        alpha = self.alpha().clamp_max(self.ceiling)
        return clipped(x, alpha, self.limits(self.bits), in_training(self._rounding, self))

    def range(self) -> Range:
        alpha = min(float(self.alpha().detach()), self.ceiling)
        return self.range_of_step(alpha / self.limits(self.how.bits)[1])

    def penalty(self) -> Tensor:
        return 0.5 * PENALTY * self.alpha.parts.square().sum()
