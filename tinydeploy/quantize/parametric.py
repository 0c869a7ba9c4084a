"""Calibrators that take a tensor's numbers for a sample of a known density and clip as is best for that."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tinydeploy.quantize.densities import gaussian_clip, half_wave_step, laplace_clip
from tinydeploy.quantize.histogram import ByHistogram, Histogram
from tinydeploy.quantize.scales import Range

# Mean magnitude over standard deviation: 1 / sqrt(2) of Laplace, sqrt(2 / pi) of Gauss.
_BETWEEN = (1.0 / math.sqrt(2.0) + math.sqrt(2.0 / math.pi)) / 2.0


@dataclass(frozen=True)
class Moments:
    """Of a tensor's numbers about their centre; a tensor of one sign is mirrored, its zeros left out.

    Attributes:
        centre: the mean; 0 of a tensor of one sign.
        deviation, magnitude: the root mean square and the mean of |x - centre|.
        one_sided: whether all integers lie on one side of the centre, which is worth a bit.
    """

    centre: float
    deviation: float
    magnitude: float
    one_sided: bool


def moments(h: Histogram) -> Moments:
    x = np.clip((h.edges[:-1] + h.edges[1:]) / 2, h.low, h.high)
    counts = h.counts.astype(np.float64)
    one_sided = h.low == 0.0 or h.high == 0.0
    if one_sided:
        # The bin of zero holds what a ReLU cut off; smaller than a bin nothing else matters.
        counts[np.searchsorted(h.edges, 0.0, side="right") - 1] = 0.0
    counts /= max(counts.sum(), 1.0)
    centre = 0.0 if one_sided else float(counts @ x)
    away = x - centre
    return Moments(centre, math.sqrt(float(counts @ away**2)), float(counts @ np.abs(away)), one_sided)


class Aciq(ByHistogram):
    """Analytical clipping: the range at which clipping and rounding together cost a density least.

    Gauss or Laplace, whichever has the ratio of mean magnitude to standard deviation that is nearer. A tensor
    of one sign is half of a density with twice as many levels.

    Source: R. Banner et al., "Post training 4-bit quantization of convolutional networks for
    rapid-deployment" (ACIQ, NeurIPS 2019), sections 3 and 3.1 (fused ReLU).
    """

    def __init__(self, bits: int = 8) -> None:
        self._bits = bits
        super().__init__()

    def _choose(self, h: Histogram) -> Range:
        m = moments(h)
        bits = self._bits + m.one_sided
        if m.magnitude < _BETWEEN * m.deviation:
            clip = laplace_clip(bits) * m.magnitude
        else:
            clip = gaussian_clip(bits) * m.deviation
        return _within(h, m.centre - clip, m.centre + clip)


class HalfWaveGaussian(ByHistogram):
    """The range of the best uniform quantizer for a rectified Gaussian (HWGQ); for both signs, of a Gaussian.

    The standard deviation before rectification is the root mean square of the positive numbers. Integers here
    round to the nearest, zero included, and the step is the best for that; see `half_wave_step`.

    Source: Z. Cai et al., "Deep Learning with Low Precision by Half-wave Gaussian Quantization" (CVPR 2017).
    """

    def __init__(self, bits: int = 8) -> None:
        self._bits = bits
        super().__init__()

    def _choose(self, h: Histogram) -> Range:
        m = moments(h)
        # A density of two signs is two half waves with a bit less each.
        bits = self._bits if m.one_sided else self._bits - 1
        rms = math.hypot(m.deviation, m.centre)
        reach = ((1 << bits) - 1) * half_wave_step(bits, rounds_to_zero=True) * rms
        return _within(h, -reach, reach)


def _within(h: Histogram, low: float, high: float) -> Range:
    """No wider than what was seen."""
    return Range.of(max(low, h.low), min(high, h.high))
