"""The straight-through estimator: weights by their scheme, fitted anew for every batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from tinydeploy.quantize.methods.base import Round, WeightMethod, along, at_random, in_training, straight
from tinydeploy.quantize.scales import MIN_SCALE
from tinydeploy.quantize.schemes import INT8, KMeans, Linear, MinMaxRange, Scheme, folded
from tinydeploy.quantize.schemes.base import unfolded

_CODEBOOK_BITS_MAX = 7


def straight_through(scheme: Scheme, weights: Tensor, axis: int) -> Tensor:
    """The real numbers that the scheme's integers stand for, by the code that lowers them.

    The gradient passes as if nothing had happened. Source: Bengio et al., "Estimating or Propagating
    Gradients Through Stochastic Neurons", 2013, section 4.
    """
    array = weights.detach().cpu().numpy()
    fitted = scheme.fit(folded(array, axis))
    scales = np.maximum(fitted.scales, MIN_SCALE)
    real = fitted.lower(scales).rows * scales[:, None]
    data = unfolded(real.astype(np.float32), array.shape, axis)
    return straight(torch.from_numpy(data).to(weights.device), weights)


class StraightThrough(WeightMethod):
    """Any scheme; linear integers are rounded at random where that was chosen.

    Args:
        axis: that of outputs.
    """

    def __init__(self, scheme: Scheme, axis: int, rounding: Round) -> None:
        super().__init__()
        self._given = self._scheme = scheme
        self._axis, self._rounding = axis, rounding
        # A scale an output follows what multiplies that output; one range of a layer does not.
        self.unfolded = isinstance(scheme, MinMaxRange)

    def forward(self, weights: Tensor) -> Tensor:
        if isinstance(self._scheme, Linear) and in_training(self._rounding, self) is at_random:
            return self._random(self._scheme, weights)
        if self._scheme != INT8:
            return straight_through(self._scheme, weights, self._axis)
        others = [a for a in range(weights.ndim) if a != self._axis]
        scales = (weights.detach().abs().amax(dim=others) / 127).clamp_min(MIN_SCALE)
        zeros = torch.zeros_like(scales, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weights, scales, zeros, self._axis, -127, 127)

    def scheme(self) -> Scheme:
        return self._given

    def set_bits(self, of: Callable[[int], int]) -> None:
        if isinstance(self._given, Linear):
            self._scheme = replace(self._given, bits=of(self._given.bits))
        elif isinstance(self._given, KMeans | MinMaxRange):
            self._scheme = replace(self._given, bits=min(of(self._given.bits), _CODEBOOK_BITS_MAX))

    def _random(self, linear: Linear, weights: Tensor) -> Tensor:
        found = linear.fit(folded(weights.detach().cpu().numpy(), self._axis)).scales
        scales = torch.tensor(np.maximum(found, MIN_SCALE), dtype=weights.dtype, device=weights.device)
        step = along(scales, weights, self._axis)
        q = self._rounding((weights.detach() / step).clamp(*linear.limits))
        return straight(q * step, weights)
