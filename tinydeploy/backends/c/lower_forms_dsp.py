"""Linear layers in C for the DSP extension whose weights are stored in fewer than eight bits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinydeploy.backends.c.fields import Bytes, block_fields, field_words, pair_fields, raw_fields
from tinydeploy.backends.c.layer import Constant, Context, Indices, LayerCode, Shape, call
from tinydeploy.backends.c.lower_dsp import dot_shape, dsp_output, planes_shape, window_members
from tinydeploy.backends.c.syntax import Struct, struct
from tinydeploy.ir.types import Array
from tinydeploy.ops import Conv2D, DepthwiseConv2D, FullyConnected
from tinydeploy.plan.dsp_depthwise import block_order, planes, taps
from tinydeploy.plan.dsp_linear import DotProducts, DspScales
from tinydeploy.plan.forms import Fields, int8_fields
from tinydeploy.plan.forms_dsp import pair_words

_HEADER = "td_kernels_dsp_forms.h"
_DEPTHWISE_HEADER = "td_kernels_dsp_forms_depthwise.h"


def rows(op: Conv2D | FullyConnected, at: Context) -> LayerCode:
    dot, shape = _rows(op, at)
    stored, fields, constants = _of_pairs(at, dot)
    whole = struct(rows=shape, fields=fields, block=at.choice.block, pair_words=pair_words(dot))
    return _layer(_HEADER, "td_dsp_formed_rows", whole, stored, constants)


def few_rows(op: Conv2D | FullyConnected, at: Context) -> LayerCode:
    dot, shape = _rows(op, at)
    stored, fields, constants = _of_pairs(at, dot)
    whole = struct(rows=shape, fields=fields)
    return _layer(_HEADER, "td_dsp_formed_few_rows", whole, stored, constants, scratch=False)


def _rows(op: Conv2D | FullyConnected, at: Context) -> tuple[DotProducts, Struct]:
    dot, shape = dot_shape(op, at, as_stored=True)
    return dot, struct(rows=at.site.input(0).elements // dot.depth, inputs=dot.depth, dot=shape)


def conv_2d(op: Conv2D, at: Context) -> LayerCode:
    dot, shape = dot_shape(op, at, as_stored=True)
    stored, fields, constants = _of_pairs(at, dot)
    conv = Struct((*window_members(op, at), ("dot", shape)))
    whole = struct(conv=conv, fields=fields, block=at.choice.block, pair_words=pair_words(dot))
    return _layer(_HEADER, "td_dsp_formed_conv_2d", whole, stored, constants)


def depthwise(op: DepthwiseConv2D, at: Context) -> LayerCode:
    p = planes(op, at.site, as_stored=True)
    assert p is not None, "the plan chose this kernel because they exist"
    stored, fields, constants = _of_blocks(at, p.scales)
    shape = struct(depthwise=planes_shape(op, at, p), fields=fields)
    return _layer(_DEPTHWISE_HEADER, "td_dsp_formed_depthwise", shape, stored, constants)


def depthwise_taps(op: DepthwiseConv2D, at: Context) -> LayerCode:
    t = taps(op, at.site, as_stored=True)
    assert t is not None, "the plan chose this kernel because they exist"
    stored, fields, constants = _of_blocks(at, t.scales)
    out = dsp_output(op.parameters(at.site), t.way)
    shape = struct(taps=Struct((*window_members(op, at), ("out", out))), fields=fields)
    return _layer(_DEPTHWISE_HEADER, "td_dsp_formed_depthwise_taps", shape, stored, constants)


def _of_pairs(at: Context, dot: DotProducts) -> tuple[str, Struct, tuple[Constant, ...]]:
    (fields,) = raw_fields(at.site.input(1), 0)
    channels = len(fields) + len(fields) % 2
    return _stored(at, dot.scales, pair_fields(fields, dot.words), channels, scales=dot.common is None)


def _of_blocks(at: Context, s: DspScales) -> tuple[str, Struct, tuple[Constant, ...]]:
    (fields,) = raw_fields(at.site.input(1), 3)
    return _stored(at, s, block_fields(fields, block_order(len(fields))), len(fields))


def _stored(
    at: Context, s: DspScales, words: Bytes, channels: int, *, scales: bool = True
) -> tuple[str, Struct, tuple[Constant, ...]]:
    """The statement that names the stored weights, the td_dsp_fields, and the constants."""
    form = at.site.input(1).form
    fields = None if form is None else int8_fields(form)
    assert fields is not None, "the plan chose this kernel because they are int8"
    indices = Indices(fields.bits, words.reshape(-1)) if fields.table else None
    constants = [Constant("fields", "int32_t", field_words(words, fields.bits), indices)]
    if fields.table:
        constants.append(Constant("table", "int8_t", np.array(fields.table, np.int8)))
    constants += channel_constants(at, s, channels, scales=scales)
    return stored_statement(constants), fields_struct(at, s, fields, len(words)), tuple(constants)


def channel_constants(at: Context, s: DspScales, channels: int, *, scales: bool = True) -> list[Constant]:
    """Bias and, with `scales`, what td_dsp_scale_of reads, of so many channels."""
    constants = [Constant("bias", "int32_t", _padded(s.bias, channels))]
    if scales:
        each = _scales(s)
        multiplier, shift, target = (_padded(row, channels) if _varies(s) else row[:1] for row in each)
        constants.append(Constant("multiplier", "int32_t", multiplier))
        constants.append(Constant("shift", "int8_t", shift))
        if (target != at.site.output.quant.zero_point).any():
            constants.append(Constant("target", "int8_t", target))
    return constants


def fields_struct(at: Context, s: DspScales, fields: Fields, words: int) -> Struct:
    """The td_dsp_fields of so many words."""
    return struct(
        bits=fields.bits,
        step=fields.step,
        low=fields.low,
        words=words,
        zero_point=at.site.output.quant.zero_point,
        channel_step=int(_varies(s)),
    )


def stored_statement(constants: Sequence[Constant]) -> str:
    """The td_dsp_stored of a layer with these constants."""
    there = {c.role for c in constants}
    names = ("fields", "table", "bias", "multiplier", "shift", "target")
    members = ", ".join(f"{{{n}}}" if n in there else "NULL" for n in names)
    return f"const td_dsp_stored stored = {{{{ {members} }}}};"


def _scales(s: DspScales) -> Array:
    return np.stack([s.multiplier, s.shift, s.target])


def _varies(s: DspScales) -> bool:
    each = _scales(s)
    return bool((each != each[:, :1]).any())


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
