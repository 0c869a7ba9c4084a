"""What the DSP kernels of linear layers compute with: scales that fit their instructions, and weight streams.

Every bound that a kernel relies on is proved here, for the layer at hand; where a proof fails there is no
such kernel for the layer, and the portable one is used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tinydeploy.ir.op import Site
from tinydeploy.numerics import INT32_MAX
from tinydeploy.ops import Conv2D, FullyConnected
from tinydeploy.ops.linear import LinearParameters

CLAMPED, TIES, ANY, MIXED = 0, 1, 2, 3
WAY_NAMES = ("TD_DSP_CLAMPED", "TD_DSP_TIES", "TD_DSP_ANY", "TD_DSP_MIXED")
"""The ways of td_kernels_dsp.h."""

DOUBLING_BOUND = 2**30
PAIR_BOUND = 2**23
_MOST_SHIFT = 22
_UNROLLS = (8, 7, 6, 5, 4, 2)
_LOOP_INSTRUCTIONS, _STEP_INSTRUCTIONS = 3, 12

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class DspScales:
    """A linear layer with the channels that never change made trivial, and its scales as the kernels
    take them.

    Attributes:
        way: CLAMPED, TIES, ANY or MIXED.
        weights: (outputs, depth), zeros for a constant channel unless they stay as stored.
        bias: folded bias, likewise.
        multiplier, offset, shift: per output channel.
        target: what becomes of an accumulator of 0: the zero point, or the one value of a constant channel.
        bounds: proved largest |accumulator| of each channel that counts.
    """

    way: int
    weights: Int64Array
    bias: Int64Array
    multiplier: Int64Array
    offset: Int64Array
    shift: Int64Array
    target: Int64Array
    bounds: Int64Array


def dsp_scales(
    weights: Int64Array, p: LinearParameters, zero_point: int, *, as_stored: bool = False
) -> DspScales | None:
    """Scales of a layer with weights (outputs, depth) and an int8 input of that zero point.

    Args:
        as_stored: constant channels keep their weights, for the stored form may have no zeros.

    Returns:
        None where an accumulator may reach 2**30.
    """
    r = p.requantization
    outputs = weights.shape[0]
    mantissa = np.resize(np.array(r.mantissas, np.int64), outputs)
    exponent = np.resize(np.array(r.exponents, np.int64), outputs)
    magnitude = np.abs(weights).sum(axis=1)
    reach = max(127 - zero_point, zero_point + 128)
    low, high = p.bias - magnitude * reach, p.bias + magnitude * reach
    first, last = r.apply_wide(low), r.apply_wide(high)
    # The output grows with the accumulator: equal at both ends, it is equal everywhere.
    constant = (first == last) | (mantissa == 0)
    live = ~constant
    used = np.ones_like(live) if as_stored else live
    w = np.where(used[:, None], weights, 0)
    bias = np.where(used, p.folded_bias.astype(np.int64), 0)
    reached = np.maximum(np.abs(low), np.abs(high))
    if reached[used].max(initial=0) >= DOUBLING_BOUND:
        return None
    bounds = np.where(live, reached, 0)
    # An accumulator of 0 comes out at the target by any multiplier, any other one by that of 0.
    multipliers = np.where(live, mantissa, 0 if as_stored else 2**30)
    target = np.where(live, r.zero_point, first)
    shifts = -exponent
    right = bool(np.all((shifts[live] >= 1) & (shifts[live] <= _MOST_SHIFT)))
    if right:
        shift = np.where(live, shifts, shifts[live].min() if live.any() else 1)
        offset = (target << shift) + (1 << (shift - 1))
        if (np.abs(offset) + bounds).max() <= INT32_MAX - 1:
            way = CLAMPED if r.low >= r.zero_point else TIES
            return DspScales(way, w, bias, multipliers, offset, shift, target, bounds)
    doubled = (bounds << np.where(live, np.maximum(exponent, 0), 0)).max(initial=0) < DOUBLING_BOUND
    return DspScales(
        MIXED if doubled else ANY, w, bias, multipliers, target, np.where(live, exponent, 0), target, bounds
    )


@dataclass(frozen=True)
class DotProducts:
    """The constants of td_dsp_dot.

    Attributes:
        depth: inputs of one output.
        words: words of lanes for each channel pair; a multiple of `unroll`.
        common: multiplier, offset and shift, where all channels have the same.
        scales: those of each channel.
        quads: the words of two pairs stand in turns, for a kernel that makes four channels at a time.
        stream: int32, in the order that td_kernels_dsp_dot.h states.
    """

    depth: int
    words: int
    unroll: int
    way: int
    common: tuple[int, int, int] | None
    scales: DspScales
    quads: bool
    stream: npt.NDArray[np.int32]


def dot_products(
    op: Conv2D | FullyConnected, site: Site, *, few: bool = False, as_stored: bool = False
) -> DotProducts | None:
    """The constants of a convolution without groups or a fully connected layer.

    Args:
        few: for the kernel of few rows, which takes two pairs at a time where there is an even number.
        as_stored: see `dsp_scales`.

    Returns:
        None where a pair of weights does not fit a lane, or a sum may reach 2**23.
    """
    array = site.input(1).array.astype(np.int64)
    rows, zero_point = array.reshape(array.shape[0], -1), site.input(0).quant.zero_point
    s = dsp_scales(rows, op.parameters(site), zero_point, as_stored=as_stored)
    if s is None or s.bounds[0::2].max(initial=0) >= PAIR_BOUND:
        return None
    outputs, depth = s.weights.shape
    unroll, words = _unroll(depth, as_stored)
    pairs = -(-outputs // 2)
    weights = np.zeros((2 * pairs, 2 * words), np.int64)
    weights[:outputs, :depth] = s.weights
    lanes = 256 * weights[0::2] + weights[1::2]
    if lanes.size and (lanes.min() < -(2**15) or lanes.max() >= 2**15):
        return None
    # Inputs k .. k+3 are the lanes (k, k+2) and (k+1, k+3).
    order = lanes.reshape(pairs, words // 2, 2, 2).transpose(0, 1, 3, 2).reshape(pairs, words, 2)
    packed = (order[..., 0] & 0xFFFF) | ((order[..., 1] & 0xFFFF) << 16)
    bias = _by_pair(s.bias, pairs)
    together = 2 if few and pairs % 2 == 0 else 1
    # [group][pair][four inputs][their two words] becomes [group][four inputs][pair][two words].
    packed = packed.reshape(pairs // together, together, words // 2, 2).transpose(0, 2, 1, 3)
    biases = np.concatenate([256 * bias[:, :1] + bias[:, 1:], bias[:, 1:]], axis=1)
    groups = pairs // together
    columns = [biases.reshape(groups, -1), packed.reshape(groups, -1)]
    scales = np.stack([s.multiplier, s.offset, s.shift], axis=1)
    common = None
    if (scales == scales[0]).all():
        common = (int(scales[0, 0]), int(scales[0, 1]), int(scales[0, 2]))
    else:
        by_pair = [_by_pair(v, pairs) for v in scales.T]
        columns.append(np.stack(by_pair, axis=2).reshape(groups, -1))
    stream = wrapped(np.concatenate(columns, axis=1))
    return DotProducts(depth, words, unroll, s.way, common, s, together == 2, stream)


def wrapped(values: Int64Array) -> npt.NDArray[np.int32]:
    """Integers modulo 2**32 as int32."""
    return (values & 0xFFFFFFFF).astype(np.uint32).view(np.int32).reshape(-1)


def _by_pair(values: Int64Array, pairs: int) -> Int64Array:
    padded = np.zeros(2 * pairs, np.int64)
    padded[: len(values)] = values
    return padded.reshape(pairs, 2)


def _unroll(depth: int, as_stored: bool) -> tuple[int, int]:
    """The unrolling with the fewest instructions, and the words of lanes with it: two for four inputs.

    Stored weights may have no zeros, so that no word may stand behind the last four inputs.
    """
    fewest = 2 * -(-depth // 4)

    def words(unroll: int) -> int:
        each = math.lcm(unroll, 2)
        return -(-fewest // each) * each

    def cost(unroll: int) -> int:
        return words(unroll) // unroll * (_STEP_INSTRUCTIONS * unroll + _LOOP_INSTRUCTIONS)

    unroll = min((u for u in _UNROLLS if not as_stored or words(u) == fewest), key=cost)
    return unroll, words(unroll)
