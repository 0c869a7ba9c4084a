"""Signal to quantization noise ratios (SQNR) in decibels, as formulas predict them.

A quantizer of step `d` whose noise is uniform in [-d/2, d/2] and independent of the signal has the noise
power `d^2 / 12`. Source: B. Widrow, I. Kollar, "Quantization Noise" (2008), chapter 4. A signal of peak `p`
in B bits has the step `2 p 2^-B`.
"""

from __future__ import annotations

import math

DB_PER_BIT = 20.0 * math.log10(2.0)
"""6.02 dB, which formulas round to 6."""

DB_UNIFORM = 10.0 * math.log10(3.0)
"""4.77 dB, which formulas round to 4.8: the SQNR of 0 bits for a signal that is at its peak always."""


def decibels_of(ratio: float) -> float:
    """A ratio of powers; infinite for an infinite one, minus infinite for none."""
    if ratio == 0.0:
        return -math.inf
    return math.inf if math.isinf(ratio) else 10.0 * math.log10(ratio)


def zeta_db(peak: float, rms: float) -> float:
    """Peak over root mean square: 4.8 dB for uniform numbers, 0 for signs; infinite for a signal of zero."""
    return math.inf if rms == 0.0 else 20.0 * math.log10(peak / rms)


def tensor_sqnr_db(bits: float, zeta: float) -> float:
    """SQNR of a tensor quantized over its whole range: `6 B + 4.8 - zeta`, with `zeta` in dB."""
    return DB_PER_BIT * bits + DB_UNIFORM - zeta


def dot_product_sqnr_db(bits: float, zeta_x: float, zeta_w: float, length: int) -> float:
    """SQNR of a dot product that is kept in B bits over all that its operands could make of it.

    `6 B_y + 4.8 - (zeta_x + zeta_w) - 10 log10 N`: the signal has the power `N (x_rms w_rms)^2`, and the step
    is `2 N x_peak w_peak 2^-B_y`. Operands are independent, and one of them has zero mean.

    Source: S. K. Gonugondla, C. Sakr, H. Dbouk, N. R. Shanbhag, "Fundamental Limits on the Precision of
    In-memory Architectures" (ICCAD 2020), for outputs by the bit growth criterion.

    Args:
        bits: of the output.
        zeta_x, zeta_w: peak over rms of either operand in dB.
        length: products in the sum, N.
    """
    return DB_PER_BIT * bits + DB_UNIFORM - (zeta_x + zeta_w) - 10.0 * math.log10(length)


def dot_product_bits(sqnr_db: float, zeta_x: float, zeta_w: float, length: int) -> int:
    """The least output bits at which `dot_product_sqnr_db` reaches `sqnr_db`."""
    return math.ceil((sqnr_db - dot_product_sqnr_db(0.0, zeta_x, zeta_w, length)) / DB_PER_BIT)


def operand_sqnr_db(x_db: float, w_db: float) -> float:
    """SQNR of an exact dot product of two quantized operands: their noise to signal ratios add.

    To first order in the noise, and for noise that is independent of both signals; same source as
    `dot_product_sqnr_db`, for input-referred noise.
    """
    noise = noise_ratio(x_db) + noise_ratio(w_db)
    return decibels_of(1.0 / noise) if noise else math.inf


def noise_ratio(sqnr_db: float) -> float:
    """Noise power over signal power; 0 for an infinite SQNR."""
    return math.pow(10.0, -sqnr_db / 10.0)
