"""Layers over activations of signs in C."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tinydeploy.backends.c.layer import Constant, Context, LayerCode, Shape, call
from tinydeploy.backends.c.lower_linear import conv_2d_shape
from tinydeploy.backends.c.syntax import struct
from tinydeploy.ir.forms import Planes
from tinydeploy.ir.types import Array
from tinydeploy.ops import Conv2D, FullyConnected
from tinydeploy.ops.linear import LinearParameters
from tinydeploy.plan.dsp_linear import DOUBLING_BOUND, wrapped
from tinydeploy.plan.signs import packs_image, patch_words


def conv_2d(op: Conv2D | FullyConnected, at: Context) -> LayerCode:
    kernel = "td_signs_conv_2d"
    form, p, words = at.site.input(1).form, op.parameters(at.site), patch_words(at.site)
    assert isinstance(form, Planes), "the plan chose this kernel because they are"
    shape = struct(
        conv=conv_2d_shape(op, at),
        words=words,
        planes=len(form.signs),
        ternary=int(form.ternary),
        whole=int(packs_image(op, at.site)),
        doubled=int(_doubled(p)),
    )
    return LayerCode(
        "td_kernels_signs.h",
        kernel,
        (Shape(f"{kernel}_shape", shape),),
        (call(kernel, ("&shape", "{stream}", "x0", "y", "scratch")),),
        (Constant("stream", "int32_t", _stream(form, p, words)),),
    )


def _doubled(p: LinearParameters) -> bool:
    r = p.requantization
    return max(r.exponents) < 0 and r.bound < DOUBLING_BOUND


def _stream(form: Planes, p: LinearParameters, words: int) -> Array:
    """What td_signs_dot reads for each output."""
    outputs = form.signs.shape[1]
    # (outputs, planes, products of one output)
    signs = form.signs.reshape(*form.signs.shape[:2], -1).transpose(1, 0, 2)
    coefficients = form.coefficients.T.astype(np.int64)
    shifts = np.resize(np.array(p.requantization.exponents), outputs)
    present = np.abs(signs).sum(axis=2, dtype=np.int64)
    most = p.folded_bias + (present * coefficients).sum(axis=1)
    doubled = _doubled(p)
    factors = coefficients << 16
    factors[:, -1] |= (-shifts - 1 if doubled else shifts) & 0xFF
    planes = [packed_signs(signs > 0, words)]
    if form.ternary:
        planes.append(packed_signs(signs != 0, words))
    ends = np.stack(
        [most * (2 if doubled else 1), np.resize(np.array(p.requantization.mantissas), outputs)], axis=1
    )
    each = np.concatenate([*planes, factors[..., np.newaxis]], axis=2).reshape(outputs, -1)
    return wrapped(np.concatenate([each, ends], axis=1))


def packed_signs(bits: npt.NDArray[np.bool_], words: int) -> npt.NDArray[np.int32]:
    """Bits along the last axis as words: number 4 * j + b of 32 is bit 8 * b + j; zeros fill the last one."""
    padded = np.zeros((*bits.shape[:-1], 32 * words), np.uint8)
    padded[..., : bits.shape[-1]] = bits
    # [word][j][b] becomes byte b, bit j.
    by_byte = np.swapaxes(padded.reshape(*bits.shape[:-1], words, 8, 4), -1, -2)
    packed = np.packbits(by_byte, axis=-1, bitorder="little")[..., 0]
    return np.ascontiguousarray(packed).view("<i4")[..., 0]
