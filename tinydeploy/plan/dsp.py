"""The kernels for the DSP extension: which layers they can compute, proved, and what scratch they need."""

from __future__ import annotations

from dataclasses import dataclass

from tinydeploy.ir.op import Op, Site
from tinydeploy.ir.types import DType
from tinydeploy.ops import Add, AveragePool2D, Conv2D, DepthwiseConv2D, FullyConnected, MaxPool2D, Mean
from tinydeploy.plan.cost import (
    add_cycles,
    dot_cycles,
    few_rows_cycles,
    planes_cycles,
    pool_cycles,
    taps_cycles,
    winograd_cycles,
)
from tinydeploy.plan.dsp_add import linear_add
from tinydeploy.plan.dsp_depthwise import covers_image, planes, taps
from tinydeploy.plan.dsp_linear import DotProducts, dot_products
from tinydeploy.plan.dsp_winograd import (
    has_winograd,
    row_tiles,
    winograd_flash,
    winograd_lead,
    winograd_scratch,
)
from tinydeploy.plan.lead import band_lead, convolution_lead, few_rows_lead, rows_lead

ADD = "dsp_add"
ROWS = "dsp_rows"
FEW_ROWS = "dsp_few_rows"
CONVOLUTION = "dsp_conv_2d"
DEPTHWISE = "dsp_depthwise"
DEPTHWISE_CARRIED = "dsp_depthwise_carried"
DEPTHWISE_TAPS = "dsp_depthwise_taps"
DEPTHWISE_TAPS_BY_PIXEL = "dsp_depthwise_taps_by_pixel"
WINOGRAD = "dsp_winograd"
POOL = "dsp_pool"

_BLOCK = _MANY_ROWS = 4
"""Pixels or rows that the kernels with lanes take at once."""


@dataclass(frozen=True)
class DspKernel:
    """A kernel for the DSP extension; the attributes are those of KernelChoice."""

    name: str
    scratch_bytes: int = 0
    in_place: bool = False
    lead: int | None = None
    block: int = 0
    cycles: int = 0
    more_flash: int = 0


def kernels_for(op: Op, site: Site, *, as_stored: bool = False) -> list[DspKernel]:
    """The kernels that can compute a layer; none where no proof holds.

    Args:
        as_stored: with every weight as it is, see `dsp_scales`.
    """
    if not site.output.dtype.is_float:
        if isinstance(op, FullyConnected):
            outputs, inputs = site.input(1).shape
            return _rows(
                dot_products(op, site, as_stored=as_stored), site.input(0).elements // inputs, outputs
            )
        if isinstance(op, Conv2D):
            return _convolution(op, site, as_stored)
        if isinstance(op, Add) and linear_add(op, site) is not None:
            return [DspKernel(ADD, cycles=add_cycles(site.output.elements))]
        if isinstance(op, DepthwiseConv2D):
            return _depthwise(op, site, as_stored)
        if isinstance(op, AveragePool2D | MaxPool2D | Mean) and _pools_words(op, site):
            return [DspKernel(POOL, cycles=pool_cycles(op, site))]
    return []


def _pools_words(op: AveragePool2D | MaxPool2D | Mean, site: Site) -> bool:
    """Whether at least four channels lie side by side."""
    x = site.input(0)
    if isinstance(op, Mean) and len(x.shape) - 1 in op.axes:
        return False
    return x.dtype is DType.INT8 and x.shape[-1] >= _BLOCK


def is_rows(op: Conv2D, site: Site) -> bool:
    """Whether a convolution reads each pixel by itself, in the order in which they stand."""
    return site.input(1).shape[1:3] == (1, 1) and op.strides == (1, 1) and op.padding.none


def _rows(dot: DotProducts | None, rows: int, outputs: int) -> list[DspKernel]:
    if dot is None:
        return []
    macs = rows * dot.depth * outputs
    if rows < _MANY_ROWS:
        lead = few_rows_lead(rows, dot.depth, outputs)
        return [DspKernel(FEW_ROWS, lead=lead, cycles=few_rows_cycles(macs))]
    lead = rows_lead(rows, dot.depth, outputs)
    cycles = dot_cycles(macs, rows * outputs, rows * dot.depth)
    return [DspKernel(ROWS, _lanes(dot, rows), in_place=True, lead=lead, cycles=cycles)]


