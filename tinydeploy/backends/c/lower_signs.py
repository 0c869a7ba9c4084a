"""Layers over activations of signs in C."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tinydeploy.backends.c.layer import Constant, Context, LayerCode, Shape, call
from tinydeploy.backends.c.lower_linear import channel_step, conv_2d_shape
from tinydeploy.backends.c.syntax import struct
from tinydeploy.ir.forms import Planes
from tinydeploy.ops import Conv2D, FullyConnected
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
        channel_step=channel_step(p),
    )
    # (outputs, planes, products of one output)
    signs = form.signs.reshape(*form.signs.shape[:2], -1).transpose(1, 0, 2)
    streams = [packed_signs(signs > 0, words)]
    if form.ternary:
        streams.append(packed_signs(signs != 0, words))
    present = np.abs(signs).sum(axis=2, dtype=np.int64)
    bias = p.folded_bias + (present * form.coefficients.T).sum(axis=1)
    r = p.requantization
    constants = (
        Constant("signs", "int32_t", np.stack(streams, axis=2)),
        Constant("coefficients", "int16_t", form.coefficients.T),
        Constant("bias", "int32_t", bias),
        Constant("multiplier", "int32_t", np.array(r.mantissas, np.int32)),
        Constant("shift", "int8_t", np.array(r.exponents, np.int8)),
    )
    members = ", ".join(f"{{{c.role}}}" for c in constants)
    layer = f"const td_signs layer = {{{{ {members} }}}};"
    return LayerCode(
        "td_kernels_signs.h",
        kernel,
        (Shape(f"{kernel}_shape", shape),),
        (layer, call(kernel, ("&shape", "&layer", "x0", "y", "scratch"))),
        constants,
    )


def packed_signs(bits: npt.NDArray[np.bool_], words: int) -> npt.NDArray[np.int32]:
    """Bits along the last axis as words: number 4 * j + b of 32 is bit 8 * b + j; zeros fill the last one."""
    padded = np.zeros((*bits.shape[:-1], 32 * words), np.uint8)
    padded[..., : bits.shape[-1]] = bits
    # [word][j][b] becomes byte b, bit j.
    by_byte = np.swapaxes(padded.reshape(*bits.shape[:-1], words, 8, 4), -1, -2)
    packed = np.packbits(by_byte, axis=-1, bitorder="little")[..., 0]
    return np.ascontiguousarray(packed).view("<i4")[..., 0]
