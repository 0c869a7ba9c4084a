"""Linear layers in C for the DSP extension whose weights are stored in fewer than eight bits."""

from __future__ import annotations

import numpy as np

from tinydeploy.backends.c.fields import Bytes, block_fields, field_words, pair_fields, raw_fields
from tinydeploy.backends.c.layer import Constant, Context, LayerCode, Shape, call
from tinydeploy.backends.c.lower_dsp import dot_shape, dsp_output, planes_shape, window_shape
from tinydeploy.backends.c.syntax import Struct, struct
from tinydeploy.ir.types import Array
from tinydeploy.ops import Conv2D, DepthwiseConv2D, FullyConnected
from tinydeploy.ops.linear import LinearParameters
from tinydeploy.plan.dsp_depthwise import block_order, planes, taps
from tinydeploy.plan.dsp_linear import ANY, DotProducts
from tinydeploy.plan.forms import int8_fields
from tinydeploy.plan.forms_dsp import pair_words

_HEADER = "td_kernels_dsp_forms.h"
_DEPTHWISE_HEADER = "td_kernels_dsp_forms_depthwise.h"


def rows(op: Conv2D | FullyConnected, at: Context) -> LayerCode:
    dot, shape = _rows(op, at)
    stored, fields, constants = _of_pairs(op, at, dot)
    whole = struct(rows=shape, fields=fields, block=at.choice.block, pair_words=pair_words(dot))
    return _layer(_HEADER, "td_dsp_formed_rows", whole, stored, constants)


def few_rows(op: Conv2D | FullyConnected, at: Context) -> LayerCode:
    dot, shape = _rows(op, at)
    stored, fields, constants = _of_pairs(op, at, dot)
    whole = struct(rows=shape, fields=fields)
    return _layer(_HEADER, "td_dsp_formed_few_rows", whole, stored, constants, scratch=False)


def _rows(op: Conv2D | FullyConnected, at: Context) -> tuple[DotProducts, Struct]:
    dot, shape = dot_shape(op, at, as_stored=True)
    return dot, struct(rows=at.site.input(0).elements // dot.depth, inputs=dot.depth, dot=shape)


def conv_2d(op: Conv2D, at: Context) -> LayerCode:
    dot, shape = dot_shape(op, at, as_stored=True)
    stored, fields, constants = _of_pairs(op, at, dot)
    conv = Struct((*window_shape(op, at), ("dot", shape)))
    whole = struct(conv=conv, fields=fields, block=at.choice.block, pair_words=pair_words(dot))
    return _layer(_HEADER, "td_dsp_formed_conv_2d", whole, stored, constants)


def depthwise(op: DepthwiseConv2D, at: Context) -> LayerCode:
    p = planes(op, at.site, as_stored=True)
    assert p is not None, "the plan chose this kernel because they exist"
    stored, fields, constants = _of_blocks(op, at, p.way)
    shape = struct(depthwise=planes_shape(op, at, p), fields=fields)
    return _layer(_DEPTHWISE_HEADER, "td_dsp_formed_depthwise", shape, stored, constants)


def depthwise_taps(op: DepthwiseConv2D, at: Context) -> LayerCode:
    t = taps(op, at.site, as_stored=True)
    assert t is not None, "the plan chose this kernel because they exist"
    stored, fields, constants = _of_blocks(op, at, t.way)
    out = dsp_output(op.parameters(at.site), t.way)
    shape = struct(taps=Struct((*window_shape(op, at), ("out", out))), fields=fields)
    return _layer(_DEPTHWISE_HEADER, "td_dsp_formed_depthwise_taps", shape, stored, constants)


def _of_pairs(
    op: Conv2D | FullyConnected, at: Context, dot: DotProducts
) -> tuple[str, Struct, tuple[Constant, ...]]:
    (fields,) = raw_fields(at.site.input(1), 0)
    scales = dot.common is None
    even = len(fields) + len(fields) % 2
    words = pair_fields(fields, dot.words)
    return _stored(at, op.parameters(at.site), words, even, dot.way, scales=scales)


def _of_blocks(op: DepthwiseConv2D, at: Context, way: int) -> tuple[str, Struct, tuple[Constant, ...]]:
    (fields,) = raw_fields(at.site.input(1), 3)
    words = block_fields(fields, block_order(len(fields)))
    return _stored(at, op.parameters(at.site), words, len(fields), way)


def _stored(
    at: Context, p: LinearParameters, words: Bytes, channels: int, way: int, *, scales: bool = True
) -> tuple[str, Struct, tuple[Constant, ...]]:
    """The statement that names the stored weights, the td_dsp_fields, and the constants."""
    form = at.site.input(1).form
    assert form is not None, "the plan chose this kernel because there is one"
    fields, r = int8_fields(form), p.requantization
    assert fields is not None, "the plan chose this kernel because they are int8"
    per_channel = len(r.mantissas) > 1
    constants: dict[str, Constant | None] = {
        "fields": Constant("fields", "int32_t", field_words(words, fields.bits)),
        "table": Constant("table", "int8_t", np.array(fields.table, np.int8)) if fields.table else None,
        "bias": Constant("bias", "int32_t", _padded(p.folded_bias, channels)),
    }
    if scales:
        wide = channels if per_channel else 1
        exponents = np.array(r.exponents)
        shifts = exponents if way == ANY else -exponents
        constants["multiplier"] = Constant("multiplier", "int32_t", _padded(np.array(r.mantissas), wide))
        constants["shift"] = Constant("shift", "int8_t", _padded(shifts, wide))
    names = ("fields", "table", "bias", "multiplier", "shift")
    members = ", ".join(f"{{{n}}}" if constants.get(n) else "NULL" for n in names)
    shape = struct(
        bits=fields.bits,
        step=fields.step,
        low=fields.low,
        words=len(words),
        zero_point=r.zero_point,
        channel_step=int(per_channel),
    )
    statement = f"const td_dsp_stored stored = {{{{ {members} }}}};"
    return statement, shape, tuple(c for c in constants.values() if c)


def _padded(values: Array, channels: int) -> Array:
    """The last one once more where a channel is missing to a pair; nobody reads what it gives."""
    return np.pad(values, (0, channels - len(values)), mode="edge")


def _layer(
    header: str,
    kernel: str,
    shape: Struct,
    stored: str,
    constants: tuple[Constant, ...],
    *,
    scratch: bool = True,
) -> LayerCode:
    arguments = ("&shape", "&stored", "x0", "y", *(("scratch",) if scratch else ()))
    return LayerCode(
        header, kernel, (Shape(f"{kernel}_shape", shape),), (stored, call(kernel, arguments)), constants
    )
