"""Calibration: from the numbers that a tensor takes to the range that its integers span.

A further method is one class with `observe` and `range`, and one line in CALIBRATORS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from tinydeploy.errors import DeployError
from tinydeploy.ir.types import Array
from tinydeploy.quantize.histogram import ByHistogram, Histogram
from tinydeploy.quantize.parametric import Aciq, HalfWaveGaussian
from tinydeploy.quantize.scales import Activations, Range, activation_quantization

DEFAULT_PERCENTILE = 99.99


class Calibrator(Protocol):
    """What one tensor's calibration does; batches come in a stream and are not kept."""

    def observe(self, x: Array) -> None:
        """Takes in a batch of finite real numbers of any shape."""

    def range(self) -> Range:
        """The range for all that was observed; (0, 0) where that was nothing but zero."""


class MinMax:
    """From the smallest to the largest number: nothing saturates, and one outlier stretches the scale."""

    def __init__(self) -> None:
        self._range = Range(0.0, 0.0)

    def observe(self, x: Array) -> None:
        if x.size:
            self._range = self._range.hull(Range.of(x.min(), x.max()))

    def range(self) -> Range:
        return self._range


class Percentile(ByHistogram):
    """Leaves out the same small share of the numbers at either end.

    Source: H. Wu et al., "Integer Quantization for Deep Learning Inference: Principles and Empirical
    Evaluation", 2020, section 3.3, there of absolute values.

    Args:
        percent: in (50, 100]; 99.99 leaves out one number in ten thousand at each end.
    """

    def __init__(self, percent: float = DEFAULT_PERCENTILE) -> None:
        if not 50.0 < percent <= 100.0:
            raise ValueError(f"a percentile of {percent}")
        self._share = percent / 100.0
        super().__init__()

    def _choose(self, h: Histogram) -> Range:
        cumulative = np.concatenate([[0], np.cumsum(h.counts)]) / h.counts.sum()
        # The low end is the high end of the mirrored distribution.
        high = _crossing(cumulative, h.edges, self._share)
        low = -_crossing(1.0 - cumulative[::-1], -h.edges[::-1], self._share)
        return Range.of(max(low, h.low), min(high, h.high))


def _crossing(cumulative: Array, edges: Array, share: float) -> float:
    """Where the ascending `cumulative` first reaches `share`, numbers within a bin being evenly spread."""
    # Sums of shares are exact to a few parts in 2**53 only.
    i = max(int(np.searchsorted(cumulative, share - 1e-12)), 1)
    i = min(i, len(edges) - 1)
    inside = (share - cumulative[i - 1]) / (cumulative[i] - cumulative[i - 1])
    return float(edges[i - 1] + min(inside, 1.0) * (edges[i] - edges[i - 1]))


class MeanSquaredError(ByHistogram):
    """The range whose quantization is nearest to the numbers in the mean square, by a grid search.

    Source: M. Nagel et al., "A White Paper on Neural Network Quantization", 2021, section 3.1. Both ends
    shrink together first and then each alone, since a distribution may have one long tail.
    """

    STEPS = 100

    def __init__(self, bits: int = 8) -> None:
        self._how = Activations(bits)
        super().__init__()

    def _choose(self, h: Histogram) -> Range:
        used = h.counts > 0
        centres = np.clip((h.edges[:-1] + h.edges[1:]) / 2, h.low, h.high)[used]
        weights = h.counts[used].astype(np.float64)
        factors = np.arange(self.STEPS, 0, -1) / self.STEPS

        def least(candidates: list[Range]) -> Range:
            """The candidate with the smallest error; the first of equal ones."""
            return min(candidates, key=lambda r: _squared_error(r, centres, weights, self._how))

        best = least([Range(h.low * f, h.high * f) for f in factors])
        best = least([Range(best.low, h.high * f) for f in factors] + [best])
        return least([Range(h.low * f, best.high) for f in factors] + [best])


def _squared_error(span: Range, x: Array, weights: Array, how: Activations) -> float:
    if span.low == span.high:
        return float(weights @ x**2)
    quant = activation_quantization(span, how=how)
    q = np.clip(np.rint(x / quant.scale) + quant.zero_point, *how.limits)
    return float(weights @ ((q - quant.zero_point) * quant.scale - x) ** 2)


class Entropy(ByHistogram):
    """The threshold that keeps most of the distribution of absolute values: least KL divergence.

    Source: S. Migacz, "8-bit Inference with TensorRT", GTC 2017: a histogram of 2048 bins; for each
    threshold, the distribution P with what lies beyond put into its last bin, and Q, the same bins
    quantized to the levels that int8 has. Differences: every 8th threshold is tried, equal divergences
    take the greatest, and a tensor of one sign has all levels, 256 of int8, on that side instead of half.
    """

    BINS = 2048
    STRIDE = 8

    def __init__(self, bits: int = 8) -> None:
        self._levels = 1 << bits
        super().__init__()

    def _choose(self, h: Histogram) -> Range:
        counts, width = h.magnitudes(), h.width
        while len(counts) > self.BINS:
            counts = np.append(counts, 0) if len(counts) % 2 else counts
            counts, width = counts.reshape(-1, 2).sum(axis=1), 2 * width
        if len(counts) > 1:
            # Zero is exact at any scale, and the many of a ReLU would outweigh everything else.
            counts[0] = min(counts[0], counts[1])
        levels = self._levels if h.low == 0.0 or h.high == 0.0 else self._levels // 2
        threshold = _least_divergence(counts.astype(np.float64), levels, self.STRIDE) * width
        return Range.of(max(h.low, -threshold), min(h.high, threshold))


def _least_divergence(counts: Array, levels: int, stride: int) -> int:
    """The number of bins from zero that the integers should span."""
    best, chosen = np.inf, len(counts)
    for size in range(len(counts), levels - 1, -stride):
        divergence = _divergence(counts, size, levels)
        if divergence < best - 1e-12:
            best, chosen = divergence, size
    return chosen


def _divergence(counts: Array, size: int, levels: int) -> float:
    """KL(P || Q) for a threshold behind `size` bins, in nats; infinite where Q lacks what P has."""
    inside = counts[:size]
    p = inside.copy()
    p[-1] += counts[size:].sum()
    starts = np.arange(levels) * size // levels
    level = np.repeat(np.arange(levels), np.diff(np.append(starts, size)))
    occupied = (inside > 0).astype(np.float64)
    totals, members = np.add.reduceat(inside, starts), np.add.reduceat(occupied, starts)
    q = occupied * (totals / np.maximum(members, 1.0))[level]
    used = p > 0
    if not inside.any() or (q[used] == 0).any():
        return np.inf
    p, q = p[used] / p.sum(), q[used] / q.sum()
    return float(np.sum(p * np.log(p / q)))


CALIBRATORS: Mapping[str, Callable[[int], Calibrator]] = {
    "minmax": lambda bits: MinMax(),
    "percentile": lambda bits: Percentile(),
    "mse": MeanSquaredError,
    "entropy": Entropy,
    "aciq": Aciq,
    "hwgq": HalfWaveGaussian,
}


def make_calibrator(name: str, bits: int = 8) -> Calibrator:
    """A fresh calibrator of a tensor of so many bits.

    Raises:
        DeployError: no method of that name.
    """
    try:
        return CALIBRATORS[name](bits)
    except KeyError:
        raise DeployError(
            f"there is no calibration {name!r}", hint=f"one of {', '.join(CALIBRATORS)}"
        ) from None
