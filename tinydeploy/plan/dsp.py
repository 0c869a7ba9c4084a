"""The kernels for the DSP extension: which layers they can compute, proved, and what scratch they need."""

from __future__ import annotations

from dataclasses import dataclass

from tinydeploy.ir.op import Op, Site
from tinydeploy.ops import Add, Conv2D, DepthwiseConv2D, FullyConnected
from tinydeploy.plan.dsp_add import linear_add
from tinydeploy.plan.dsp_depthwise import covers_image, planes, taps
from tinydeploy.plan.dsp_linear import DotProducts, dot_products
from tinydeploy.plan.lead import band_lead, convolution_lead, few_rows_lead, rows_lead

ADD = "dsp_add"
ROWS = "dsp_rows"
FEW_ROWS = "dsp_few_rows"
CONVOLUTION = "dsp_conv_2d"
DEPTHWISE = "dsp_depthwise"
DEPTHWISE_TAPS = "dsp_depthwise_taps"

_BLOCK = _MANY_ROWS = 4
"""Pixels or rows that the kernels with lanes take at once."""


@dataclass(frozen=True)
class DspKernel:
    """A kernel for the DSP extension; the attributes are those of KernelChoice."""

    name: str
    scratch_bytes: int = 0
    in_place: bool = False
    lead: int | None = None


def kernel_for(op: Op, site: Site) -> DspKernel | None:
    """The kernel for a layer, or None where none can compute it."""
    if not site.output.dtype.is_float:
        if isinstance(op, FullyConnected):
            outputs, inputs = site.input(1).shape
            return _rows(dot_products(op, site), site.input(0).elements // inputs, outputs)
        if isinstance(op, Conv2D):
            return _convolution(op, site)
        if isinstance(op, Add) and linear_add(op, site) is not None:
            return DspKernel(ADD)
        if isinstance(op, DepthwiseConv2D):
            return _depthwise(op, site)
    return None


def is_rows(op: Conv2D, site: Site) -> bool:
    """Whether a convolution reads each pixel by itself, in the order in which they stand."""
    return site.input(1).shape[1:3] == (1, 1) and op.strides == (1, 1) and op.padding.none


def _rows(dot: DotProducts | None, rows: int, outputs: int) -> DspKernel | None:
    if dot is None:
        return None
    if rows < _MANY_ROWS:
        return DspKernel(FEW_ROWS, lead=few_rows_lead(rows, dot.depth, outputs))
    lead = rows_lead(rows, dot.depth, outputs)
    return DspKernel(ROWS, _lanes(dot, rows), in_place=True, lead=lead)


def _convolution(op: Conv2D, site: Site) -> DspKernel | None:
    if op.groups(site) > 1:
        return None
    dot = dot_products(op, site)
    images, rows, columns, outputs = site.output.shape
    if dot is None or is_rows(op, site):
        return _rows(dot, images * rows * columns, outputs)
    scratch = _lanes(dot, rows * columns) + _window_bytes(dot, site)
    return DspKernel(CONVOLUTION, scratch, lead=convolution_lead(op.window(site), site, _BLOCK))


def _depthwise(op: DepthwiseConv2D, site: Site) -> DspKernel | None:
    p = planes(op, site)
    if p is not None:
        lead = band_lead(op.window(site), site, p.band)
        return DspKernel(DEPTHWISE, p.scratch_bytes, covers_image(op, site, p), lead)
    return None if taps(op, site) is None else DspKernel(DEPTHWISE_TAPS)


def _lanes(dot: DotProducts, pixels: int) -> int:
    return 4 * dot.words * (4 if pixels >= 4 else 1)


def _window_bytes(dot: DotProducts, site: Site) -> int:
    """A window as bytes, where the channels of a pixel are not whole words."""
    return 0 if site.input(0).shape[3] % 4 == 0 else dot.depth
