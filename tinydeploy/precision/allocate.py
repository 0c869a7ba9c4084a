"""From quantization noise gains to bits: pure functions of numbers.

The gain E of a tensor says how much of its noise reaches the decision: quantized with the step D relative to
its peak, `D^2 E` bounds the probability that the fixed-point network decides otherwise than the float one.
Gains of independent tensors add.

Source: C. Sakr, N. Shanbhag, "An Analytical Method to Determine Minimum Per-Layer Precision of Deep Neural
Networks" (ICASSP 2018), and with Y. Kim, "Analytical Guarantees on Numerical Precision of Deep Neural
Networks" (ICML 2017), theorem 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

LEAST_BITS, MOST_BITS = 1, 32


@dataclass(frozen=True)
class Allocation:
    """Bits by tensor.

    Attributes:
        bits: by name.
        base: those of the tensor with the least gain.
        bound: on the probability of another decision.
    """

    bits: Mapping[str, int]
    base: int
    bound: float


def step(bits: int) -> float:
    """Of b bits over a range of [-1, 1]: `2^-(b - 1)`."""
    return math.ldexp(1.0, 1 - bits)


def bound(gains: Mapping[str, float], bits: Mapping[str, int]) -> float:
    """`sum D_i^2 E_i`: an upper bound of the probability that quantization changes a decision."""
    return sum(step(bits[name]) ** 2 * gain for name, gain in gains.items())


def offsets(gains: Mapping[str, float]) -> dict[str, int]:
    """Bits that each tensor needs beyond that of the least gain: `round(log2 sqrt(E_i / E_min))`.

    With them every tensor adds about the same to the bound. A tensor of gain 0 does not matter and gets the
    offset 0; it does not set the minimum either.
    """
    least = min((gain for gain in gains.values() if gain > 0.0), default=1.0)
    return {name: round(0.5 * math.log2(gain / least)) if gain > 0.0 else 0 for name, gain in gains.items()}


def allocate(gains: Mapping[str, float], base: int, *, least: int = 2, most: int = 8) -> Allocation:
    """The base and each tensor's offset, within what can be stored.

    Args:
        least, most: bits that are possible; the bound counts what was cut off.
    """
    given = {name: min(max(base + more, least), most) for name, more in offsets(gains).items()}
    return Allocation(given, base, bound(gains, given))


def uniform(gains: Mapping[str, float], bits: int) -> Allocation:
    """The same bits everywhere."""
    given = dict.fromkeys(gains, bits)
    return Allocation(given, bits, bound(gains, given))


def least_bits(
    gains: Mapping[str, float],
    loss: float,
    *,
    per_tensor: bool,
    least: int = LEAST_BITS,
    most: int = MOST_BITS,
) -> Allocation | None:
    """The least base (or least uniform bits) with a bound of at most `loss`; None where none reaches it.

    Args:
        loss: accuracy that may be lost, a fraction; the bound holds for it, since a decision that does not
            change is as right as it was.
        per_tensor: with offsets; else the same bits everywhere.
        least, most: bits that are possible.
    """
    for base in range(least - max(offsets(gains).values(), default=0), most + 1):
        found = allocate(gains, base, least=least, most=most) if per_tensor else uniform(gains, base)
        if (per_tensor or base >= least) and found.bound <= loss:
            return found
    return None
