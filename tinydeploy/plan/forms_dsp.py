"""Kernels of the DSP extension for layers with stored weights: what is unpacked where, and what it costs.

The kernels for whole int8 weights read one stream of constants. Here it is made in working memory first, of
all outputs or of some at a time, and the same kernels follow. Unpacking costs a few instructions a weight.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tinydeploy.ir.op import Site
from tinydeploy.ops import Conv2D, DepthwiseConv2D, FullyConnected
from tinydeploy.plan import dsp
from tinydeploy.plan.cost import unpack_cycles
from tinydeploy.plan.dsp_depthwise import planes
from tinydeploy.plan.dsp_linear import DotProducts, dot_products
from tinydeploy.plan.forms import Linear, int8_fields, unpacked_bytes
from tinydeploy.plan.forms_wide import wide_kernels

UNPACK = "unpack_"
"""Before the name of the kernel that follows."""

NAMES = ROWS, FEW_ROWS, CONVOLUTION, DEPTHWISE, DEPTHWISE_TAPS = tuple(
    UNPACK + name for name in (dsp.ROWS, dsp.FEW_ROWS, dsp.CONVOLUTION, dsp.DEPTHWISE, dsp.DEPTHWISE_TAPS)
)

_FEW_OUTPUTS = 8
_CHANNEL_WORDS = 7
_BLOCK = 4


def formed_kernels(op: Linear, site: Site) -> list[dsp.DspKernel]:
    """The kernels that can compute a layer with stored weights, and for more flash those for int8."""
    weights = site.input(1)
    if unpacked_bytes(site) > 1:
        return wide_kernels(op, site)
    more = weights.elements - weights.bytes
    # What a kernel for whole weights says of its flash is against the stored bytes, or nothing.
    found = [replace(k, more_flash=k.more_flash or more) for k in dsp.kernels_for(op, site)]
    return [*found, *(list(_unpacking(op, site)) or wide_kernels(op, site))]


def _unpacking(op: Linear, site: Site) -> Iterator[dsp.DspKernel]:
    weights, form = site.input(1), site.input(1).form
    fields = None if form is None else int8_fields(form)
    if fields is None:
        return
    cost = unpack_cycles(weights.elements, by_table=fields.table != ())
    for k in dsp.kernels_for(op, site, as_stored=True):
        if isinstance(op, DepthwiseConv2D):
            size = stream_words(op, site) * 4
            yield replace(
                k, name=UNPACK + k.name, scratch_bytes=k.scratch_bytes + size, cycles=k.cycles + cost
            )
        elif k.name == dsp.FEW_ROWS:
            rows = site.output.elements // weights.shape[0]
            yield replace(k, name=FEW_ROWS, cycles=k.cycles + cost * rows)
        elif k.name in (dsp.ROWS, dsp.CONVOLUTION):
            yield from _by_blocks(k, op, site, cost)


def _by_blocks(
    k: dsp.DspKernel, op: Conv2D | FullyConnected, site: Site, cost: int
) -> Iterator[dsp.DspKernel]:
    """All outputs at a time, which keeps the kernel's ways of writing over its input, or a few."""
    outputs = site.input(1).shape[0]
    dot = dot_products(op, site, as_stored=True)
    assert dot is not None, "the kernel is there because they are"
    for block in sorted({outputs, min(outputs, _FEW_OUTPUTS)}, reverse=True):
        whole = block == outputs
        again = dsp.widen_cycles(site, dot) * (-(-outputs // block) - 1)
        yield replace(
            k,
            name=UNPACK + k.name,
            scratch_bytes=k.scratch_bytes + 4 * -(-block // 2) * pair_words(dot),
            in_place=k.in_place and whole,
            lead=k.lead if whole else None,
            block=block,
            cycles=k.cycles + cost + again,
        )


def pair_words(dot: DotProducts) -> int:
    """Words of the stream of a pair of channels: two biases, the lanes, two scales."""
    return 2 + dot.words + (0 if dot.common else 6)


def stream_words(op: DepthwiseConv2D, site: Site) -> int:
    """Words of the unpacked constants of a depthwise layer, by the kernel that can compute it."""
    _, rows, columns, channels = site.input(1).shape
    if planes(op, site, as_stored=True) is not None:
        return _CHANNEL_WORDS * channels
    return -(-channels // _BLOCK) * (4 * _BLOCK + 2 * rows * columns)
