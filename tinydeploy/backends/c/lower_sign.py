"""SIGN in C: a comparison an element."""

from __future__ import annotations

from tinydeploy.backends.c.layer import Context, LayerCode, call
from tinydeploy.ops import Sign


def sign(op: Sign, at: Context) -> LayerCode:
    numbers = (str(at.site.output.elements), str(op.threshold(at.site)))
    return LayerCode(
        "td_kernels_sign.h",
        "td_sign",
        (),
        (call("td_sign", (*numbers, at.operand(0), "y")),),
        at.operand_constants(),
    )
