"""Layers over activations of signs in C."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tinydeploy.backends.c.layer import Constant, Context, LayerCode, Shape, call
from tinydeploy.backends.c.lower_linear import conv_2d_shape
from tinydeploy.backends.c.syntax import struct
from tinydeploy.ir.forms import Planes
from tinydeploy.ops import Conv2D, FullyConnected
from tinydeploy.ops.linear import LinearParameters
from tinydeploy.plan.dsp_linear import DOUBLING_BOUND, wrapped
from tinydeploy.plan.signs import packs_image, patch_words

_UNITS_BOUND = 2**23


def conv_2d(op: Conv2D | FullyConnected, at: Context) -> LayerCode:
    kernel = "td_signs_conv_2d"
    form, p, words = at.site.input(1).form, op.parameters(at.site), patch_words(at.site)
    assert isinstance(form, Planes), "the plan chose this kernel because they are"
    stream = _stream(form, p, words)
    shape = struct(
        conv=conv_2d_shape(op, at),
        words=words,
        planes=len(form.signs),
        ternary=int(form.ternary),
        whole=int(packs_image(op, at.site)),
        doubled=int(_doubled(p)),
        units=int(_in_units(form, p)),
    )
    return LayerCode(
        "td_kernels_signs.h",
        kernel,
        (Shape(f"{kernel}_shape", shape),),
        (call(kernel, ("&shape", "{stream}", "x0", "y", "scratch")),),
        (Constant("stream", "int32_t", stream),),
    )


def _doubled(p: LinearParameters) -> bool:
    r = p.requantization
    return r.bound << max(0, *r.exponents) < DOUBLING_BOUND


def _most(form: Planes, p: LinearParameters) -> npt.NDArray[np.int64]:
    """The sum of each output in which no sign differs, (outputs,), as often as accumulators are carried."""
    present = np.abs(_by_output(form)).sum(axis=2, dtype=np.int64)
    total = p.folded_bias + (present * form.coefficients.T.astype(np.int64)).sum(axis=1)
    result: npt.NDArray[np.int64] = total * 2 if _doubled(p) else total
    return result


def _in_units(form: Planes, p: LinearParameters) -> bool:
    alone = len(form.signs) == 1 and bool((form.coefficients == 1).all())
    return alone and bool((np.abs(_most(form, p)) < _UNITS_BOUND).all())


def _by_output(form: Planes) -> npt.NDArray[np.int8]:
    """Signs as (outputs, planes, products of one output)."""
    planes, outputs = form.signs.shape[:2]
    return form.signs.reshape(planes, outputs, -1).transpose(1, 0, 2)


def _stream(form: Planes, p: LinearParameters, words: int) -> npt.NDArray[np.int32]:
    """What td_signs_dot reads for each output."""
    signs, r, most = _by_output(form), p.requantization, _most(form, p)
    exponents = np.resize(np.array(r.exponents), len(signs))
    mantissas = np.resize(np.array(r.mantissas, np.int64), len(signs))
    planes = [packed_signs(signs > 0, words)]
    if form.ternary:
        planes.append(packed_signs(signs != 0, words))
    if _in_units(form, p):
        factors, ends = (most << 8).reshape(-1, 1), [mantissas]
    else:
        factors, ends = form.coefficients.T.astype(np.int64) << 16, [most, mantissas]
    factors[:, -1] |= exponents & 0xFF
    each = np.concatenate([*planes, factors[..., np.newaxis]], axis=2).reshape(len(signs), -1)
    return wrapped(np.concatenate([each, np.stack(ends, axis=1)], axis=1))


def packed_signs(bits: npt.NDArray[np.bool_], words: int) -> npt.NDArray[np.int32]:
    """Bits along the last axis as words: number 4 * j + b of 32 is bit 8 * b + j; zeros fill the last one."""
    padded = np.zeros((*bits.shape[:-1], 32 * words), np.uint8)
    padded[..., : bits.shape[-1]] = bits
    # [word][j][b] becomes byte b, bit j.
    by_byte = np.swapaxes(padded.reshape(*bits.shape[:-1], words, 8, 4), -1, -2)
    packed = np.packbits(by_byte, axis=-1, bitorder="little")[..., 0]
    return np.ascontiguousarray(packed).view("<i4")[..., 0]
