"""Everything but the linear layers in C: pooling, elementwise ops, movement and softmax."""

from __future__ import annotations

import itertools
import math

from tinydeploy.backends.c.layer import Constant, Context, LayerCode, Shape, call, output_struct
from tinydeploy.backends.c.syntax import Struct, struct
from tinydeploy.errors import DeployError
from tinydeploy.ir.types import Array, DType, Value
from tinydeploy.numerics import Multiplier
from tinydeploy.ops import (
    Add,
    AveragePool2D,
    Concatenation,
    Logistic,
    MaxPool2D,
    Mean,
    Mul,
    Pad,
    Quantize,
    Relu,
    Reshape,
    Softmax,
    Staircase,
)
from tinydeploy.ops.requantize import Requantization, clamp_range

_AXES = 4


def pool_2d(op: AveragePool2D | MaxPool2D, at: Context) -> LayerCode:
    x, y = at.site.input(0), at.site.output
    low, high = clamp_range(op.activation, y)
    shape = struct(
        images=x.shape[0],
        in_h=x.shape[1],
        in_w=x.shape[2],
        channels=x.shape[3],
        out_h=y.shape[1],
        out_w=y.shape[2],
        kernel_h=op.kernel[0],
        kernel_w=op.kernel[1],
        stride_h=op.strides[0],
        stride_w=op.strides[1],
        pad_top=op.padding.top,
        pad_left=op.padding.left,
        low=low,
        high=high,
    )
    kernel = "td_average_pool_2d" if isinstance(op, AveragePool2D) else "td_max_pool_2d"
    return LayerCode(
        "td_kernels_pool.h",
        kernel,
        (Shape("td_pool_shape", shape),),
        (call(kernel, ("&shape", "x0", "y")),),
    )


def mean(op: Mean, at: Context) -> LayerCode:
    x = at.site.input(0)
    r = op.requantization(at.site)
    sizes = _alternate(x.shape, op.axes)
    shape = Struct(
        (
            *zip(("kept0", "summed0", "kept1", "summed1", "kept2"), sizes, strict=True),
            ("offset", -x.quant.zero_point * op.count(at.site)),
            ("multiplier", r.mantissas[0]),
            ("shift", r.exponents[0]),
            ("out", output_struct(r)),
        )
    )
    return LayerCode(
        "td_kernels_pool.h",
        "td_mean",
        (Shape("td_mean_shape", shape),),
        (call("td_mean", ("&shape", "x0", "y")),),
    )


