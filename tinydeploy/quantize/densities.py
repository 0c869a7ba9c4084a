"""Quantizers that are optimal for a known density: Gaussian, Laplace, and the rectified Gaussian.

All are computed, for a standard deviation (Gaussian) or a mean magnitude (Laplace) of 1, and scale with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Levels = npt.NDArray[np.float64]

_TOLERANCE = 1e-12
_ROUNDS = 100_000
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0
_erf = np.vectorize(math.erf, otypes=[np.float64])


@lru_cache
def laplace_clip(bits: int) -> float:
    """The clip alpha that leaves the least squared error of b bits over [-alpha, alpha], for E|x| = 1.

    Error: `2 e^-alpha` beyond the ends and `alpha^2 / (3 * 4^bits)` between them.

    Source: R. Banner et al., "Post training 4-bit quantization of convolutional networks for
    rapid-deployment" (ACIQ, NeurIPS 2019), equation 5, there found numerically as 2.83, 3.89 and 5.03 for
    2, 3 and 4 bits.
    """
    return _minimum(lambda a: 2.0 * math.exp(-a) + _rounding(a, bits), 0.0, 64.0)


@lru_cache
def gaussian_clip(bits: int) -> float:
    """As `laplace_clip`, for a normal density of variance 1: 1.71, 2.15 and 2.55 for 2, 3 and 4 bits.

    Error: `(1 + alpha^2) (1 - erf(alpha / sqrt 2)) - sqrt(2 / pi) alpha e^(-alpha^2 / 2)` beyond the ends.
    Source: the same, appendix.
    """

    def error(a: float) -> float:
        beyond = (1.0 + a * a) * math.erfc(a / math.sqrt(2.0))
        return beyond - math.sqrt(2.0 / math.pi) * a * math.exp(-a * a / 2.0) + _rounding(a, bits)

    return _minimum(error, 0.0, 32.0)


@lru_cache
def half_wave_step(bits: int, *, rounds_to_zero: bool = False) -> float:
    """The step of the best uniform quantizer of a rectified Gaussian of variance 1 before rectification.

    Its levels are 1, 2, ..., 2^b - 1 steps for positive numbers and 0 for all others.

    Source: Z. Cai et al., "Deep Learning with Low Precision by Half-wave Gaussian Quantization" (HWGQ, CVPR
    2017), section 4: 0.538 for 2 bits.

    Args:
        rounds_to_zero: small positive numbers become 0 too, as rounding to the nearest does; there the best
            2-bit step is 0.651, with half of the error.
    """
    first = 0 if rounds_to_zero else 1

    def error(step: float) -> float:
        return _distortion(np.arange(first, 1 << bits) * step)

    return _minimum(error, 0.0, 4.0)


@lru_cache
def half_wave_levels(bits: int) -> tuple[float, ...]:
    """The 2^b - 1 levels above 0 of the best quantizer of a rectified Gaussian, ascending, not uniform.

    Lloyd's two conditions in turns: thresholds midway between levels, levels at the mean of what they stand
    for. Sources: S. Lloyd, "Least squares quantization in PCM" (1982); the same section of HWGQ.
    """
    levels = np.arange(1, 1 << bits) * half_wave_step(bits)
    for _ in range(_ROUNDS):
        mass, first, _ = _moments(_thresholds(levels))
        moved = first / mass
        if np.abs(moved - levels).max() < _TOLERANCE:
            break
        levels = moved
    return tuple(float(q) for q in levels)


def half_wave_distortion(levels: Levels) -> float:
    """Mean squared error over the positive half of a normal density of variance 1, mass 1/2."""
    return _distortion(np.asarray(levels, np.float64))


def _distortion(levels: Levels) -> float:
    mass, first, second = _moments(_thresholds(levels))
    return float(np.sum(second - 2.0 * levels * first + levels**2 * mass))


def _thresholds(levels: Levels) -> Levels:
    """Where the nearest level changes, from 0 to infinity."""
    return np.concatenate([[0.0], (levels[1:] + levels[:-1]) / 2.0, [np.inf]])


def _moments(edges: Levels) -> tuple[Levels, Levels, Levels]:
    """The integrals of 1, x and x^2 times the normal density between neighbouring edges."""
    density = np.exp(-(edges**2) / 2.0) / math.sqrt(2.0 * math.pi)
    below = 0.5 * _erf(edges / math.sqrt(2.0))
    at_edges = np.where(np.isinf(edges), 0.0, np.where(np.isinf(edges), 0.0, edges) * density)
    mass = np.diff(below)
    return mass, -np.diff(density), mass - np.diff(at_edges)


def _rounding(clip: float, bits: int) -> float:
    return clip * clip / (3.0 * 4.0**bits)


def _minimum(error: Callable[[float], float], low: float, high: float) -> float:
    """Where a function with one minimum has it, by golden section."""
    while high - low > 1e-9:
        a, b = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if error(a) < error(b):
            high = b
        else:
            low = a
    return (low + high) / 2.0
