"""Linear layers in C for cores without a long multiplication."""

from __future__ import annotations

from tinydeploy.backends.c.layer import Constant, Context, LayerCode, Shape, call, output_struct
from tinydeploy.backends.c.lower_dsp import window_members
from tinydeploy.backends.c.syntax import Struct, struct
from tinydeploy.ir.types import Array
from tinydeploy.ops import Conv2D, DepthwiseConv2D, FullyConnected
from tinydeploy.ops.linear import LinearParameters
from tinydeploy.plan.levels import Levels
from tinydeploy.plan.trio_depthwise import TrioDepthwise, band_rows, trio_depthwise
from tinydeploy.plan.trio_linear import TrioDot, trio_dot

_HEADER = "td_kernels_trio_conv.h"


def dot_struct(op: Conv2D | FullyConnected, at: Context, dot: TrioDot) -> Struct:
    """The td_trio_dot_shape of a layer."""
    outputs = at.site.input(1).shape[0]
    return struct(
        steps=dot.steps,
        segments=dot.segments,
        outputs=outputs,
        level=_level(dot.levels, op.parameters(at.site)),
    )


def _level(found: Levels, p: LinearParameters) -> Struct:
    return struct(way=found.way, fraction=found.fraction, out=output_struct(p.requantization))


def rows(op: Conv2D | FullyConnected, at: Context) -> LayerCode:
    dot = trio_dot(op, at.site)
    return _layer(_HEADER, "td_trio_rows", rows_struct(op, at, dot), dot.stream)


def rows_struct(op: Conv2D | FullyConnected, at: Context, dot: TrioDot) -> Struct:
    """The td_trio_rows_shape of a layer."""
    count = at.site.input(0).elements // dot.depth
    return struct(rows=count, inputs=dot.depth, dot=dot_struct(op, at, dot))


def conv_2d(op: Conv2D, at: Context) -> LayerCode:
    dot = trio_dot(op, at.site)
    return _layer(_HEADER, "td_trio_conv_2d", conv_2d_struct(op, at, dot), dot.stream)


def conv_2d_struct(op: Conv2D, at: Context, dot: TrioDot) -> Struct:
    """The td_trio_conv_2d_shape of a layer."""
    return Struct((*window_members(op, at), ("dot", dot_struct(op, at, dot))))


def depthwise(op: DepthwiseConv2D, at: Context) -> LayerCode:
    found = trio_depthwise(op, at.site)
    assert found is not None, "the plan chose this kernel because they exist"
    shape = depthwise_struct(op, at, found)
    return _layer("td_kernels_trio_depthwise.h", "td_trio_depthwise", shape, found.stream)


def depthwise_struct(op: DepthwiseConv2D, at: Context, found: TrioDepthwise) -> Struct:
    """The td_trio_depthwise_shape of a layer."""
    bands = (
        ("band", band_rows(at.site)),
        ("part", at.choice.block),
        ("level", _level(found.levels, op.parameters(at.site))),
    )
    return Struct((*window_members(op, at), *bands))


def _layer(header: str, kernel: str, shape: Struct, stream: Array) -> LayerCode:
    return LayerCode(
        header,
        kernel,
        (Shape(f"{kernel}_shape", shape),),
        (call(kernel, ("&shape", "{stream}", "x0", "y", "scratch")),),
        (Constant("stream", "int32_t", stream),),
    )
