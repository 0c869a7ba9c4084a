"""Stored weights on cores without a long multiplication: unpacked into the stream of their kernels."""

from __future__ import annotations

from dataclasses import replace

from tinydeploy.ir.forms import Planes
from tinydeploy.ir.op import Site
from tinydeploy.ops import DepthwiseConv2D
from tinydeploy.plan import trio
from tinydeploy.plan.cost import rule_cycles, unpack_cycles
from tinydeploy.plan.dsp import DspKernel
from tinydeploy.plan.forms import Linear, unpacked_bytes
from tinydeploy.plan.trio_depthwise import TrioDepthwise, trio_depthwise
from tinydeploy.plan.trio_linear import TrioDot, trio_dot

UNPACK = "unpack_"

ROWS, CONVOLUTION, DEPTHWISE = (UNPACK + name for name in (trio.ROWS, trio.CONVOLUTION, trio.DEPTHWISE))

_RULE_BYTES = 9
"""Bias, multiplier and shift of an output."""


def by_rule(site: Site) -> bool:
    """Whether outputs come by the rule itself: a few signs are not worth the constants of thresholds."""
    return isinstance(site.input(1).form, Planes)


def stored_trio(op: Linear, site: Site) -> TrioDot | TrioDepthwise | None:
    """What the kernel for whole weights would compute with; None where it cannot."""
    if isinstance(op, DepthwiseConv2D):
        return trio_depthwise(op, site, by_rule=by_rule(site))
    return trio_dot(op, site, by_rule=by_rule(site))


def formed_trios(op: Linear, site: Site) -> list[DspKernel]:
    """The kernels that can compute a layer with stored weights, and for more flash those for int8."""
    if unpacked_bytes(site) > 1:
        return []
    whole = trio.kernels_for(op, site)
    found = stored_trio(op, site) if whole else None
    if found is None:
        return whole
    outputs, weights = len(found.levels.words), site.input(1)
    unpack = unpack_cycles(4 * weights.elements, by_table=False)
    cost = unpack + (rule_cycles(site.output.elements) if by_rule(site) else 0)
    scales = 0 if by_rule(site) else (4 * found.levels.words.shape[1] - _RULE_BYTES) * outputs
    unpacking = [
        replace(
            k,
            name=UNPACK + k.name,
            scratch_bytes=k.scratch_bytes + found.stream.nbytes,
            cycles=k.cycles + cost,
            more_flash=scales,
        )
        for k in whole
    ]
    return [*whole, *unpacking]
