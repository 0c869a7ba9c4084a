"""LSQ: the step between integers is learned, of weights and of activations.

    v = clip(x / s, -Q_N, Q_P),  y = round(v) s
    dy/ds = round(v) - x / s between the ends, -Q_N or Q_P beyond them;  dy/dx = 1 between the ends, else 0
    the gradient of s is scaled by 1 / sqrt(N Q_P), N the numbers that share it

Source: S. K. Esser et al., "Learned Step Size Quantization" (ICLR 2020), equations 1 to 3 and section 2.2.
Differences: a step an output where the scheme has a scale an output; weights start at the scale that the
scheme fits, which is nearer than 2 <|v|> / sqrt(Q_P), and stay in the scheme's restricted range.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tinydeploy.quantize.methods.base import (
    ActivationMethod,
    Learned,
    Round,
    WeightMethod,
    along,
    in_training,
)
from tinydeploy.quantize.scales import MIN_SCALE, Activations, Range
from tinydeploy.quantize.schemes import Linear, Scheme, folded
from tinydeploy.quantize.schemes.learned import Stepped


def learned_step(
    x: Tensor, step: Tensor, limits: tuple[int, int], factor: Tensor | float, rounding: Round
) -> Tensor:
    """x on the grid of a step that learns.

    Args:
        step: broadcasts against x.
        factor: of the gradient of the step.
    """
    result: Tensor = _LearnedStep.apply(x, step, limits, factor, rounding)  # type: ignore[no-untyped-call]
    return result


class _LearnedStep(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        step: Tensor,
        limits: tuple[int, int],
        factor: Tensor | float,
        rounding: Round,
    ) -> Tensor:
        # Under autocast the few levels fit into the short numbers that come in.
        v = x / step.to(x.dtype)
        q = rounding(v.clamp(*limits))
        ctx.save_for_backward(v, q)
        ctx.limits, ctx.factor, ctx.shape = limits, factor, step.shape
        return q * step.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        (gradient,), (v, q), (low, high) = gradients, ctx.saved_tensors, ctx.limits
        # What this gradient is: zero at and beyond the ends, in one pass over memory.
        passed = torch.ops.aten.hardtanh_backward(gradient, v, low, high)
        slope = gradient * q - passed * v
        of_step = slope.float().sum_to_size(ctx.shape) * ctx.factor
        return passed, of_step, None, None, None


class LsqWeights(WeightMethod):
    """Linear weights with learned steps.

    Args:
        weights: where they start.
        axis: that of outputs.
    """

    def __init__(self, scheme: Linear, weights: Tensor, axis: int, rounding: Round) -> None:
        super().__init__()
        self._linear, self._axis, self._rounding = scheme, axis, rounding
        self._bits = scheme.bits
        fitted = scheme.fit(folded(weights.detach().cpu().numpy(), axis)).scales
        scales = torch.tensor(fitted[:1] if scheme.per_tensor else fitted)
        # A step for an output of zeros: any does, and the others' is of the right size.
        whole = float(scales.max()) or 1.0
        self.step = Learned(torch.where(scales > 0, scales, whole).clamp_min(MIN_SCALE))

    def forward(self, weights: Tensor) -> Tensor:
        limits = replace(self._linear, bits=self._bits).limits
        step = along(self.step(), weights, self._axis) * (self._linear.limits[1] / limits[1])
        sharing = weights.numel() // self.step.start.numel()
        scaled = 1.0 / math.sqrt(sharing * limits[1])
        # Plain gradient descent on the parts then moves the step itself as in the paper.
        factor = scaled / along(self.step.start, weights, self._axis) ** 2
        return learned_step(weights, step, limits, factor, in_training(self._rounding, self))

    def scheme(self) -> Scheme:
        return Stepped(self._linear, tuple(self.step().detach().cpu().double().tolist()))

    def set_bits(self, of: Callable[[int], int]) -> None:
        self._bits = of(self._linear.bits)


class LsqActivations(ActivationMethod):
    """Activations with one learned step; integers from zero up where no negative number was seen.

    The step starts at `2 <|x|> / sqrt(Q_P)` of the first batch.
    """

    fresh: Tensor

    def __init__(self, span: Range, how: Activations, ceiling: float, rounding: Round) -> None:
        super().__init__(span, how, ceiling)
        self._rounding = rounding
        self.step = Learned(torch.tensor([self.least_span() / self.limits(how.bits)[1]]))
        self.register_buffer("fresh", torch.ones((), dtype=torch.bool))

    def forward(self, x: Tensor) -> Tensor:
        limits = self.limits(self.bits)
        at_end = self.limits(self.how.bits)[1]
        if self.training and bool(self.fresh):
            mean = x.detach().abs().mean()
            if mean > 0:
                self.step.restart((2.0 * mean / math.sqrt(at_end)).reshape(1))
                self.fresh.fill_(value=False)
        step = self.step().clamp_max(self.ceiling / at_end) * (at_end / limits[1])
        sharing = max(x.numel() // max(x.shape[0], 1), 1)
        factor = 1.0 / (math.sqrt(sharing * limits[1]) * self.step.start**2)
        return learned_step(x, step, limits, factor, in_training(self._rounding, self))

    def range(self) -> Range:
        step = float(self.step().detach())
        return self.range_of_step(min(step, self.ceiling / self.limits(self.how.bits)[1]))
