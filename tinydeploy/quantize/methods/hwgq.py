"""HWGQ: activations behind a ReLU take the levels that are best for a rectified Gaussian.

    y = sigma q_i for x / sigma between the thresholds of q_i, q_0 = 0; sigma^2 is the mean of x^2 where x > 0
    backward, with q the largest level and z = x / sigma:
        plain    dy/dx = 1 where z > 0
        clipped  dy/dx = 1 where 0 < z <= q
        log      as clipped, and 1 / (z - (q - 1)) where z > q, which is 1 at q and falls

Source: Z. Cai et al., "Deep Learning with Low Precision by Half-wave Gaussian Quantization" (CVPR 2017),
sections 4 and 4.3. Differences: sigma is measured for each tensor, a running mean, since batch normalizations
are folded; evenly spaced levels round to the nearest, zero included, as integers do (`half_wave_step`); and
levels of Lloyd's conditions, which are not evenly spaced and lower to STAIRCASE, are those of the int8 that
holds them, with thresholds half way between them and zero, so that small positive numbers become 0 too.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, Literal

import torch
from torch import Tensor

from tinydeploy import ops
from tinydeploy.quantize.densities import half_wave_levels, half_wave_step
from tinydeploy.quantize.methods.base import ActivationMethod, Round, in_training, to_nearest
from tinydeploy.quantize.scales import LEVELS, Activations, Range

Backward = Literal["plain", "clipped", "log"]

_MOMENTUM = 0.01


def half_wave(x: Tensor, sigma: Tensor, levels: Tensor, backward: Backward, rounding: Round) -> Tensor:
    """x at the nearest of 0 and the levels.

    Args:
        sigma: scalar.
        levels: (n,) ascending, above zero, for a standard deviation of 1.
        rounding: between evenly spaced levels; others take the nearest one.
    """
    result: Tensor = _HalfWave.apply(x, sigma, levels, backward, rounding)  # type: ignore[no-untyped-call]
    return result


class _HalfWave(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, sigma: Tensor, levels: Tensor, backward: Backward, rounding: Round
    ) -> Tensor:
        z = x / sigma
        ctx.save_for_backward(z)
        ctx.most, ctx.backward_by = float(levels[-1]), backward
        if _even(levels):
            q = rounding((z / levels[0]).clamp(0, len(levels))) * levels[0]
        else:
            whole = torch.cat([levels.new_zeros(1), levels]).to(z.dtype)
            q = whole[torch.bucketize(z.contiguous(), (whole[1:] + whole[:-1]) / 2, right=True)]
        return q * sigma

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        (gradient,), (z,) = gradients, ctx.saved_tensors
        most, how = ctx.most, ctx.backward_by
        if how == "plain":
            result = torch.ops.aten.threshold_backward(gradient, z, 0.0)
        else:
            # One pass over memory. It is zero at both ends, so the upper one lies above q.
            result = torch.ops.aten.hardtanh_backward(gradient, z, 0.0, most * (1.0 + 1e-6))
        if how == "log":
            result = torch.where(z > most, gradient / (z - (most - 1.0)).clamp_min(1.0), result)
        return result, None, None, None, None


def _even(levels: Tensor) -> bool:
    steps = torch.arange(1, len(levels) + 1, dtype=levels.dtype, device=levels.device)
    return bool(torch.allclose(levels, levels[0] * steps))


class HalfWaveActivations(ActivationMethod):
    """Activations without negative numbers.

    Attributes:
        sigma: the running root mean square of what is above zero; 0 before the first batch.
    """

    sigma: Tensor

    def __init__(
        self,
        span: Range,
        how: Activations,
        ceiling: float,
        rounding: Round,
        backward: Backward = "clipped",
    ) -> None:
        super().__init__(span, how, ceiling)
        self._rounding, self._backward = rounding, backward
        self.register_buffer("sigma", torch.zeros(()))

    def levels(self, bits: int) -> list[float]:
        """Above zero, for a standard deviation of 1."""
        step = half_wave_step(bits, rounds_to_zero=True)
        return [step * k for k in range(1, 1 << bits)]

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self._observe(x.detach())
        levels = torch.tensor(self.levels(self.bits), device=x.device)
        sigma = self._within(self._scale(), float(levels[-1]))
        return half_wave(x, sigma, levels, self._backward, in_training(self._rounding, self))

    def range(self) -> Range:
        most = self.levels(self.how.bits)[-1]
        sigma = float(self._within(self._scale(), most))
        return Range.of(0.0, sigma * most)

    def _scale(self) -> Tensor:
        """Before the first batch calibration's largest number stands for three deviations."""
        return self.sigma if float(self.sigma) > 0 else torch.full_like(self.sigma, self.least_span() / 3)

    def _within(self, sigma: Tensor, most: float) -> Tensor:
        return sigma.clamp_max(self.ceiling / most) if math.isfinite(self.ceiling) else sigma

    @torch.no_grad()
    def _observe(self, x: Tensor) -> None:
        above = x.clamp_min(0.0)
        count = int(above.count_nonzero())
        if count == 0:
            return
        # Float32 sums pairwise: as good as double here, at half the memory.
        now = (above.float().square().sum() / count).sqrt()
        if float(self.sigma) == 0.0:
            self.sigma.copy_(now)
        else:
            self.sigma.lerp_(now, _MOMENTUM)


class LloydActivations(HalfWaveActivations):
    """The activations that one STAIRCASE makes, at Lloyd's levels; always the nearest of them.

    Args:
        stairs: where the training starts: 0 and 2^b - 1 levels of some deviation.
    """

    def __init__(self, stairs: ops.Staircase, ceiling: float) -> None:
        most = stairs.levels[-1]
        super().__init__(
            Range.of(0.0, most), Activations(len(stairs.thresholds).bit_length()), ceiling, to_nearest
        )
        self.sigma.fill_(most / half_wave_levels(self.how.bits)[-1])

    def levels(self, bits: int) -> list[float]:
        exact = half_wave_levels(bits)
        return [math.floor(q / exact[-1] * LEVELS + 0.5) / LEVELS * exact[-1] for q in exact]

    def staircase(self) -> ops.Staircase:
        unit = self.levels(self.how.bits)
        sigma = float(self._within(self._scale(), unit[-1]))
        levels = [0.0, *(sigma * q for q in unit)]
        middles = ((a + b) / 2 for a, b in itertools.pairwise(levels))
        return ops.Staircase(tuple(middles), tuple(levels))
