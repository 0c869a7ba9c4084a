"""AdaRound: whether each weight rounds up or down is learned, layer by layer, from calibration data.

Source: M. Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization" (ICML 2020): the
rectified sigmoid (equation 23), the regularizer that ends at 0 or 1 (equation 24), the reconstruction of each
layer's output behind its activation from inputs that are quantized already (equation 25).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from tinydeploy.ir.forms import Packed
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array, Value
from tinydeploy.passes.twin import real_constant
from tinydeploy.quantize.rules import fused
from tinydeploy.repair.walk import Step, walk
from tinydeploy.trainable import require_torch

if TYPE_CHECKING:
    from torch import Tensor

# The sigmoid is stretched to [GAMMA, ZETA] and clipped to [0, 1], so that its ends are reached.
_ZETA, _GAMMA = 1.1, -0.1


@dataclass(frozen=True)
class AdaRoundOptions:
    """How the rounding of a layer is learned.

    Attributes:
        iterations: of Adam, for each layer.
        batch_size: samples a step.
        learning_rate: of the variable behind each weight.
        regularization: weight of the term that drives each weight to one of its two neighbours, against a
            reconstruction error that is 1 for rounding to the nearest.
        warmup: share of the iterations without that term.
        beta: its exponent from the first to the last iteration with it; a high one leaves the middle free.
        seed: of the choice of samples.
    """

    iterations: int = 1000
    batch_size: int = 32
    learning_rate: float = 0.01
    regularization: float = 0.1
    warmup: float = 0.2
    beta: tuple[float, float] = (20.0, 2.0)
    seed: int = 0


Report = Callable[[str, float, float], None]
"""Called with a layer, and its reconstruction error with rounding to the nearest and with the learned one."""


def adaround(
    real: Graph,
    integer: Graph,
    inputs: Sequence[Array],
    options: AdaRoundOptions | None = None,
    report: Report | None = None,
) -> Graph:
    """The integer graph with each weight at the integer below or above it, as was learned; scales stay.

    Each layer learns from what the layers before it compute once they have learned. Where the learned
    rounding of a layer is not better on the samples than the nearest, the nearest stays, and so do codebooks
    and bit planes, whose levels are no neighbours. The same arguments
    give the same weights on the same machine and number of threads.

    Args:
        real: the float graph that `integer` was made of.
        inputs: one float32 array (samples, *value.shape) per graph input, in real units.

    Raises:
        MissingExtraError: PyTorch is not installed.
    """
    require_torch("AdaRound")
    chosen = options or AdaRoundOptions()

    def change(step: Step) -> tuple[Value, ...]:
        kept = [v for v in step.integer_site.inputs[1:] if v is not None]
        if not isinstance(kept[0].form, Packed | None):
            return tuple(kept)
        learned, nearest, best = _learn(step, chosen)
        if report is not None:
            report(step.real.name, nearest, min(best, nearest))
        if best >= nearest:
            return tuple(kept)
        learned.setflags(write=False)
        return replace(kept[0], data=learned), *kept[1:]

    return walk(real, integer, inputs, change)


def _learn(step: Step, options: AdaRoundOptions) -> tuple[Array, float, float]:
    """The learned integers, and the relative squared errors of the outputs with the nearest and with them."""
    rounding = _Rounding(step, options)
    rounding.train()
    integers = rounding.integers()
    return integers, rounding.error(step.integer_site.input(1).array), rounding.error(integers)


class _Rounding:
    """One layer's rounding while it is learned."""

    def __init__(self, step: Step, options: AdaRoundOptions) -> None:
        import torch  # noqa: PLC0415  # heavy, and an optional extra

        self._step, self._options = step, options
        value = step.integer_site.input(1)
        scales = np.array(value.quant.scales)
        self._scales = np.moveaxis(scales.reshape(-1, *(1,) * (len(value.shape) - 1)), 0, step.axis)
        low, high = weight_limits(value)
        exact = np.clip(step.site.input(1).array.astype(np.float64) / self._scales, low, high)
        self._floor = np.minimum(np.floor(exact), high - 1)
        share = np.clip((exact - self._floor - _GAMMA) / (_ZETA - _GAMMA), 1e-4, 1 - 1e-4)
        start = torch.tensor(np.log(share / (1.0 - share)), dtype=torch.float32)
        self._v = start.requires_grad_(True)
        bias = step.integer_site.optional(2)
        self._bias = None if bias is None else torch.tensor(real_constant(bias))
        original = step.site.optional(2)
        wanted = step.output(step.x, step.site.input(1).array, None if original is None else original.array)
        self._wanted = fused(step.real.op).apply(wanted)
        self._power = max(float(np.mean((self._output(value.array) - self._wanted) ** 2)), 1e-30)

    def _output(self, integers: Array) -> Array:
        weights = (integers * self._scales).astype(np.float32)
        bias = None if self._bias is None else self._bias.numpy()
        return fused(self._step.real.op).apply(self._step.output(self._step.x_quantized, weights, bias))

    def error(self, integers: Array) -> float:
        """Mean squared error of the output over that of rounding to the nearest; 1 for that."""
        return float(np.mean((self._output(integers) - self._wanted) ** 2)) / self._power

    def integers(self) -> Array:
        """As they are learned so far: int8."""
        up = self._share().detach().numpy() >= 0.5
        learned: Array = self._floor + up
        return learned.astype(self._step.integer_site.input(1).dtype.numpy)

    def _share(self) -> Tensor:
        """How far each weight lies between the integers below and above it: in [0, 1]."""
        import torch  # noqa: PLC0415

        return torch.clamp(torch.sigmoid(self._v) * (_ZETA - _GAMMA) + _GAMMA, 0.0, 1.0)

    def train(self) -> None:
        import torch  # noqa: PLC0415

        from tinydeploy.trainable.forward import FORWARD  # noqa: PLC0415

        options, step = self._options, self._step
        optimizer = torch.optim.Adam([self._v], options.learning_rate)
        scales, floor = (torch.tensor(a, dtype=torch.float32) for a in (self._scales, self._floor))
        generator = torch.Generator().manual_seed(options.seed)
        count = len(step.x_quantized)
        for i in range(options.iterations):
            order = torch.randperm(count, generator=generator)[: options.batch_size].sort().values.numpy()
            x, wanted = (torch.from_numpy(a[order]) for a in (step.x_quantized, self._wanted))
            share = self._share()
            operands = [x, (floor + share) * scales, self._bias]
            y = FORWARD[type(step.real.op)](step.real.op, step.site, operands[: len(step.site.inputs)])
            loss = ((y - wanted) ** 2).mean() / self._power
            beta = self._beta(i)
            if beta is not None:
                loss = loss + options.regularization * (1.0 - (2.0 * share - 1.0).abs() ** beta).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # PyTorch leaves it without types
            optimizer.step()

    def _beta(self, i: int) -> float | None:
        """The exponent at an iteration; None while warming up."""
        done = (i / self._options.iterations - self._options.warmup) / (1.0 - self._options.warmup)
        first, last = self._options.beta
        return None if done < 0 else last + (first - last) * 0.5 * (1.0 + np.cos(np.pi * done))


def weight_limits(value: Value) -> tuple[int, int]:
    """The least and the greatest integer of weights: the restricted range, unless they exceed it already."""
    low, high = value.limits
    return (low if value.array.min() == low else -high), high
