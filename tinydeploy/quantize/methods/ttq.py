"""TTQ: ternary weights whose positive and negative values are learned apart.

    u = w / max|w|;  y = W_p where u > t, -W_n where u < -t, else 0
    dW_p = sum of dy where u > t;  dW_n = -(sum of dy where u < -t)
    du = W_p dy where u > t, W_n dy where u < -t, dy between

Source: C. Zhu et al., "Trained Ternary Quantization" (ICLR 2017), equations 6 to 8, t = 0.05. Differences:
one pair of values an output and not a layer, since batch normalizations are folded; the sign of dW_n, which
the paper leaves out, is that of the derivative.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tinydeploy.quantize.methods.base import Learned, WeightMethod, along
from tinydeploy.quantize.scales import MIN_SCALE
from tinydeploy.quantize.schemes import Scheme, folded
from tinydeploy.quantize.schemes.ttq import TrainedTernary, means


def ternary(u: Tensor, positive: Tensor, negative: Tensor, threshold: float) -> Tensor:
    """Normalized weights as three values.

    Args:
        positive, negative: above zero; they broadcast against u.
    """
    result: Tensor = _Ternary.apply(u, positive, negative, threshold)  # type: ignore[no-untyped-call]
    return result


class _Ternary(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, positive: Tensor, negative: Tensor, threshold: float) -> Tensor:
        above, below = u > threshold, u < -threshold
        ctx.save_for_backward(above, below, positive, negative)
        return above * positive - below * negative

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        (gradient,), (above, below, positive, negative) = gradients, ctx.saved_tensors
        of_u = torch.where(above, positive, torch.where(below, negative, 1.0)) * gradient
        of_positive = (gradient * above).sum_to_size(positive.shape)
        of_negative = -(gradient * below).sum_to_size(negative.shape)
        return of_u, of_positive, of_negative, None


class TtqWeights(WeightMethod):
    """Ternary weights that learn their two values an output; these start at the means of what they replace.

    Args:
        weights: where they start.
        axis: that of outputs.
    """

    def __init__(self, scheme: TrainedTernary, weights: Tensor, axis: int) -> None:
        super().__init__()
        self._threshold, self._axis = scheme.threshold, axis
        positive, negative = means(folded(weights.detach().cpu().numpy(), axis), scheme.threshold)
        self.positive = Learned(torch.tensor(positive).clamp_min(MIN_SCALE))
        self.negative = Learned(torch.tensor(negative).clamp_min(MIN_SCALE))

    def forward(self, weights: Tensor) -> Tensor:
        others = [a for a in range(weights.ndim) if a != self._axis]
        most = weights.detach().abs().amax(dim=others, keepdim=True).clamp_min(MIN_SCALE)
        positive, negative = (along(v(), weights, self._axis) for v in (self.positive, self.negative))
        return ternary(weights / most, positive, negative, self._threshold)

    def scheme(self) -> Scheme:
        learned = (tuple(v().detach().cpu().double().tolist()) for v in (self.positive, self.negative))
        return TrainedTernary(self._threshold, tuple(learned))
