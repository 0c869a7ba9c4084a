"""Requantization with two 32-bit multiplications, for cores without a long one, exact and proved at export.

The output of a linear layer never falls while its accumulator grows. It is therefore known by its
thresholds: the smallest accumulator of each output level. With `u` the accumulator less that of the lowest
level, clamped to `0 <= u <= top`,

    byte = (u * high + (u * low >> fraction) + add) >> 24        modulo 2**32

never falls either. It equals the contract's rule everywhere where it does so on both sides of each
threshold. That is checked here, for every channel and level; factors next to the real ratio are tried.

The rule rounds ties away from zero, which shifts the thresholds of negative accumulators by one unit of what
it rounds. Where outputs below the zero point are not clamped away, `step` is that unit, and is taken from
the sum while `u < zero`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tinydeploy.ops.linear import LinearParameters
from tinydeploy.ops.requantize import Requantization

Int64Array = npt.NDArray[np.int64]

PLAIN, TIES, ANY = 0, 1, 2
"""TD_LEVEL_PLAIN, TD_LEVEL_TIES and TD_LEVEL_ANY of td_kernels_trio.h."""

_MOST_FRACTION, _LEAST_FRACTION = 16, 12
_LEVEL_BITS = 24
_BOUND = 2**30
_NEAR = sorted(range(-12, 13), key=abs)
_NEVER = np.iinfo(np.int64).max // 4


@dataclass(frozen=True)
class Levels:
    """What td_trio_levels makes outputs with.

    Attributes:
        way: TD_LEVEL_PLAIN, TD_LEVEL_TIES or TD_LEVEL_ANY.
        fraction: bits of `low`, the same for all channels.
        words: int64 (outputs, words of a channel), in the order that td_kernels_trio.h states.
    """

    way: int
    fraction: int
    words: Int64Array


def levels(weights: Int64Array, p: LinearParameters, zero_point: int) -> Levels:
    """The constants of a layer with weights (outputs, depth) and an int8 input of that zero point.

    Where an accumulator may reach 2**30, or no factors near the ratio give every threshold, they are those
    of the rule itself.
    """
    r = p.requantization
    magnitude = np.abs(weights).sum(axis=1)
    reach = max(127 - zero_point, zero_point + 128)
    least, most = p.bias - magnitude * reach, p.bias + magnitude * reach
    if max(np.abs(least).max(), np.abs(most).max()) >= _BOUND:
        return rule(p)
    first = r.apply_wide(least)
    count = r.apply_wide(most) - first
    thresholds = _thresholds(r, first, least, most)
    base = np.where(count > 0, thresholds[0] - 1, most)
    reached = np.arange(1, len(thresholds) + 1)[:, None] <= count
    u = np.where(reached, thresholds - base, 0)
    fraction = min(_MOST_FRACTION, 32 - int(u.max()).bit_length())
    if fraction < _LEAST_FRACTION:
        return rule(p)
    bias, top = p.folded_bias.astype(np.int64) - base, u.max(axis=0)
    shift = -np.resize(np.array(r.exponents, np.int64), len(first))
    unit = np.where((shift > 0) & (shift <= _LEVEL_BITS), 1 << np.clip(_LEVEL_BITS - shift, 0, 31), 0)
    for way, step in ((PLAIN, np.zeros_like(unit)), (TIES, np.where(count > 0, unit, 0))):
        line = _Line(u, reached, np.clip(-base, 0, top + 1), step, fraction)
        found = line.through(r)
        if found is not None:
            factor, add = found
            high, low = factor >> fraction, factor & ((1 << fraction) - 1)
            columns = [bias, top, high, low, (add + (first << _LEVEL_BITS)) & 0xFFFFFFFF]
            columns += [line.zero, -step] if way == TIES else []
            return Levels(way, fraction, np.stack(columns, axis=1))
    return rule(p)


def rule(p: LinearParameters) -> Levels:
    """Bias, multiplier and shift, for the kernel to compute the rule itself."""
    r, bias = p.requantization, p.folded_bias.astype(np.int64)
    scales = (np.resize(np.array(v, np.int64), len(bias)) for v in (r.mantissas, r.exponents))
    return Levels(ANY, 0, np.stack([bias, *scales], axis=1))


def _thresholds(r: Requantization, first: Int64Array, least: Int64Array, most: Int64Array) -> Int64Array:
    """[level - 1, channel]: the smallest accumulator from `least` on that gives `first` + level or more."""
    target = first + np.arange(1, max(1, int((r.apply_wide(most) - first).max())) + 1)[:, None]
    below, there = np.broadcast_to(least, target.shape), np.broadcast_to(most, target.shape)
    while np.any(there - below > 1):
        middle = (below + there) // 2
        is_there = r.apply_wide(middle) >= target
        below, there = np.where(is_there, below, middle), np.where(is_there, middle, there)
    return there


@dataclass(frozen=True)
class _Line:
    """What the factors are searched for: thresholds [level - 1, channel], and which of them are reached."""

    u: Int64Array
    reached: npt.NDArray[np.bool_]
    zero: Int64Array
    step: Int64Array
    fraction: int

    def through(self, r: Requantization) -> tuple[Int64Array, Int64Array] | None:
        """Factor, in units of 2**-fraction, and addend of each channel, or None where one has none."""
        u, reached = self.u, self.reached
        channels = u.shape[1]
        mantissa = np.resize(np.array(r.mantissas, np.int64), channels)
        exponent = np.resize(np.array(r.exponents, np.int64), channels)
        ratio = np.ldexp(mantissa.astype(np.float64), exponent - 31 + _LEVEL_BITS + self.fraction)
        live = reached.any(axis=0)
        if np.any(ratio[live] >= 2.0 ** (32 + self.fraction)):
            return None
        nearest = np.rint(np.where(live, ratio, 0)).astype(np.int64)
        levels = np.arange(1, len(u) + 1)[:, None] << _LEVEL_BITS
        # Behind the last threshold u stays at top, and must not reach a further level.
        end = (reached.sum(axis=0) + 1 << _LEVEL_BITS) - 1
        factor, add = np.zeros(channels, np.int64), np.zeros(channels, np.int64)
        waiting = live.copy()
        for near in _NEAR:
            trial = np.maximum(nearest + near, 0)
            need = np.where(reached, levels - self._sum(u, trial), 0).max(axis=0)
            need = np.maximum(need, -self._sum(np.zeros_like(factor), trial))
            room = np.where(reached, levels - 1 - self._sum(u - 1, trial), _NEVER).min(axis=0)
            room = np.minimum(room, end - self._sum(u.max(axis=0), trial))
            good = waiting & (need <= room)
            factor[good], add[good] = trial[good], need[good]
            waiting &= ~good
        return None if waiting.any() else (factor, add)

    def _sum(self, u: Int64Array, factor: Int64Array) -> Int64Array:
        """What the kernel adds up, but for `add`; `u` is -1 only for a threshold that is not reached."""
        u = np.maximum(u, 0)
        high, low = factor >> self.fraction, factor & ((1 << self.fraction) - 1)
        total: Int64Array = u * high + (u * low >> self.fraction) - np.where(u < self.zero, self.step, 0)
        return total
