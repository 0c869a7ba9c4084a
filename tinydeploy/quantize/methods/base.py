"""What every method of training is made of."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tinydeploy import ops
from tinydeploy.quantize.scales import MIN_SCALE, Activations, Range
from tinydeploy.quantize.schemes import Scheme

Round = Callable[[Tensor], Tensor]
"""Real numbers to whole ones."""

_LEAST_PART = 1e-3
"""A step that would cross zero stops here, in parts of where it started."""


class WeightMethod(nn.Module):
    """The weights of one layer as training sees them.

    Attributes:
        unfolded: what it lowers with belongs to the weights before batch normalization is folded.
        pace: how many times the learning rate the weights move by.
    """

    unfolded = True
    pace = 1.0

    def forward(self, weights: Tensor) -> Tensor:
        """What the integers stand for, of the shape of the weights."""
        raise NotImplementedError

    def scheme(self) -> Scheme:
        """What lowers these weights with the numbers that were learned."""
        raise NotImplementedError

    def set_bits(self, of: Callable[[int], int]) -> None:
        """An epoch begins: the bits to train with, for those of the end."""


class ActivationMethod(nn.Module):
    """The activations of one group of tensors as training sees them.

    Args:
        span: what calibration saw; negative numbers in it make the integers signed.
        how: bits of the end.
        ceiling: what a clamp in the network leaves at most; the integers need not reach beyond.
    """

    def __init__(self, span: Range, how: Activations, ceiling: float) -> None:
        super().__init__()
        self.span, self.how, self.ceiling = span, how, ceiling
        self.signed = span.low < 0.0
        self.bits = how.bits

    def forward(self, x: Tensor) -> Tensor:
        """What the integers stand for."""
        raise NotImplementedError

    def range(self) -> Range:
        """What lowers to these integers."""
        raise NotImplementedError

    def staircase(self) -> ops.Staircase | None:
        """The STAIRCASE that makes these activations, in real units; None where a range does."""
        return None

    def penalty(self) -> Tensor | None:
        """What joins the loss."""
        return None

    def set_bits(self, of: Callable[[int], int]) -> None:
        """An epoch begins: the bits to train with, for those of the end."""
        self.bits = of(self.how.bits)

    def limits(self, bits: int) -> tuple[int, int]:
        """Smallest and largest integer, the zero point taken off."""
        if self.signed or self.how.symmetric:
            return -(1 << (bits - 1)), (1 << (bits - 1)) - 1
        return 0, (1 << bits) - 1

    def range_of_step(self, step: float) -> Range:
        """The range whose quantization has this step, at the bits of the end."""
        low, high = self.limits(self.how.bits)
        return Range.of((-high if self.how.symmetric else low) * step, high * step)

    def least_span(self) -> float:
        """The largest magnitude that was seen; of nothing but zeros, one."""
        return max(self.span.high, -self.span.low) or 1.0


class Learned(nn.Module):
    """Positive numbers that are learned, held in parts of where they started.

    Adam moves every number by about the learning rate, whatever its size; a step of 0.001 held as it is
    would jump by its own size, and one of 10 would stand still.

    Attributes:
        start, parts: of one shape; their product is the value.
    """

    start: Tensor

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.register_buffer("start", start.detach().clone().float())
        self.parts = nn.Parameter(torch.ones_like(self.start))

    def forward(self) -> Tensor:
        held = self.parts + (self.parts.clamp_min(_LEAST_PART) - self.parts).detach()
        return self.start * held

    @torch.no_grad()
    def restart(self, start: Tensor) -> None:
        self.start.copy_(start)
        self.parts.fill_(1.0)


def to_nearest(x: Tensor) -> Tensor:
    """Half away from zero, as weights are rounded when they are lowered."""
    return torch.copysign(torch.floor(x.abs() + 0.5), x)


def at_random(x: Tensor) -> Tensor:
    """Up with the probability of the fraction, so that the mean is the number itself.

    Source: S. Gupta et al., "Deep Learning with Limited Numerical Precision" (ICML 2015), section 3.1.
    """
    return torch.floor(x + torch.rand_like(x))


def in_training(rounding: Round, method: nn.Module) -> Round:
    """The rounding of a method: what is exported, and what statistics are taken of, rounds to the nearest."""
    return rounding if method.training else to_nearest


ROUNDINGS: dict[str, Round] = {"nearest": to_nearest, "stochastic": at_random}


def parameters(low: Tensor, high: Tensor, how: Activations) -> tuple[Tensor, Tensor]:
    """Scale and zero point by the rule of `scales.activation_quantization`."""
    low, high = low.clamp_max(0.0), high.clamp_min(0.0)
    least, most = how.limits
    if how.symmetric:
        scale = (torch.maximum(high, -low) / most).clamp_min(MIN_SCALE)
        return scale, torch.zeros_like(scale, dtype=torch.int32)
    scale = ((high - low) / (most - least)).clamp_min(MIN_SCALE)
    zero_point = torch.floor(least - low / scale + 0.5).clamp(least, most)
    return scale, zero_point.to(torch.int32)


def straight(value: Tensor, x: Tensor) -> Tensor:
    """`value` with the gradient of x. Source: Bengio et al., "Estimating or Propagating Gradients Through
    Stochastic Neurons", 2013, section 4."""
    return x + (value - x).detach()


def along(numbers: Tensor, x: Tensor, axis: int) -> Tensor:
    """(n,) in a shape that broadcasts against x along `axis`; n is 1 or the length of that axis."""
    shape = [1] * x.ndim
    shape[axis] = -1
    return numbers.reshape(shape)