def _convolution(op: Conv2D, site: Site, as_stored: bool) -> list[DspKernel]:
    if op.groups(site) > 1:
        return []
    dot = dot_products(op, site, as_stored=as_stored)
    images, rows, columns, outputs = site.output.shape
    pixels = images * rows * columns
    found = _winograd(op, site)
    if dot is not None and is_rows(op, site):
        return _rows(dot, pixels, outputs)
    if dot is not None:
        scratch = _lanes(dot, rows * columns) + _window_bytes(dot, site)
        lead = convolution_lead(op.window(site), site, _BLOCK)
        cycles = dot_cycles(op.macs(site), pixels * outputs, pixels * dot.depth)
        found.append(DspKernel(CONVOLUTION, scratch, lead=lead, cycles=cycles))
    return found


def _winograd(op: Conv2D, site: Site) -> list[DspKernel]:
    """With a whole row of tiles at a time, and with as few as possible."""
    if not has_winograd(op, site):
        return []
    images, rows, columns, _ = site.output.shape
    macs, outputs, inputs = op.macs(site), site.output.elements, site.input(0).elements
    found = []
    for tiles in sorted({row_tiles(site), 4}):
        blocks = images * -(-rows // 2) * -(-columns // (2 * tiles))
        cycles = winograd_cycles(macs, outputs, inputs, blocks, winograd_flash(site))
        scratch, lead = winograd_scratch(site, tiles), winograd_lead(op, site, tiles)
        more = winograd_flash(site) - site.input(1).bytes
        found.append(DspKernel(WINOGRAD, scratch, lead=lead, block=tiles, cycles=cycles, more_flash=more))
    return found


def _depthwise(op: DepthwiseConv2D, site: Site, as_stored: bool) -> list[DspKernel]:
    """Planes with the bands that pay most, and with ever lower ones."""
    found: dict[int, DspKernel] = {}
    for most in (None, 4096, 2560, 1536):
        p = planes(op, site, most, as_stored=as_stored)
        if p is None:
            break
        lead = band_lead(op.window(site), site, p.band)
        sorted_rows = ((p.band - 1) * op.strides[0] + 3) / p.band
        cycles = planes_cycles(op.macs(site), sorted_rows)
        in_place = covers_image(op, site, p)
        found[p.band] = DspKernel(DEPTHWISE, p.scratch_bytes, in_place, lead, p.band, cycles)
    if not found and taps(op, site, as_stored=as_stored) is not None:
        return [DspKernel(DEPTHWISE_TAPS, cycles=taps_cycles(op.macs(site))), *_by_pixel(op, site, as_stored)]
    return [*found.values(), *_carried(op, site, as_stored)]


def _by_pixel(op: DepthwiseConv2D, site: Site, as_stored: bool) -> list[DspKernel]:
    """The kernel for any shape in the order of the pixels, so that its output may lie over its input."""
    if as_stored:
        return []
    lead = convolution_lead(op.window(site), site, 1)
    # The last block reads up to three channels again that the pixel has written.
    lead += -site.output.shape[3] % _BLOCK
    return [DspKernel(DEPTHWISE_TAPS_BY_PIXEL, lead=lead, cycles=taps_cycles(op.macs(site), by_pixel=True))]


def _carried(op: DepthwiseConv2D, site: Site, as_stored: bool) -> list[DspKernel]:
    """In place with the planes of a few rows, which keep those that are overwritten."""
    if as_stored or op.strides != (1, 1) or site.input(0).shape != site.output.shape:
        return []
    found: dict[int, DspKernel] = {}
    for most in (1024, 512):
        p = planes(op, site, most)
        if p is not None and not covers_image(op, site, p):
            # Two rows of each band are copied in place of being sorted, which is counted as as much.
            cycles = planes_cycles(op.macs(site), (p.band + 2) / p.band)
            found[p.band] = DspKernel(DEPTHWISE_CARRIED, p.scratch_bytes, True, None, p.band, cycles)
    return list(found.values())


def widen_cycles(site: Site, dot: DotProducts) -> int:
    """Cycles to widen the inputs of all pixels once."""
    return dot_cycles(0, 0, site.output.elements // site.input(1).shape[0] * dot.depth)


def _lanes(dot: DotProducts, pixels: int) -> int:
    return 4 * dot.words * (4 if pixels >= 4 else 1)


def _window_bytes(dot: DotProducts, site: Site) -> int:
    """A window as bytes, where the channels of a pixel are not whole words."""
    return 0 if site.input(0).shape[3] % 4 == 0 else dot.depth
