"""Depthwise layers for cores without a long multiplication: constants and planes of td_trio_depthwise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tinydeploy.ir.op import Site
from tinydeploy.ops import DepthwiseConv2D
from tinydeploy.plan.dsp_linear import wrapped
from tinydeploy.plan.levels import Levels, levels, rule
from tinydeploy.plan.trio_linear import fits_trio, less, packed

_LANES = 3
_TRIO_BYTES = 8


@dataclass(frozen=True)
class TrioDepthwise:
    """The constants of td_trio_depthwise.

    Attributes:
        levels: how outputs are made of sums.
        stream: int32, the words of each channel.
    """

    levels: Levels
    stream: npt.NDArray[np.int32]


def trio_depthwise(op: DepthwiseConv2D, site: Site, *, by_rule: bool = False) -> TrioDepthwise | None:
    """The constants of a layer without a multiplier; None where no proof holds.

    Args:
        by_rule: see `trio_dot`.
    """
    channels = site.input(0).shape[3]
    if op.multiplier(site) != 1:
        return None
    weights = site.input(1).array.astype(np.int64).reshape(-1, channels).T
    p = op.parameters(site)
    found = rule(p) if by_rule else levels(weights, p, site.input(0).quant.zero_point)
    if not fits_trio(weights):
        return None
    taps = weights.shape[1]
    padded = np.zeros((channels, -(-taps // 4) * 4), np.int64)
    padded[:, :taps] = weights
    return TrioDepthwise(found, wrapped(np.concatenate([less(found.words, 1), packed(padded)], axis=1)))


def band_rows(site: Site) -> int:
    """Rows of each third of the output."""
    return -(-site.output.shape[1] // _LANES)


def plane_bytes(op: DepthwiseConv2D, site: Site, part: int) -> int:
    """Scratch for `part` rows of each band: the weights of a channel, and its plane."""
    kernel_h, kernel_w = op.window(site).kernel
    return 4 * kernel_h * kernel_w + _TRIO_BYTES * _plane(op, site, part)


def plane_inputs(op: DepthwiseConv2D, site: Site, part: int) -> int:
    """Values that go into the planes of a layer, those that are read for several parts included."""
    images, channels = site.output.shape[0], site.output.shape[3]
    return images * channels * -(-band_rows(site) // part) * _LANES * _plane(op, site, part)


def _plane(op: DepthwiseConv2D, site: Site, part: int) -> int:
    """Trios in a plane."""
    window = op.window(site)
    rows = (part - 1) * window.strides[0] + window.extent[0]
    return rows * ((site.output.shape[2] - 1) * window.strides[1] + window.extent[1])
