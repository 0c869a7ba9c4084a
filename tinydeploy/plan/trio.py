"""The kernels for cores without a long multiplication: which layers they can compute, and what they need."""

from __future__ import annotations

from tinydeploy.ir.op import Op, Site
from tinydeploy.ops import Conv2D, FullyConnected
from tinydeploy.plan.dsp import DspKernel, is_rows
from tinydeploy.plan.lead import convolution_lead, rows_lead
from tinydeploy.plan.trio_linear import TrioDot, trio_dot

ROWS = "trio_rows"
CONVOLUTION = "trio_conv_2d"
_BLOCK = 6
_FEWEST_ROWS = 3


def kernels_for(op: Op, site: Site) -> list[DspKernel]:
    """The kernels that can compute a layer; none where no proof holds or none would gain."""
    if site.output.dtype.is_float:
        return []
    if isinstance(op, FullyConnected):
        outputs, inputs = site.input(1).shape
        return _rows(op, site, site.input(0).elements // inputs, outputs)
    if isinstance(op, Conv2D) and op.groups(site) == 1:
        return _convolution(op, site)
    return []


def _rows(op: Conv2D | FullyConnected, site: Site, rows: int, outputs: int) -> list[DspKernel]:
    dot = trio_dot(op, site) if rows >= _FEWEST_ROWS else None
    if dot is None:
        return []
    lead = rows_lead(rows, dot.depth, outputs)
    cycles, flash = _cycles(dot, rows, outputs), _flash(dot, site)
    return [DspKernel(ROWS, dot.lane_bytes, in_place=True, lead=lead, cycles=cycles, more_flash=flash)]


def _convolution(op: Conv2D, site: Site) -> list[DspKernel]:
    images, rows, columns, outputs = site.output.shape
    if is_rows(op, site):
        return _rows(op, site, images * rows * columns, outputs)
    dot = trio_dot(op, site) if rows * columns >= _FEWEST_ROWS else None
    if dot is None:
        return []
    _, _, kernel_w, channels = site.input(1).shape
    scratch = dot.lane_bytes + 3 * kernel_w * channels
    lead = convolution_lead(op.window(site), site, _BLOCK)
    cycles, flash = images * _cycles(dot, rows * columns, outputs), _flash(dot, site)
    return [DspKernel(CONVOLUTION, scratch, lead=lead, cycles=cycles, more_flash=flash)]


def _cycles(dot: TrioDot, pixels: int, outputs: int) -> int:
    return pixels * outputs * dot.depth * 3


def _flash(dot: TrioDot, site: Site) -> int:
    return dot.stream.nbytes - site.input(1).bytes - 9 * site.input(1).shape[0]
