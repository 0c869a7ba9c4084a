"""Linear layers with stored weights in C for cores without a long multiplication."""

from __future__ import annotations

import numpy as np

from tinydeploy.backends.c.layer import Constant, Context, LayerCode, Shape, call
from tinydeploy.backends.c.lower_forms import stored_weights
from tinydeploy.backends.c.lower_trio import conv_2d_struct, depthwise_struct, rows_struct
from tinydeploy.backends.c.syntax import Struct, struct
from tinydeploy.ops import Conv2D, DepthwiseConv2D, FullyConnected
from tinydeploy.plan.forms import Linear
from tinydeploy.plan.forms_trio import by_rule, stored_trio
from tinydeploy.plan.trio_depthwise import TrioDepthwise
from tinydeploy.plan.trio_linear import TrioDot, less


def rows(op: Conv2D | FullyConnected, at: Context) -> LayerCode:
    dot = stored_trio(op, at.site)
    assert isinstance(dot, TrioDot), "the plan chose this kernel because it exists"
    return _layer(op, at, "td_trio_rows", rows_struct(op, at, dot), dot)


def conv_2d(op: Conv2D, at: Context) -> LayerCode:
    dot = stored_trio(op, at.site)
    assert isinstance(dot, TrioDot), "the plan chose this kernel because it exists"
    return _layer(op, at, "td_trio_conv_2d", conv_2d_struct(op, at, dot), dot)


def depthwise(op: DepthwiseConv2D, at: Context) -> LayerCode:
    found = stored_trio(op, at.site)
    assert isinstance(found, TrioDepthwise), "the plan chose this kernel because it exists"
    return _layer(op, at, "td_trio_depthwise", depthwise_struct(op, at, found), found)


def _layer(op: Linear, at: Context, kernel: str, shape: Struct, found: TrioDot | TrioDepthwise) -> LayerCode:
    """Unpacking, and then the kernel with the stream before its scratch."""
    stored, form, constants = stored_weights(at, 3 if isinstance(op, DepthwiseConv2D) else 0)
    words = less(found.levels.words, found.segments if isinstance(found, TrioDot) else 1)
    outputs, levels = words.shape
    unpack = struct(
        outputs=outputs,
        depth=at.site.input(1).elements // outputs,
        words=found.stream.size // outputs - levels,
        levels=levels,
        form=form,
    )
    if by_rule(at.site):
        bias, multiplier, shift = words.T
        scales = "{levels}, {multiplier}, {shift}"
        constants += (
            Constant("levels", "int32_t", bias),
            Constant("multiplier", "int32_t", multiplier),
            Constant("shift", "int8_t", shift),
        )
    else:
        scales = "{levels}, NULL, NULL"
        constants += (Constant("levels", "int32_t", (words & 0xFFFFFFFF).astype(np.uint32).view(np.int32)),)
    stream = "(int32_t *)(void *)scratch"
    return LayerCode(
        "td_kernels_trio_stored.h",
        kernel,
        (Shape(f"{kernel}_shape", shape), Shape("td_trio_stored_shape", unpack, "unpack")),
        (
            stored,
            f"const td_trio_scales scales = {{{{ {scales} }}}};",
            call("td_trio_unpack", ("&unpack", "&stored", "&scales", stream)),
            call(kernel, ("&shape", f"({stream})", "x0", "y", f"scratch + {found.stream.nbytes}")),
        ),
        constants,
    )