def _alternate(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    """Neighbouring axes of one kind merged: (kept, summed, kept, summed, kept)."""
    present = [(i, n) for i, n in enumerate(shape) if n > 1]
    runs = [
        (summed, math.prod(n for _, n in group))
        for summed, group in itertools.groupby(present, key=lambda pair: pair[0] in axes)
    ]
    if runs and runs[0][0]:
        runs.insert(0, (False, 1))
    if len(runs) > 5:
        raise DeployError(f"a mean over the axes {axes} of {shape} alternates more than twice")
    sizes = [n for _, n in runs] + [1] * (5 - len(runs))
    return tuple(sizes)


def _broadcast(a: Value, b: Value, y: Value) -> Struct:
    """Output sizes and operand steps, with neighbouring axes merged where both operands allow it."""
    rank = len(y.shape)
    shapes = [(1,) * (rank - len(v.shape)) + v.shape for v in (a, b)]
    axes: list[tuple[int, bool, bool]] = []
    for size, size_a, size_b in zip(y.shape, *shapes, strict=True):
        full = (size_a == size, size_b == size)
        if size == 1:
            continue
        if axes and axes[-1][1:] == full:
            axes[-1] = (axes[-1][0] * size, *full)
        else:
            axes.append((size, *full))
    if len(axes) > _AXES:
        raise DeployError(f"broadcasting {a.shape} with {b.shape} alternates more than {_AXES} times")
    axes = [(1, True, True)] * (_AXES - len(axes)) + axes
    steps: list[list[int]] = []
    for which in (1, 2):
        step, reverse = 1, []
        for axis in reversed(axes):
            reverse.append(step if axis[which] else 0)
            step *= axis[0] if axis[which] else 1
        steps.append(reverse[::-1])
    return struct(size=tuple(x[0] for x in axes), step_a=tuple(steps[0]), step_b=tuple(steps[1]))


def add(op: Add, at: Context) -> LayerCode:
    p = op.parameters(at.site)
    a, b = at.site.input(0), at.site.input(1)

    def scale(m: Multiplier, suffix: str) -> tuple[tuple[str, int], ...]:
        return ((f"multiplier_{suffix}", m.mantissa), (f"shift_{suffix}", m.exponent))

    shape = Struct(
        (
            ("shape", _broadcast(a, b, at.site.output)),
            ("zero_point_a", p.zero_points[0]),
            ("zero_point_b", p.zero_points[1]),
            *scale(p.inputs[0], "a"),
            *scale(p.inputs[1], "b"),
            ("multiplier", p.output.mantissas[0]),
            ("shift", p.output.exponents[0]),
            ("out", output_struct(p.output)),
        )
    )
    return _binary(at, "td_add", shape)


def mul(op: Mul, at: Context) -> LayerCode:
    a, b = at.site.input(0), at.site.input(1)
    r = op.requantization(at.site)
    shape = struct(
        shape=_broadcast(a, b, at.site.output),
        zero_point_a=a.quant.zero_point,
        zero_point_b=b.quant.zero_point,
        multiplier=r.mantissas[0],
        shift=r.exponents[0],
        out=output_struct(r),
    )
    return _binary(at, "td_mul", shape)


def _binary(at: Context, kernel: str, shape: Struct) -> LayerCode:
    return LayerCode(
        "td_kernels_elementwise.h",
        kernel,
        (Shape(f"{kernel}_shape", shape),),
        (call(kernel, ("&shape", at.operand(0), at.operand(1), "y")),),
        at.operand_constants(),
    )


def _rescale(at: Context, r: Requantization) -> LayerCode:
    x, y = at.site.input(0), at.site.output
    shape = struct(
        elements=x.elements,
        unsigned_in=int(x.dtype is DType.UINT8),
        unsigned_out=int(y.dtype is DType.UINT8),
        zero_point=x.quant.zero_point,
        multiplier=r.mantissas[0],
        shift=r.exponents[0],
        out=output_struct(r),
    )
    return LayerCode(
        "td_kernels_elementwise.h",
        "td_rescale",
        (Shape("td_rescale_shape", shape),),
        (call("td_rescale", ("&shape", "x0", "y")),),
    )


def relu(op: Relu, at: Context) -> LayerCode:
    return _rescale(at, op.requantization(at.site))


def quantize(op: Quantize, at: Context) -> LayerCode:
    return _rescale(at, op.requantization(at.site))


def logistic(op: Logistic, at: Context) -> LayerCode:
    return _lookup(op.table(at.site), at)


def staircase(op: Staircase, at: Context) -> LayerCode:
    return _lookup(op.table(), at)


def _lookup(table: Array, at: Context) -> LayerCode:
    """Any function of one int8."""
    return LayerCode(
        "td_kernels_elementwise.h",
        "td_lookup",
        (),
        (call("td_lookup", (str(at.site.output.elements), "{table}", at.operand(0), "y")),),
        (Constant("table", "int8_t", table), *at.operand_constants()),
    )


def softmax(op: Softmax, at: Context) -> LayerCode:
    exponentials = op.tables(at.site).exponentials
    x = at.site.input(0)
    shape = struct(rows=x.elements // x.shape[-1], classes=x.shape[-1], entries=len(exponentials))
    return LayerCode(
        "td_kernels_softmax.h",
        "td_softmax",
        (Shape("td_softmax_shape", shape),),
        (call("td_softmax", ("&shape", "{exponentials}", "x0", "y")),),
        (Constant("exponentials", "int32_t", exponentials),),
    )


def reshape(op: Reshape, at: Context) -> LayerCode:
    """Only where a view is impossible: from one buffer of the caller to another."""
    return LayerCode(
        "td_kernels_move.h",
        "td_copy",
        (),
        (call("td_copy", (str(at.site.output.elements), at.operand(0), "y")),),
        at.operand_constants(),
    )


def pad(op: Pad, at: Context) -> LayerCode:
    axes: list[tuple[int, int, int]] = []
    for size, (before, after) in zip(at.site.input(0).shape, op.paddings, strict=True):
        if axes and not (before or after):
            # An axis without padding of its own joins the one outside it.
            outer = axes[-1]
            axes[-1] = (outer[0] * size, outer[1] * size, outer[2] * size)
        else:
            axes.append((size, before, after))
    if len(axes) > _AXES:
        raise DeployError(f"padding along {len(axes)} axes; up to {_AXES} are supported")
    axes = [(1, 0, 0)] * (_AXES - len(axes)) + axes
    sizes, befores, afters = (tuple(column) for column in zip(*axes, strict=True))
    shape = struct(size=sizes, before=befores, after=afters, fill=op.fill(at.site))
    return LayerCode(
        "td_kernels_move.h",
        "td_pad",
        (Shape("td_pad_shape", shape),),
        (call("td_pad", ("&shape", at.operand(0), "y")),),
        at.operand_constants(),
    )


def concatenation(op: Concatenation, at: Context) -> LayerCode:
    y = at.site.output
    pitch = math.prod(y.shape[op.axis :])
    shapes, calls, offset = [], [], 0
    for i in range(len(at.site.inputs)):
        x = at.site.input(i)
        block = math.prod(x.shape[op.axis :])
        blocks = struct(blocks=x.elements // block, block=block, pitch=pitch)
        r = op.requantization(at.site, i)
        kernel, ctype = "td_copy_blocks", "td_blocks"
        if r is not None:
            kernel, ctype = "td_rescale_blocks", "td_rescale_blocks_shape"
            blocks = struct(
                shape=blocks,
                zero_point=x.quant.zero_point,
                multiplier=r.mantissas[0],
                shift=r.exponents[0],
                out=output_struct(r),
            )
        shapes.append(Shape(ctype, blocks, f"shape{i}"))
        calls.append(call(kernel, (f"&shape{i}", at.operand(i), f"y + {offset}" if offset else "y")))
        offset += block
    return LayerCode(
        "td_kernels_move.h", "td_copy_blocks", tuple(shapes), tuple(calls), at.operand_constants()
    )
