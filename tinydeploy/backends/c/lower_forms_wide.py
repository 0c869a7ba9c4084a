"""Planes that add up to weights of 16 bits, in C for the DSP extension."""

from __future__ import annotations

import numpy as np

from tinydeploy.backends.c.fields import field_words, pair_fields, raw_fields
from tinydeploy.backends.c.layer import Constant, Context, LayerCode, Shape, call
from tinydeploy.backends.c.lower_dsp import dsp_output, window_members
from tinydeploy.backends.c.lower_forms_dsp import channel_constants, fields_struct, stored_statement
from tinydeploy.backends.c.syntax import Struct, struct
from tinydeploy.ir.forms import Planes
from tinydeploy.ops import Conv2D, FullyConnected
from tinydeploy.plan.forms import fields_of
from tinydeploy.plan.forms_wide import WideProducts, wide_products


def conv_2d(op: Conv2D | FullyConnected, at: Context) -> LayerCode:
    kernel = "td_dsp_wide_conv_2d"
    w, form = wide_products(op, at.site), at.site.input(1).form
    assert w is not None and isinstance(form, Planes), "the plan chose this kernel because there are"
    fields = fields_of(form)
    streams = [
        field_words(pair_fields(plane, w.words), fields.bits) for plane in raw_fields(at.site.input(1), 0)
    ]
    outputs = at.site.input(1).shape[0]
    even = outputs + outputs % 2
    coefficients = np.zeros((even, len(streams)), np.int16)
    coefficients[:outputs] = form.coefficients.T
    constants = (
        Constant("fields", "int32_t", np.concatenate(streams)),
        *channel_constants(at, w.scales, even, scales=w.common is None),
    )
    pairs = even // 2
    shape = struct(
        conv=Struct((*_window(op, at), ("dot", _dot(op, at, w)))),
        wide=struct(
            fields=fields_struct(at, w.scales, fields, pairs * w.words),
            planes=len(streams),
            plane_words=len(streams[0]),
        ),
        block=at.choice.block,
        pair_words=w.pair_words,
    )
    arguments = ("&shape", "&stored", "{coefficients}", "x0", "y", "scratch")
    return LayerCode(
        "td_kernels_dsp_wide.h",
        kernel,
        (Shape(f"{kernel}_shape", shape),),
        (stored_statement(constants), call(kernel, arguments)),
        (*constants, Constant("coefficients", "int16_t", coefficients)),
    )


def _window(op: Conv2D | FullyConnected, at: Context) -> tuple[tuple[str, int], ...]:
    """Image and window; a fully connected layer is a convolution of 1x1 over one row of pixels."""
    if isinstance(op, Conv2D):
        return window_members(op, at)
    inputs = at.site.input(1).shape[1]
    rows = at.site.input(0).elements // inputs
    sizes = {"images": 1, "in_h": 1, "in_w": rows, "in_c": inputs, "out_h": 1, "out_w": rows}
    ones = ("kernel_h", "kernel_w", "stride_h", "stride_w", "dilation_h", "dilation_w")
    return (*sizes.items(), *((name, 1) for name in ones))


def _dot(op: Conv2D | FullyConnected, at: Context, w: WideProducts) -> Struct:
    outputs = at.site.input(1).shape[0]
    multiplier, offset, shift = w.common or (0, 0, 0)
    return struct(
        words=w.words,
        unroll=2,
        outputs=outputs,
        pitch=outputs,
        common=int(w.common is not None),
        scale=struct(multiplier=multiplier, offset=offset, shift=shift),
        out=dsp_output(op.parameters(at.site), w.scales.way),
    )
