"""The kernel of the DSP extension for planes that add up to weights of 16 bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinydeploy.ir.forms import Planes
from tinydeploy.ir.op import Site
from tinydeploy.ops import Conv2D, FullyConnected
from tinydeploy.plan import dsp
from tinydeploy.plan.cost import unpack_cycles, wide_cycles
from tinydeploy.plan.dsp_linear import DspScales, dsp_scales
from tinydeploy.plan.forms import Linear, unpacked_bytes
from tinydeploy.plan.lead import convolution_lead, rows_lead

WIDE = "unpack_dsp_wide"

_FEW_OUTPUTS = 8
_BLOCK = 4


@dataclass(frozen=True)
class WideProducts:
    """The constants of td_dsp_wide_dot.

    Attributes:
        depth: inputs of one output.
        words: words of lanes of a channel, two for four inputs.
        common: multiplier, offset and shift, where all channels have the same.
        scales: those of each channel.
    """

    depth: int
    words: int
    common: tuple[int, int, int] | None
    scales: DspScales

    @property
    def pair_words(self) -> int:
        """Words of the unpacked constants of a pair of channels."""
        return 2 + 2 * self.words + (0 if self.common else 6)


def wide_products(op: Conv2D | FullyConnected, site: Site) -> WideProducts | None:
    """The constants of a layer without groups; None where a weight or a sum is too large."""
    weights = site.input(1)
    if not isinstance(weights.form, Planes) or unpacked_bytes(site) > 2:
        return None
    rows = weights.array.astype(np.int64).reshape(weights.shape[0], -1)
    s = dsp_scales(rows, op.parameters(site), site.input(0).quant.zero_point, as_stored=True)
    if s is None:
        return None
    each = np.stack([s.multiplier, s.offset, s.shift])
    first = (int(each[0, 0]), int(each[1, 0]), int(each[2, 0]))
    depth = rows.shape[1]
    return WideProducts(depth, 2 * -(-depth // 4), first if (each == each[:, :1]).all() else None, s)


def wide_kernels(op: Linear, site: Site) -> list[dsp.DspKernel]:
    """The kernel with all outputs at a time, and with a few; none where it cannot compute the layer."""
    if not isinstance(op, Conv2D | FullyConnected) or (isinstance(op, Conv2D) and op.groups(site) > 1):
        return []
    w, form = wide_products(op, site), site.input(1).form
    if w is None or not isinstance(form, Planes):
        return []
    outputs, fields = site.input(1).shape[0], site.input(1).elements * form.bits
    pixels = site.output.elements // outputs
    macs, elements, inputs = pixels * outputs * w.depth, site.output.elements, pixels * w.depth
    straight = isinstance(op, FullyConnected) or dsp.is_rows(op, site)
    lead = rows_lead(pixels, w.depth, outputs) if straight else None
    if lead is None and isinstance(op, Conv2D):
        lead = convolution_lead(op.window(site), site, _BLOCK)
    channels = w.depth if isinstance(op, FullyConnected) else site.input(0).shape[3]
    together = pixels if isinstance(op, FullyConnected) else site.output.shape[1] * site.output.shape[2]
    lanes = 4 * w.words * (_BLOCK if together >= _BLOCK else 1) + (w.depth if channels % 4 else 0)
    unpack = unpack_cycles(fields, by_table=False)
    found = []
    for block in sorted({outputs, min(outputs, _FEW_OUTPUTS)}, reverse=True):
        whole = block == outputs
        again = wide_cycles(0, 0, inputs) * (-(-outputs // block) - 1)
        found.append(
            dsp.DspKernel(
                WIDE,
                4 * -(-block // 2) * w.pair_words + lanes,
                in_place=straight and whole,
                lead=lead if whole else None,
                block=block,
                cycles=wide_cycles(macs, elements, inputs) + unpack + again,
            )
        )
    return found
