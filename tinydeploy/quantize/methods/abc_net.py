"""ABC-Net: activations as a sum of several bases, each a step at a shift that is learned.

    h_v(x) = clip(x + v, 0, 1),  H_v(x) = +1 where h_v(x) >= 1/2, else -1
    y = sum_n beta_n H_{v_n}(x);  beta and v are learned
    backward: dH/dx = dH/dv = 2 where 0 <= x + v <= 1, else 0

Source: X. Lin, C. Zhao, W. Pan, "Towards Accurate Binary Convolutional Neural Network" (NIPS 2017), section
3.2. Differences: batch normalizations are folded, so x is in units of the mean step at the start, in which
the windows of the bases lie side by side; a tensor that had no negative numbers steps from 0 up, as ReLU
does; the derivative is that of 2 h - 1, where the paper leaves out the 2, so that all bases together pass
gradients of the size that they get; and the levels are those of the int8 that holds them.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from tinydeploy import ops
from tinydeploy.quantize.methods.base import ActivationMethod, Learned, parameters, to_nearest
from tinydeploy.quantize.scales import INT8_ACTIVATIONS, MIN_SCALE, Range


def several_bases(x: Tensor, beta: Tensor, v: Tensor, unit: Tensor, origin: Tensor | None) -> Tensor:
    """x on the levels of the bases.

    Args:
        beta, v: (bases,), the coefficients and the shifts.
        unit: scalar; x is in units of it.
        origin: scalar, the lowest level; None for minus the sum of beta.
    """
    result: Tensor = _SeveralBases.apply(x, beta, v, unit, origin)  # type: ignore[no-untyped-call]
    return result


class _SeveralBases(torch.autograd.Function):
    """All edges of steps and of windows cut the numbers into intervals, in which everything is constant.

    So there is one search an element, which both passes share, whatever the number of bases.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, beta: Tensor, v: Tensor, unit: Tensor, origin: Tensor | None) -> Tensor:
        threshold = unit * (0.5 - v)
        low, high = threshold - 0.5 * unit, threshold + 0.5 * unit
        edges = torch.cat([threshold, low, high]).sort().values
        left = torch.cat([edges.new_full((1,), -math.inf), edges])
        passed = (left >= threshold[:, None]).to(beta.dtype)
        window = ((left >= low[:, None]) & (left < high[:, None])).to(beta.dtype)
        lowest = -beta.sum() if origin is None else origin
        levels = in_int8(lowest + 2.0 * (beta @ passed))
        place = torch.bucketize(x.contiguous(), edges.to(x.dtype), out_int32=True, right=True)
        ctx.save_for_backward(place.to(torch.uint8), beta, passed, window, unit)
        ctx.centred = origin is None
        return levels.to(x.dtype)[place]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        (gradient,), (place, beta, passed, window, unit) = gradients, ctx.saved_tensors
        place = place.int()
        by_interval = _sums(gradient.float(), place, passed.shape[1]).to(beta.dtype)
        slope = 2.0 * (beta @ window)
        of_beta = (2.0 * passed - (1.0 if ctx.centred else 0.0)) @ by_interval
        of_v = 2.0 * beta * (window @ by_interval)
        return gradient * (slope / unit).to(gradient.dtype)[place], of_beta, of_v, None, None


def _sums(x: Tensor, place: Tensor, count: int) -> Tensor:
    """The sum of x at each place, (count,)."""
    if x.is_cuda:
        # Counting into bins adds in any order there, and the same seed would not give the same network.
        return torch.stack([x.masked_fill(place != i, 0.0).sum() for i in range(count)])
    return torch.bincount(place.flatten(), x.flatten(), minlength=count)


def in_int8(levels: Tensor) -> Tensor:
    """The levels as the int8 that spans them holds them."""
    scale, zero_point = parameters(levels.amin(), levels.amax(), INT8_ACTIVATIONS)
    q = to_nearest(levels / scale) + zero_point
    return (q.clamp(*INT8_ACTIVATIONS.limits) - zero_point) * scale


class AbcActivations(ActivationMethod):
    """The activations that one STAIRCASE makes.

    Args:
        stairs: where the training starts.

    Attributes:
        beta: half of each step.
        v: the shifts, in units of `unit`.
        unit: the mean step at the start.
        origin: the lowest level where it is not minus the highest one.
    """

    unit: Tensor
    origin: Tensor

    def __init__(self, stairs: ops.Staircase, ceiling: float) -> None:
        levels = torch.tensor(stairs.levels, dtype=torch.float32)
        low, high = float(levels.amin()), float(levels.amax())
        super().__init__(Range.of(low, high), INT8_ACTIVATIONS, ceiling)
        self.register_buffer("unit", torch.diff(levels).abs().mean().clamp_min(MIN_SCALE))
        self.register_buffer("origin", levels[0].clone())
        self._centred = math.isclose(stairs.levels[0], -stairs.levels[-1], rel_tol=1e-5)
        self.beta = Learned(torch.diff(levels) / 2)
        self.v = nn.Parameter(0.5 - torch.tensor(stairs.thresholds) / self.unit)

    def forward(self, x: Tensor) -> Tensor:
        beta = self.beta()
        # What is learned is shared by all numbers of a sample, as in LSQ, section 2.2.
        share = 1.0 / math.sqrt(max(x.numel() // max(x.shape[0], 1), 1))
        return several_bases(
            x,
            _slowed(beta, share / self.beta.start.square().clamp_min(MIN_SCALE)),
            _slowed(self.v, share),
            self.unit,
            None if self._centred else self.origin,
        )

    def range(self) -> Range:
        return Range.of(*(f(self.staircase().levels) for f in (min, max)))

    def staircase(self) -> ops.Staircase:
        with torch.no_grad():
            thresholds, order = (self.unit * (0.5 - self.v)).double().cpu().sort()
            beta = self.beta().double().cpu()
        lowest = -beta.sum() if self._centred else self.origin.double().cpu()
        levels = torch.cat([lowest.reshape(1), lowest + torch.cumsum(2.0 * beta[order], 0)])
        return ops.Staircase(tuple(thresholds.tolist()), tuple(levels.tolist()))


def _slowed(x: Tensor, factor: Tensor | float) -> Tensor:
    """x itself, whose gradient is multiplied by a factor."""
    return x.detach() + (x - x.detach()) * factor
