"""Stored costs of the kernels: cycles on a Cortex-M4 that fetches code and weights from a slow flash.

Straight lines through what `profile` modelled on the NUCLEO-L4R5ZI for the layers of the reference models;
they put the kernels of one layer in order, and are off by up to a third for small layers.
"""

from __future__ import annotations

from tinydeploy.ir.op import Op, Site
from tinydeploy.ops import DepthwiseConv2D

_PORTABLE, _PORTABLE_DEPTHWISE = 7.0, 23.0
_DOT, _DOT_OUTPUT, _DOT_INPUT = 1.35, 12.0, 1.6
_WINOGRAD, _WINOGRAD_OUTPUT, _WINOGRAD_INPUT = 0.62, 16.0, 15.0
_FEW_ROWS = 2.3
_PLANES, _PLANES_ROW = 2.0, 1.6
_TAPS = 7.0
_SIGNS, _SIGNS_OUTPUT, _SIGNS_INPUT = 10.0, 25.0, 1.5
_WIDE = 1.2
_UNPACK, _UNPACK_TABLE = 3.0, 6.0
_ADD = 10.3


def portable_cycles(op: Op, site: Site) -> int:
    """Of the portable kernel; elements stand for ops that multiply nothing."""
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


def signs_cycles(words: int, outputs: int, packed: int) -> int:
    """Of products of signs: `words` of 32 of them, and `packed` activations put into words."""
    return round(_SIGNS * words + _SIGNS_OUTPUT * outputs + _SIGNS_INPUT * packed)


def planes_cycles(macs: int, rows: float) -> int:
    """Of the depthwise kernel with planes, which sorts `rows` input rows for each output row."""
    return round((_PLANES + _PLANES_ROW * rows / 3) * macs)


def taps_cycles(macs: int) -> int:
    """Of the depthwise kernel for any shape."""
    return round(_TAPS * macs)


def add_cycles(elements: int) -> int:
    """Of the linear ADD."""
    return round(_ADD * elements)
