"""Exact integer Winograd F(2x2,3x3): which layers it can compute, proved, its constants and its lead."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tinydeploy.ir.op import Site
from tinydeploy.numerics import INT32_MAX
from tinydeploy.ops import Conv2D
from tinydeploy.plan.dsp_linear import DspScales, dsp_scales, wrapped
from tinydeploy.plan.lead import drift

_KERNEL = 3
_GROUP = 4
_G = np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]], np.int64)
"""Twice the G of the algorithm, so that it is whole."""
_REACH = 128
"""Largest |q| of an input."""


@dataclass(frozen=True)
class Winograd:
    """The constants of td_dsp_winograd.

    Attributes:
        unroll: words of channels in the body of the inner loop.
        way: of the requantization.
        stream: int32, in the order that td_kernels_dsp_winograd.h states.
    """

    unroll: int
    way: int
    stream: npt.NDArray[np.int32]


def has_winograd(op: Conv2D, site: Site) -> bool:
    """Whether the kernel can compute a layer: 3x3, stride 1, no groups, whole words of channels."""
    weights = site.input(1)
    if weights.shape[1:3] != (_KERNEL, _KERNEL) or op.strides != (1, 1) or op.dilations != (1, 1):
        return False
    if op.groups(site) > 1 or weights.shape[3] % _GROUP:
        return False
    # Four times a sum of products is what the transforms leave; it must be inside int32.
    magnitude = np.abs(weights.array.astype(np.int64)).reshape(weights.shape[0], -1).sum(axis=1)
    return bool(4 * _REACH * magnitude.max() <= INT32_MAX) and _scales(op, site) is not None


def _scales(op: Conv2D, site: Site) -> DspScales | None:
    array = site.input(1).array.astype(np.int64)
    return dsp_scales(array.reshape(len(array), -1), op.parameters(site), site.input(0).quant.zero_point)


def winograd(op: Conv2D, site: Site) -> Winograd:
    """The constants of a layer for which `has_winograd` holds."""
    s = _scales(op, site)
    assert s is not None, "has_winograd says so"
    outputs, _, _, channels = site.input(1).shape
    g = s.weights.reshape(outputs, _KERNEL, _KERNEL, channels)
    u = np.einsum("ik,okmc,jm->oijc", _G, g, _G).reshape(outputs, 16, channels)
    pairs = -(-outputs // 2)
    padded = np.zeros((2 * pairs, 16, channels), np.int64)
    padded[:outputs] = u
    # Channels k .. k+3 are the lanes (k, k+2) and (k+1, k+3), as SXTB16 unpacks them.
    lanes = padded.reshape(2 * pairs, 16, channels // 4, 2, 2).transpose(0, 1, 2, 4, 3) & 0xFFFF
    words = (lanes[..., 0] | lanes[..., 1] << 16).reshape(pairs, 2, 16, channels // 2)
    constants = np.zeros((2 * pairs, 4), np.int64)
    constants[:outputs] = np.stack([2 * s.bias, s.multiplier, s.offset, s.shift], axis=1)
    columns = [words.transpose(0, 2, 3, 1).reshape(pairs, -1), constants.reshape(pairs, 8)]
    unroll = next(n for n in (8, 4, 2) if channels // 2 % n == 0)
    return Winograd(unroll, s.way, wrapped(np.concatenate(columns, axis=1)))


def row_tiles(site: Site) -> int:
    """Tiles of a row of outputs, in whole groups."""
    return -(-site.output.shape[2] // (2 * _GROUP)) * _GROUP


def winograd_scratch(site: Site, tiles: int) -> int:
    """Bytes of the transformed input of `tiles` tiles, and of the products before they are transformed."""
    return 4 * (8 * tiles * site.input(0).shape[3] + 32 * tiles)


def winograd_flash(site: Site) -> int:
    """Bytes of the transformed weights."""
    outputs, _, _, channels = site.input(1).shape
    return -(-outputs // 2) * (64 * channels + 32)


def winograd_lead(op: Conv2D, site: Site, tiles: int) -> int:
    """The lead where a block of tiles is written once its inputs were read."""
    images, rows, columns, outputs = site.output.shape
    _, _, width, channels = site.input(0).shape
    written, read = [], []
    for y in range(0, rows, 2):
        top = max(0, y - op.padding.top) * width * channels
        for x in range(0, columns, 2 * tiles):
            right = min(x + 2 * tiles, columns)
            written.append(((min(y + 2, rows) - 1) * columns + right) * outputs)
            read.append(top + max(0, x - op.padding.left) * channels)
    later = np.minimum.accumulate(np.array([*read[1:], site.input(0).elements // images])[::-1])[::-1]
    return max(0, int((np.array(written) - later).max()) + drift(site))
