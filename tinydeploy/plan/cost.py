"""Stored costs of the kernels: cycles on a Cortex-M4 that fetches code and weights from a slow flash.

Straight lines through what `profile` modelled on the NUCLEO-L4R5ZI for the layers of the reference models;
they put the kernels of one layer in order, and are off by up to a third for small layers. On narrow
cores they are cycles of a Cortex-M0+ whose memory never waits.
"""

from __future__ import annotations

import math

from tinydeploy.ir.op import Op, Site
from tinydeploy.ops import AveragePool2D, DepthwiseConv2D, MaxPool2D, Mean

_PORTABLE, _PORTABLE_DEPTHWISE = 7.0, 23.0
_DOT, _DOT_OUTPUT, _DOT_INPUT = 1.35, 12.0, 1.6
_WINOGRAD, _WINOGRAD_OUTPUT, _WINOGRAD_INPUT = 0.62, 16.0, 15.0
_FEW_ROWS = 2.3
_NARROW, _NARROW_DEPTHWISE, _NARROW_OUTPUT = 6.5, 22.0, 110.0
_PLANES, _PLANES_ROW = 2.0, 1.6
_TAPS, _TAPS_BY_PIXEL = 7.0, 9.0
_SIGNS, _SIGNS_OUTPUT, _SIGNS_INPUT = 10.0, 25.0, 1.5
_WIDE = 1.2
_RULE = 40.0
_UNPACK, _UNPACK_TABLE = 3.0, 6.0
_ADD = 10.3
_TRIO, _TRIO_OUTPUT, _TRIO_INPUT = 2.6, 35.0, 8.0
_TRIO_DEPTHWISE, _TRIO_DEPTHWISE_OUTPUT, _TRIO_PLANE = 3.4, 48.0, 9.0
_PORTABLE_POOL, _POOL, _POOL_OUTPUT = 8.2, 1.8, 15.0


def portable_cycles(op: Op, site: Site, *, narrow: bool = False) -> int:
    """Of the portable kernel; elements stand for ops that multiply nothing."""
    if isinstance(op, AveragePool2D | MaxPool2D | Mean):
        return round(_PORTABLE_POOL * pooled(op, site))
    if narrow:
        each = _NARROW_DEPTHWISE if isinstance(op, DepthwiseConv2D) else _NARROW
        return round(each * op.macs(site) + _NARROW_OUTPUT * site.output.elements)
    each = _PORTABLE_DEPTHWISE if isinstance(op, DepthwiseConv2D) else _PORTABLE
    return round(each * (op.macs(site) or site.output.elements * 10))


def dot_cycles(macs: int, outputs: int, inputs: int) -> int:
    """Of a kernel that widens `inputs` values into lanes and makes `outputs` elements."""
    return round(_DOT * macs + _DOT_OUTPUT * outputs + _DOT_INPUT * inputs)


def winograd_cycles(macs: int, outputs: int, inputs: int, blocks: int, flash: int) -> int:
    """Of Winograd; the weights are read again for each of `blocks` blocks of tiles, 6 cycles for 8 bytes."""
    return round(
        _WINOGRAD * macs + _WINOGRAD_OUTPUT * outputs + _WINOGRAD_INPUT * inputs + 0.75 * blocks * flash
    )


def few_rows_cycles(macs: int) -> int:
    """Of the kernel that widens values where it reads them."""
    return round(_FEW_ROWS * macs)


def unpack_cycles(weights: int, *, by_table: bool) -> int:
    """Of stored weights into the stream of a kernel."""
    return round((_UNPACK_TABLE if by_table else _UNPACK) * weights)


def wide_cycles(macs: int, outputs: int, inputs: int) -> int:
    """Of a kernel with weights of 16 bits in working memory."""
    return round(_WIDE * macs + _DOT_OUTPUT * outputs + _DOT_INPUT * inputs)


def rule_cycles(outputs: int) -> int:
    """Of the double-rounding rule beyond that of thresholds, without a long multiplication."""
    return round(_RULE * outputs)


def signs_cycles(words: int, outputs: int, packed: int) -> int:
    """Of products of signs: `words` of 32 of them, and `packed` activations put into words."""
    return round(_SIGNS * words + _SIGNS_OUTPUT * outputs + _SIGNS_INPUT * packed)


def planes_cycles(macs: int, rows: float) -> int:
    """Of the depthwise kernel with planes, which sorts `rows` input rows for each output row."""
    return round((_PLANES + _PLANES_ROW * rows / 3) * macs)


def taps_cycles(macs: int, *, by_pixel: bool = False) -> int:
    """Of the depthwise kernel for any shape; by pixel it reads its constants again for each."""
    return round((_TAPS_BY_PIXEL if by_pixel else _TAPS) * macs)


def add_cycles(elements: int) -> int:
    """Of the linear ADD."""
    return round(_ADD * elements)


def trio_dot_cycles(macs: int, outputs: int, inputs: int) -> int:
    """Of a kernel that packs `inputs` values three to two words and makes `outputs` elements."""
    return round(_TRIO * macs + _TRIO_OUTPUT * outputs + _TRIO_INPUT * inputs)


def trio_depthwise_cycles(macs: int, outputs: int, inputs: int) -> int:
    """Of the depthwise kernel whose planes take `inputs` values, those read again included."""
    return round(_TRIO_DEPTHWISE * macs + _TRIO_DEPTHWISE_OUTPUT * outputs + _TRIO_PLANE * inputs)


def pool_cycles(op: AveragePool2D | MaxPool2D | Mean, site: Site) -> int:
    """Of the kernels that pool four channels at a time."""
    return round(_POOL * pooled(op, site) + _POOL_OUTPUT * site.output.elements)


def pooled(op: AveragePool2D | MaxPool2D | Mean, site: Site) -> int:
    """Elements of all windows."""
    each = op.count(site) if isinstance(op, Mean) else math.prod(op.kernel)
    return site.output.elements * each
