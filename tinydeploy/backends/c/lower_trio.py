"""Linear layers in C for cores without a long multiplication."""

from __future__ import annotations

from tinydeploy.backends.c.layer import Constant, Context, LayerCode, Shape, call
from tinydeploy.backends.c.lower_dsp import window_members
from tinydeploy.backends.c.syntax import Struct, struct
from tinydeploy.ir.types import Array
from tinydeploy.ops import Conv2D, FullyConnected
from tinydeploy.plan.levels import Levels
from tinydeploy.plan.trio_linear import TrioDot, trio_dot


def _dot(op: Conv2D | FullyConnected, at: Context) -> tuple[TrioDot, Struct]:
    dot = trio_dot(op, at.site)
    assert dot is not None, "the plan chose this kernel because they exist"
    outputs = at.site.input(1).shape[0]
    return dot, struct(steps=dot.steps, segments=dot.segments, outputs=outputs, level=_level(dot.levels))


def _level(found: Levels) -> Struct:
    return struct(fraction=found.fraction, ties=int(found.step is not None))


def rows(op: Conv2D | FullyConnected, at: Context) -> LayerCode:
    dot, shape = _dot(op, at)
    count = at.site.input(0).elements // dot.depth
    return _layer("td_trio_rows", struct(rows=count, inputs=dot.depth, dot=shape), dot.stream)


def conv_2d(op: Conv2D, at: Context) -> LayerCode:
    dot, shape = _dot(op, at)
    return _layer("td_trio_conv_2d", Struct((*window_members(op, at), ("dot", shape))), dot.stream)


def _layer(kernel: str, shape: Struct, stream: Array) -> LayerCode:
    return LayerCode(
        "td_kernels_trio_conv.h",
        kernel,
        (Shape(f"{kernel}_shape", shape),),
        (call(kernel, ("&shape", "{stream}", "x0", "y", "scratch")),),
        (Constant("stream", "int32_t", stream),),
    )
