"""The depthwise kernel of the DSP extension: which layers it can compute, its constants and its planes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tinydeploy.ir.op import Site
from tinydeploy.ops import DepthwiseConv2D
from tinydeploy.plan.dsp_linear import DspScales, dsp_scales, wrapped

_BLOCK = 4
_KERNEL = 3
_BAND_BYTES = 2560
"""Scratch for a band of rows, where the planes of a whole image do not pay."""


@dataclass(frozen=True)
class Planes:
    """How td_dsp_depthwise works on a layer.

    Attributes:
        band: output rows for each filling of the planes.
        words: words of a plane's row.
        scratch_bytes: of the planes.
        way: of the requantization.
        scales: those of each channel.
        stream: int32, the words of each channel.
    """

    band: int
    words: int
    scratch_bytes: int
    way: int
    scales: DspScales
    stream: npt.NDArray[np.int32]


def planes(
    op: DepthwiseConv2D, site: Site, most: int | None = None, *, as_stored: bool = False
) -> Planes | None:
    """The planes of a 3x3 layer with strides of 1 or 2, or None where the kernel cannot compute it.

    Args:
        most: bytes of scratch, as far as a band of one row allows; by default what pays.
        as_stored: see `dsp_scales`.
    """
    fits = site.input(1).shape[1:3] == (_KERNEL, _KERNEL) and max(op.strides) <= 2 and op.dilations == (1, 1)
    s = depthwise_scales(op, site, as_stored) if fits else None
    if s is None:
        return None
    w = s.weights.reshape(-1, _KERNEL, _KERNEL) & 0xFF
    packed = w[..., 0] | w[..., 1] << 8 | w[..., 1] << 16 | w[..., 2] << 24
    columns = (packed, np.stack([2 * s.bias, s.multiplier, s.offset, s.shift], axis=1))
    band, words = _band(op, site, most)
    return Planes(band, words, _bytes(op, band, words), s.way, s, wrapped(np.concatenate(columns, axis=1)))


@dataclass(frozen=True)
class Taps:
    """The constants of td_dsp_depthwise_taps: way of the requantization, scales, the words of each block."""

    way: int
    scales: DspScales
    stream: npt.NDArray[np.int32]


def block_order(channels: int) -> npt.NDArray[np.int64]:
    """The channels of each block of four; the last four may have some of the block before them."""
    starts = np.minimum(np.arange(0, channels, _BLOCK), channels - _BLOCK)
    order: npt.NDArray[np.int64] = (starts[:, None] + np.arange(_BLOCK)).reshape(-1)
    return order


def taps(op: DepthwiseConv2D, site: Site, *, as_stored: bool = False) -> Taps | None:
    """The constants of any depthwise layer without a multiplier; None where the kernel cannot compute it."""
    s = depthwise_scales(op, site, as_stored)
    if s is None:
        return None
    channels, depth = s.weights.shape
    order = block_order(channels)
    blocks = len(order) // _BLOCK
    scales = np.stack([s.multiplier, s.offset, s.shift], axis=1)[order]
    # [block][tap][even or odd channels][low or high lane]
    lanes = (2 * s.weights)[order].reshape(-1, 2, 2, depth).transpose(0, 3, 2, 1) & 0xFFFF
    columns = (
        (2 * s.bias)[order].reshape(blocks, _BLOCK),
        scales.reshape(blocks, 3 * _BLOCK),
        (lanes[..., 0] | lanes[..., 1] << 16).reshape(blocks, -1),
    )
    return Taps(s.way, s, wrapped(np.concatenate(columns, axis=1)))


def depthwise_scales(op: DepthwiseConv2D, site: Site, as_stored: bool = False) -> DspScales | None:
    """The scales of a layer without a multiplier and with whole words of channels, or None."""
    channels = site.input(0).shape[3]
    if op.multiplier(site) != 1 or channels < _BLOCK:
        return None
    array = site.input(1).array.astype(np.int64).reshape(-1, channels).T
    return dsp_scales(array, op.parameters(site), site.input(0).quant.zero_point, as_stored=as_stored)


def covers_image(op: DepthwiseConv2D, site: Site, p: Planes) -> bool:
    """Whether a block's channels are all read before one is written, so that they may be overwritten."""
    return p.band == site.output.shape[1]


def _band(op: DepthwiseConv2D, site: Site, most: int | None) -> tuple[int, int]:
    _, out_h, out_w, _ = site.output.shape
    words = -(-out_w // 2) + 1 if op.strides[1] == 1 else out_w + 1
    x = site.input(0)
    # Planes of the whole image spare the layer an output of its own.
    worth = x.bytes // 2 if x.shape == site.output.shape else 0
    band = out_h
    while band > 1 and _bytes(op, band, words) > (max(worth, _BAND_BYTES) if most is None else most):
        band -= 1
    # Bands of one height, as far as possible.
    return -(-out_h // -(-out_h // band)), words


def _bytes(op: DepthwiseConv2D, band: int, words: int) -> int:
    return 4 * _BLOCK * words * ((band - 1) * op.strides[0] + _KERNEL)
