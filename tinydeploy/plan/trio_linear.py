"""Three products in two words: which linear layers allow it, and the stream of their weights.

td_kernels_trio.h says how it works. The sums of a window, or of each of its segments, must stay inside
21 bits; that is proved here from the weights, for every input there is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tinydeploy.ir.op import Site
from tinydeploy.ops import Conv2D, FullyConnected
from tinydeploy.plan.dsp_linear import wrapped
from tinydeploy.plan.levels import Levels, levels, rule

Int64Array = npt.NDArray[np.int64]

SUM_BOUND = 2**20
"""No sum of a trio may reach it in size: td_kernels_trio.h takes 21 bits for each."""
LEAST_INPUT = 128
_UNROLL = 4


@dataclass(frozen=True)
class TrioDot:
    """The constants of td_trio_dot.

    Attributes:
        depth: inputs of one output.
        steps: weights of one segment, a multiple of 4.
        segments: of each window.
        levels: how outputs are made of sums.
        stream: int32, the words of each channel.
    """

    depth: int
    steps: int
    segments: int
    levels: Levels
    stream: npt.NDArray[np.int32]

    @property
    def lane_bytes(self) -> int:
        """Bytes of the lanes of six pixels."""
        return 16 * self.steps * self.segments


def trio_dot(op: Conv2D | FullyConnected, site: Site, *, by_rule: bool = False) -> TrioDot:
    """The constants of a convolution without groups or a fully connected layer.

    Args:
        by_rule: outputs by the rule itself, with the fewest constants, and not by thresholds.
    """
    array = site.input(1).array.astype(np.int64)
    weights = array.reshape(array.shape[0], -1)
    p = op.parameters(site)
    found = rule(p) if by_rule else levels(weights, p, site.input(0).quant.zero_point)
    outputs, depth = weights.shape
    steps, segments = _segments(weights)
    padded = np.zeros((outputs, steps * segments), np.int64)
    padded[:, :depth] = weights
    stream = wrapped(np.concatenate([less(found.words, segments), packed(padded)], axis=1))
    return TrioDot(depth, steps, segments, found, stream)


def less(words: Int64Array, trios: int) -> Int64Array:
    """The words of a requantization with what that many trios add to each sum taken from the biases."""
    return np.concatenate([words[:, :1] - trios * SUM_BOUND, words[:, 1:]], axis=1)


def packed(weights: Int64Array) -> Int64Array:
    """Rows of weights as words of four, the first in the low byte."""
    fours = weights.reshape(len(weights), -1, 4) & 0xFF
    shifted: Int64Array = (fours << np.array([0, 8, 16, 24])).sum(axis=2)
    return shifted


def fits_trio(weights: Int64Array) -> bool:
    """Whether the sums of rows of weights with any int8 inputs stay below the bound."""
    return bool((LEAST_INPUT * np.abs(weights).sum(axis=-1)).max(initial=0) < SUM_BOUND)


def _segments(weights: Int64Array) -> tuple[int, int]:
    """Steps of a segment and their number, the fewest whose sums fit; one step always does."""
    outputs, depth = weights.shape
    segments = 0
    while True:
        segments += 1
        steps = -(-depth // (segments * _UNROLL)) * _UNROLL
        padded = np.zeros((outputs, steps * segments), np.int64)
        padded[:, :depth] = weights
        if fits_trio(padded.reshape(outputs, segments, steps)):
            return steps, segments
