"""CONV_2D, DEPTHWISE_CONV_2D and FULLY_CONNECTED in C."""

from __future__ import annotations

import numpy as np

from tinydeploy.backends.c.layer import Constant, Context, LayerCode, Shape, call, output_struct
from tinydeploy.backends.c.syntax import Struct, struct
from tinydeploy.ir.types import Array
from tinydeploy.ops import Conv2D, DepthwiseConv2D, FullyConnected
from tinydeploy.ops.convolution import _Convolution
from tinydeploy.ops.linear import LinearParameters
from tinydeploy.plan.scratch import needs_gather


def _constants(weights: Array, p: LinearParameters) -> tuple[Constant, ...]:
    return (Constant("weights", "int8_t", weights), *channel_constants(p))


def channel_constants(p: LinearParameters) -> tuple[Constant, ...]:
    """Bias, multiplier and shift of the portable kernels."""
    r = p.requantization
    return (
        Constant("bias", "int32_t", p.folded_bias),
        Constant("multiplier", "int32_t", np.array(r.mantissas, np.int32)),
        Constant("shift", "int8_t", np.array(r.exponents, np.int8)),
    )


def channel_step(p: LinearParameters) -> int:
    """1 for a multiplier per output channel, 0 for a common one."""
    return int(len(p.requantization.mantissas) > 1)


def _linear(p: LinearParameters) -> str:
    members = "{weights}, {bias}, {multiplier}, {shift}"
    return f"const td_linear layer = {{{{ {members}, {channel_step(p)} }}}};"


def geometry(op: _Convolution, kernel: tuple[int, int]) -> tuple[tuple[str, int], ...]:
    return (
        ("kernel_h", kernel[0]),
        ("kernel_w", kernel[1]),
        ("stride_h", op.strides[0]),
        ("stride_w", op.strides[1]),
        ("dilation_h", op.dilations[0]),
        ("dilation_w", op.dilations[1]),
        ("pad_top", op.padding.top),
        ("pad_left", op.padding.left),
    )


def conv_2d_shape(op: Conv2D | FullyConnected, at: Context) -> Struct:
    """The td_conv_2d_shape of a convolution, or of a fully connected layer as one of 1x1."""
    x, weights, y = at.site.input(0), at.site.input(1), at.site.output
    out = output_struct(op.parameters(at.site).requantization)
    if isinstance(op, FullyConnected):
        outputs, inputs = weights.shape
        rows = x.elements // inputs
        ones = dict.fromkeys(("kernel_h", "kernel_w", "stride_h", "stride_w", "dilation_h", "dilation_w"), 1)
        sizes = {"in_h": 1, "in_w": rows, "in_c": inputs, "out_h": 1, "out_w": rows, "out_c": outputs}
        return struct(images=1, **sizes, groups=1, **ones, out=out)
    return Struct(
        (
            ("images", x.shape[0]),
            ("in_h", x.shape[1]),
            ("in_w", x.shape[2]),
            ("in_c", x.shape[3]),
            ("out_h", y.shape[1]),
            ("out_w", y.shape[2]),
            ("out_c", y.shape[3]),
            ("groups", op.groups(at.site)),
            *geometry(op, (weights.shape[1], weights.shape[2])),
            ("in_zero_point", x.padding),
            ("gather", int(needs_gather(op, at.site))),
            ("out", out),
        )
    )


def conv_2d(op: Conv2D, at: Context) -> LayerCode:
    p = op.parameters(at.site)
    return LayerCode(
        "td_kernels_linear.h",
        "td_conv_2d",
        (Shape("td_conv_2d_shape", conv_2d_shape(op, at)),),
        (_linear(p), call("td_conv_2d", ("&shape", "&layer", "x0", "y", "{scratch}"))),
        _constants(at.site.input(1).array, p),
    )


def depthwise_shape(op: DepthwiseConv2D, at: Context) -> Struct:
    """The td_depthwise_shape of a layer."""
    p = op.parameters(at.site)
    x, weights, y = at.site.input(0), at.site.input(1), at.site.output
    return Struct(
        (
            ("images", x.shape[0]),
            ("in_h", x.shape[1]),
            ("in_w", x.shape[2]),
            ("in_c", x.shape[3]),
            ("out_h", y.shape[1]),
            ("out_w", y.shape[2]),
            ("multiplier", op.multiplier(at.site)),
            *geometry(op, (weights.shape[1], weights.shape[2])),
            ("in_zero_point", x.padding),
            ("padded", int(not op.padding.none)),
            ("channel_step", channel_step(p)),
            ("out", output_struct(p.requantization)),
        )
    )


def depthwise_conv_2d(op: DepthwiseConv2D, at: Context) -> LayerCode:
    p = op.parameters(at.site)
    layer = "const td_depthwise layer = {{ {weights}, {bias}, {multiplier}, {shift} }};"
    return LayerCode(
        "td_kernels_depthwise.h",
        "td_depthwise_conv_2d",
        (Shape("td_depthwise_shape", depthwise_shape(op, at)),),
        (layer, call("td_depthwise_conv_2d", ("&shape", "&layer", "x0", "y"))),
        _constants(at.site.input(1).array, p),
    )


def fully_connected(op: FullyConnected, at: Context) -> LayerCode:
    p = op.parameters(at.site)
    weights = at.site.input(1)
    outputs, inputs = weights.shape
    shape = struct(
        rows=at.site.input(0).elements // inputs,
        inputs=inputs,
        outputs=outputs,
        out=output_struct(p.requantization),
    )
    return LayerCode(
        "td_kernels_linear.h",
        "td_fully_connected",
        (Shape("td_fully_connected_shape", shape),),
        (_linear(p), call("td_fully_connected", ("&shape", "&layer", "x0", "y"))),
        _constants(weights.array, p),
    )
