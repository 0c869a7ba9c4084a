"""ADD as one linear form: factors that give the result of the double-rounding rule for every pair of inputs.

`q = clamp((a * factor_a + b * factor_b + constant) >> shift)` has no rounding step of its own, and yet some
factors reproduce the rule exactly, since the inputs are only 8 bits wide. They are searched for near the
real ratios of the scales, and all 65,536 pairs are checked: that is the proof.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tinydeploy.ir.op import Site
from tinydeploy.numerics import INT32_MAX, requantize
from tinydeploy.ops import Add
from tinydeploy.ops.elementwise import ADD_LEFT_SHIFT

_MOST_SHIFT = 24
_NEAR = sorted(range(-6, 7), key=abs)

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LinearAdd:
    """The constants of td_dsp_add: factors, constant and shift."""

    factors: tuple[int, int]
    constant: int
    shift: int


def linear_add(op: Add, site: Site) -> LinearAdd | None:
    """The linear form of an ADD without broadcasting, or None where none is exact."""
    a, b = site.input(0), site.input(1)
    if a.shape != b.shape or a.shape != site.output.shape:
        return None
    target = _every_sum(op, site)
    r = op.parameters(site).output
    low, high = r.low, r.high
    ratios = [v.quant.scale / site.output.quant.scale for v in (a, b)]
    shift = _shift(ratios, (a.quant.zero_point, b.quant.zero_point), site.output.quant.zero_point)
    if shift < 1:
        return None
    q = np.arange(-128, 128, dtype=np.int64)
    nearest = [round(math.ldexp(r, shift)) for r in ratios]
    for da, db in sorted(itertools.product(_NEAR, _NEAR), key=lambda d: abs(d[0]) + abs(d[1])):
        fa, fb = nearest[0] + da, nearest[1] + db
        linear = fa * q[:, None] + fb * q[None, :]
        # constant must lift each sum to its target's step and not to the next one; a clamp opens that side.
        least = np.where(target > low, (target << shift) - linear, np.iinfo(np.int64).min).max()
        most = np.where(target < high, ((target + 1) << shift) - 1 - linear, np.iinfo(np.int64).max).min()
        if least <= most:
            constant = int((max(least, -(2**40)) + min(most, 2**40)) // 2)
            if np.abs(linear + constant).max() <= INT32_MAX:
                return LinearAdd((fa, fb), constant, shift)
    return None


def _shift(ratios: list[float], zero_points: tuple[int, int], out: int) -> int:
    """The largest shift with which every sum fits int32; what is added up to it may wrap."""
    ends = [
        sum(r * (q - z) for r, q, z in zip(ratios, pair, zero_points, strict=True)) + out
        for pair in ((-128, -128), (127, 127))
    ]
    reach = max(abs(e) for e in ends) + 1
    return min(_MOST_SHIFT, math.floor(31 - math.log2(reach))) if math.isfinite(reach) else 0


def _every_sum(op: Add, site: Site) -> Int64Array:
    """The rule's output for each pair of inputs: [a + 128, b + 128]."""
    p = op.parameters(site)
    q = np.arange(-128, 128, dtype=np.int64)
    scaled = [
        requantize((q - zero_point) << ADD_LEFT_SHIFT, m.mantissa, m.exponent)
        for zero_point, m in zip(p.zero_points, p.inputs, strict=True)
    ]
    return p.output.apply_wide(scaled[0][:, None] + scaled[1][None, :])
