"""Linear layers in C for the DSP extension."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tinydeploy.backends.c import lower_other
from tinydeploy.backends.c.layer import Constant, Context, LayerCode, Shape, call
from tinydeploy.backends.c.lower_linear import geometry
from tinydeploy.backends.c.syntax import Named, Struct, struct
from tinydeploy.ir.types import Array
from tinydeploy.ops import Add, AveragePool2D, Conv2D, DepthwiseConv2D, FullyConnected, MaxPool2D, Mean
from tinydeploy.ops.linear import LinearParameters
from tinydeploy.plan import dsp
from tinydeploy.plan.dsp_add import linear_add
from tinydeploy.plan.dsp_depthwise import Planes, planes, taps
from tinydeploy.plan.dsp_linear import WAY_NAMES, DotProducts, dot_products, wrapped
from tinydeploy.plan.dsp_winograd import winograd

_ROWS = "td_dsp_rows"
_CONV = "td_dsp_conv_2d"
_HEADER = "td_kernels_dsp_conv.h"


def dsp_output(p: LinearParameters, way: int) -> Struct:
    """The td_dsp_output of a layer."""
    return struct(way=Named(way, WAY_NAMES[way]), low=p.requantization.low, high=p.requantization.high)


def dot_shape(
    op: Conv2D | FullyConnected, at: Context, *, few: bool = False, as_stored: bool = False
) -> tuple[DotProducts, Struct]:
    """The constants of td_dsp_dot and its td_dsp_dot_shape."""
    dot = dot_products(op, at.site, few=few, as_stored=as_stored)
    assert dot is not None, "the plan chose this kernel because they exist"
    outputs = at.site.input(1).shape[0]
    out = dsp_output(op.parameters(at.site), dot.way)
    members: list[tuple[str, int | Struct]] = [
        ("words", dot.words),
        ("unroll", dot.unroll),
        ("outputs", outputs),
        ("pitch", outputs),
        ("common", int(dot.common is not None)),
    ]
    if dot.common is not None:
        multiplier, offset, shift = dot.common
        members.append(("scale", struct(multiplier=multiplier, offset=offset, shift=shift)))
    return dot, Struct((*members, ("out", out)))


def rows(op: Conv2D | FullyConnected, at: Context) -> LayerCode:
    dot, shape = _rows(op, at)
    return _layer(_HEADER, _ROWS, shape, dot.stream)


def few_rows(op: Conv2D | FullyConnected, at: Context) -> LayerCode:
    dot, shape = _rows(op, at, few=True)
    kernel = "td_dsp_few_rows_by_four" if dot.quads else "td_dsp_few_rows"
    return LayerCode(
        "td_kernels_dsp_few.h",
        kernel,
        (Shape(f"{_ROWS}_shape", shape),),
        (call(kernel, ("&shape", "{stream}", "x0", "y")),),
        (Constant("stream", "int32_t", dot.stream),),
    )


def _rows(op: Conv2D | FullyConnected, at: Context, *, few: bool = False) -> tuple[DotProducts, Struct]:
    dot, shape = dot_shape(op, at, few=few)
    count = at.site.input(0).elements // dot.depth
    return dot, struct(rows=count, inputs=dot.depth, dot=shape)


def conv_2d(op: Conv2D, at: Context) -> LayerCode:
    dot, shape = dot_shape(op, at)
    return _layer(_HEADER, _CONV, Struct((*window_members(op, at), ("dot", shape))), dot.stream)


def window_members(op: Conv2D | DepthwiseConv2D, at: Context) -> tuple[tuple[str, int], ...]:
    """Image and window, as the shapes of several kernels begin."""
    x, weights, y = at.site.input(0), at.site.input(1), at.site.output
    return (
        ("images", x.shape[0]),
        ("in_h", x.shape[1]),
        ("in_w", x.shape[2]),
        ("in_c", x.shape[3]),
        ("out_h", y.shape[1]),
        ("out_w", y.shape[2]),
        *geometry(op, (weights.shape[1], weights.shape[2])),
        ("in_zero_point", x.padding),
        ("padded", int(not op.padding.none)),
    )


def depthwise(op: DepthwiseConv2D, at: Context) -> LayerCode:
    p = planes(op, at.site)
    assert p is not None, "the plan chose this kernel because they exist"
    shape = _flagged(planes_shape(op, at, p), carried=at.choice.name == dsp.DEPTHWISE_CARRIED)
    return _layer("td_kernels_dsp_depthwise.h", "td_dsp_depthwise", shape, p.stream)


def planes_shape(op: DepthwiseConv2D, at: Context, p: Planes) -> Struct:
    """The td_dsp_depthwise_shape of a layer."""
    x, y = at.site.input(0), at.site.output
    return struct(
        images=x.shape[0],
        in_h=x.shape[1],
        in_w=x.shape[2],
        in_c=x.shape[3],
        out_h=y.shape[1],
        out_w=y.shape[2],
        stride_h=op.strides[0],
        stride_w=op.strides[1],
        pad_top=op.padding.top,
        pad_left=op.padding.left,
        in_zero_point=x.padding,
        band=at.choice.block,
        words=p.words,
        out=dsp_output(op.parameters(at.site), p.way),
    )


def winograd_conv_2d(op: Conv2D, at: Context) -> LayerCode:
    u = winograd(op, at.site)
    x, y = at.site.input(0), at.site.output
    shape = struct(
        images=x.shape[0],
        in_h=x.shape[1],
        in_w=x.shape[2],
        in_c=x.shape[3],
        out_h=y.shape[1],
        out_w=y.shape[2],
        outputs=y.shape[3],
        pad_top=op.padding.top,
        pad_left=op.padding.left,
        in_zero_point=x.padding,
        tiles=at.choice.block,
        unroll=u.unroll,
        out=dsp_output(op.parameters(at.site), u.way),
    )
    return _layer("td_kernels_dsp_winograd.h", "td_dsp_winograd", shape, u.stream)


def depthwise_taps(op: DepthwiseConv2D, at: Context) -> LayerCode:
    t = taps(op, at.site)
    assert t is not None, "the plan chose this kernel because they exist"
    kernel = "td_dsp_depthwise_taps"
    shape = Struct((*window_members(op, at), ("out", dsp_output(op.parameters(at.site), t.way))))
    shape = _flagged(shape, by_pixel=at.choice.name == dsp.DEPTHWISE_TAPS_BY_PIXEL)
    return LayerCode(
        "td_kernels_dsp_taps.h",
        kernel,
        (Shape("td_dsp_taps_shape", shape),),
        (call(kernel, ("&shape", "{stream}", "x0", "y")),),
        (Constant("stream", "int32_t", t.stream),),
    )


def add(op: Add, at: Context) -> LayerCode:
    linear = linear_add(op, at.site)
    assert linear is not None, "the plan chose this kernel because it exists"
    r = op.parameters(at.site).output
    constant = int(wrapped(np.array([linear.constant]))[0])
    shape = struct(
        elements=at.site.output.elements,
        factor_a=linear.factors[0],
        factor_b=linear.factors[1],
        constant=constant,
        shift=linear.shift,
        low=r.low,
        high=r.high,
    )
    return LayerCode(
        "td_kernels_dsp_elementwise.h",
        "td_dsp_add",
        (Shape("td_dsp_add_shape", shape),),
        (call("td_dsp_add", ("&shape", at.operand(0), at.operand(1), "y")),),
        at.operand_constants(),
    )


def pool(op: AveragePool2D | MaxPool2D | Mean, at: Context) -> LayerCode:
    """The portable kernel's arguments, and its shape with the channels last."""
    code = lower_other.mean(op, at) if isinstance(op, Mean) else lower_other.pool_2d(op, at)
    kernel = code.kernel.replace("td_", "td_dsp_", 1)
    shapes = tuple(replace(s, value=_kept_last(s.value)) for s in code.shapes)
    calls = tuple(c.replace(code.kernel, kernel) for c in code.calls)
    return replace(code, header="td_kernels_dsp_pool.h", kernel=kernel, shapes=shapes, calls=calls)


def _kept_last(shape: Struct) -> Struct:
    """The axes of a mean with the last one that is kept as kept2, where fewer than three are kept."""
    members = dict(shape.members)
    if members.get("kept2") == 1:
        last = "kept0" if members["kept1"] == 1 else "kept1"
        members |= {"kept2": members[last], last: 1}
    return Struct(tuple(members.items()))


def _flagged(shape: Struct, **flags: bool) -> Struct:
    """The shape with those flags that are set; the others are 0 where nothing is said."""
    return Struct((*((name, 1) for name, on in flags.items() if on), *shape.members))


def _layer(header: str, kernel: str, shape: Struct, stream: Array) -> LayerCode:
    return LayerCode(
        header,
        kernel,
        (Shape(f"{kernel}_shape", shape),),
        (call(kernel, ("&shape", "{stream}", "x0", "y", "scratch")),),
        (Constant("stream", "int32_t", stream),),
    )
