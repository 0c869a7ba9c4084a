"""Linear layers in C whose weights are stored in fewer than eight bits."""

from __future__ import annotations

import numpy as np

from tinydeploy.backends.c.fields import bit_stream, raw_fields
from tinydeploy.backends.c.layer import Constant, Context, Indices, LayerCode, Shape, call
from tinydeploy.backends.c.lower_linear import channel_constants, channel_step, conv_2d_shape, depthwise_shape
from tinydeploy.backends.c.syntax import Struct, struct
from tinydeploy.ir.forms import Planes
from tinydeploy.ir.op import Op
from tinydeploy.ops import Conv2D, DepthwiseConv2D, FullyConnected
from tinydeploy.plan.forms import fields_of, outputs_at_once, unpacked_bytes

_HEADER = "td_kernels_forms.h"


def formed(op: Op, at: Context) -> LayerCode:
    """The portable kernel of a layer with stored weights."""
    if isinstance(op, DepthwiseConv2D):
        return _depthwise(op, at)
    assert isinstance(op, Conv2D | FullyConnected)
    return _conv_2d(op, at)


def _conv_2d(op: Conv2D | FullyConnected, at: Context) -> LayerCode:
    kernel = "td_formed_conv_2d"
    stored, form, constants = stored_weights(at, 0)
    p = op.parameters(at.site)
    shape = struct(conv=conv_2d_shape(op, at), block=outputs_at_once(op, at.site), form=form)
    layer = f"const td_linear layer = {{{{ NULL, {{bias}}, {{multiplier}}, {{shift}}, {channel_step(p)} }}}};"
    return LayerCode(
        _HEADER,
        kernel,
        (Shape(f"{kernel}_shape", shape),),
        (layer, stored, call(kernel, ("&shape", "&layer", "&stored", "x0", "y", "scratch"))),
        (*constants, *channel_constants(p)),
    )


def _depthwise(op: DepthwiseConv2D, at: Context) -> LayerCode:
    kernel = "td_formed_depthwise"
    stored, form, constants = stored_weights(at, 3)
    shape = struct(depthwise=depthwise_shape(op, at), form=form)
    layer = "const td_depthwise layer = {{ NULL, {bias}, {multiplier}, {shift} }};"
    return LayerCode(
        _HEADER,
        kernel,
        (Shape(f"{kernel}_shape", shape),),
        (layer, stored, call(kernel, ("&shape", "&layer", "&stored", "x0", "y", "scratch"))),
        (*constants, *channel_constants(op.parameters(at.site))),
    )


def stored_weights(at: Context, output_axis: int) -> tuple[str, Struct, tuple[Constant, ...]]:
    """The statement that names the stored weights, the td_form, and the constants."""
    weights = at.site.input(1)
    assert weights.form is not None, "the plan chose this kernel because there is one"
    fields = fields_of(weights.form)
    raw = raw_fields(weights, output_axis)
    streams = [bit_stream(plane, fields.bits) for plane in raw]
    form = struct(
        bits=fields.bits,
        step=fields.step,
        low=fields.low,
        planes=fields.planes,
        plane_bytes=len(streams[0]),
        size=unpacked_bytes(at.site),
    )
    indices = Indices(fields.bits, raw.reshape(-1)) if fields.table else None
    constants = [Constant("fields", "uint8_t", np.concatenate(streams), indices)]
    members = ["{fields}", "NULL", "NULL"]
    if fields.table:
        members[1] = "{table}"
        constants.append(Constant("table", "int8_t", np.array(fields.table, np.int8)))
    if isinstance(weights.form, Planes):
        members[2] = "{coefficients}"
        constants.append(Constant("coefficients", "int16_t", weights.form.coefficients.T))
    return f"const td_stored stored = {{{{ {', '.join(members)} }}}};", form, tuple(constants)
