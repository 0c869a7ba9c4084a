"""The kernels for cores without a long multiplication: which layers they can compute, and what they need."""

from __future__ import annotations

from tinydeploy.ir.op import Op, Site
from tinydeploy.ops import Add, Conv2D, DepthwiseConv2D, FullyConnected
from tinydeploy.plan.cost import add_cycles, trio_depthwise_cycles, trio_dot_cycles
from tinydeploy.plan.dsp import ADD, DspKernel, is_rows
from tinydeploy.plan.dsp_add import linear_add
from tinydeploy.plan.lead import convolution_lead, rows_lead
from tinydeploy.plan.scratch import needs_gather
from tinydeploy.plan.trio_depthwise import band_rows, plane_bytes, plane_inputs, trio_depthwise
from tinydeploy.plan.trio_linear import TrioDot, trio_dot

ROWS = "trio_rows"
CONVOLUTION = "trio_conv_2d"
DEPTHWISE = "trio_depthwise"
_BLOCK = 6
_FEWEST_ROWS = 3
_MORE_CODE = 500


def kernels_for(op: Op, site: Site) -> list[DspKernel]:
    """The kernels that can compute a layer; none where no proof holds or none would gain."""
    if site.output.dtype.is_float:
        return []
    if isinstance(op, FullyConnected):
        outputs, inputs = site.input(1).shape
        return _rows(op, site, site.input(0).elements // inputs, outputs)
    if isinstance(op, Conv2D) and op.groups(site) == 1:
        return _convolution(op, site)
    if isinstance(op, DepthwiseConv2D):
        return _depthwise(op, site)
    if isinstance(op, Add) and linear_add(op, site) is not None:
        return [DspKernel(ADD, cycles=add_cycles(site.output.elements))]
    return []


def _rows(op: Conv2D | FullyConnected, site: Site, rows: int, outputs: int) -> list[DspKernel]:
    if rows < _FEWEST_ROWS:
        return []
    dot = trio_dot(op, site)
    lead = rows_lead(rows, dot.depth, outputs)
    cycles, flash = _cycles(dot, rows, outputs), _more_flash(dot.stream.nbytes, site, outputs)
    return [DspKernel(ROWS, dot.lane_bytes, in_place=True, lead=lead, cycles=cycles, more_flash=flash)]


def _convolution(op: Conv2D, site: Site) -> list[DspKernel]:
    images, rows, columns, outputs = site.output.shape
    if is_rows(op, site):
        return _rows(op, site, images * rows * columns, outputs)
    if rows * columns < _FEWEST_ROWS:
        return []
    dot = trio_dot(op, site)
    scratch = dot.lane_bytes + edge_bytes(op, site)
    lead = convolution_lead(op.window(site), site, _BLOCK)
    cycles, flash = (
        images * _cycles(dot, rows * columns, outputs),
        _more_flash(dot.stream.nbytes, site, outputs),
    )
    return [DspKernel(CONVOLUTION, scratch, lead=lead, cycles=cycles, more_flash=flash)]


def edge_bytes(op: Conv2D, site: Site) -> int:
    """Bytes for rows of windows, one for each pixel of a trio, that are not in the input as runs."""
    _, _, kernel_w, channels = site.input(1).shape
    return 3 * kernel_w * channels if needs_gather(op, site) else 0


def _depthwise(op: DepthwiseConv2D, site: Site) -> list[DspKernel]:
    """With planes for whole bands, and for ever fewer rows of them."""
    found = trio_depthwise(op, site)
    if found is None:
        return []
    band = band_rows(site)
    flash = _more_flash(found.stream.nbytes, site, site.output.shape[3])
    parts = sorted({-(-band // n) for n in (1, 2, 3, 4, 8) if n <= band}, reverse=True)
    return [
        DspKernel(
            DEPTHWISE,
            plane_bytes(op, site, part),
            # All of a channel is read before any of it is written.
            in_place=part == band,
            block=part,
            cycles=trio_depthwise_cycles(op.macs(site), site.output.elements, plane_inputs(op, site, part)),
            more_flash=flash,
        )
        for part in parts
    ]


def _cycles(dot: TrioDot, pixels: int, outputs: int) -> int:
    made = -(-pixels // _BLOCK) * _BLOCK
    return trio_dot_cycles(made * outputs * dot.depth, made * outputs, made * dot.depth)


def _more_flash(stream_bytes: int, site: Site, outputs: int) -> int:
    """Beyond the portable kernel, whose bias, multiplier and shift take 9 bytes an output, and its code."""
    return stream_bytes - site.input(1).bytes - 9 * outputs + _MORE_CODE
