"""Weights of fewer than eight bits as the bytes and words that kernels read."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tinydeploy.ir.forms import Codebook, Form, Planes
from tinydeploy.ir.types import Value
from tinydeploy.plan.forms import fields_of

Bytes = npt.NDArray[np.uint8]


def raw_fields(weights: Value, output_axis: int) -> Bytes:
    """The unsigned fields of weights, (planes or 1, outputs, weights of one output)."""
    form = weights.form
    assert form is not None
    planes = form.signs if isinstance(form, Planes) else weights.array[np.newaxis]
    return _raw(
        form, np.moveaxis(planes, output_axis + 1, 1).reshape(len(planes), planes.shape[output_axis + 1], -1)
    )


def _raw(form: Form, values: npt.NDArray[Any]) -> Bytes:
    if isinstance(form, Codebook):
        return form.indices(values)
    fields = fields_of(form)
    return ((values.astype(np.int64) - fields.low) // fields.step).astype(np.uint8)


def bit_stream(fields: Bytes, bits: int) -> Bytes:
    """Fields one after the other, each from its low bit to its high one, from the low bits of a byte on."""
    each = np.unpackbits(fields.reshape(-1, 1), axis=1, bitorder="little")[:, :bits]
    return np.packbits(each.reshape(-1), bitorder="little")


def field_words(words: Bytes, bits: int) -> npt.NDArray[np.int32]:
    """Words of four fields, (words, 4) in the order of their bytes, laid out for td_kernels_dsp_stored.h."""
    parts = []
    for part, below in ((4, 0), (2, bits & 4), (1, bits & 6)):
        if bits & part:
            over = 8 // part
            padded = np.zeros((-(-len(words) // over) * over, 4), np.uint8)
            padded[: len(words)] = words >> below & ((1 << part) - 1)
            shifts = (part * np.arange(over, dtype=np.uint8)).reshape(1, over, 1)
            parts.append(np.bitwise_or.reduce(padded.reshape(-1, over, 4) << shifts, axis=1))
    return np.ascontiguousarray(np.concatenate(parts)).view("<i4").reshape(-1)


def pair_fields(fields: Bytes, words: int) -> Bytes:
    """Fields (outputs, depth) as the four bytes of each lane word of td_dsp_dot: (pairs * words, 4).

    What a field that pads a pair or a row stands for makes no difference.
    """
    outputs, depth = fields.shape
    pairs = -(-outputs // 2)
    padded = np.zeros((2 * pairs, 2 * words), np.uint8)
    padded[:outputs, :depth] = fields
    # Inputs k .. k+3 are the lanes (k, k+2) and (k+1, k+3); in each lane the second channel is the low byte.
    by_lane = padded.reshape(pairs, 2, words // 2, 2, 2).transpose(0, 2, 4, 3, 1)[..., ::-1]
    return np.ascontiguousarray(by_lane).reshape(-1, 4)


def block_fields(fields: Bytes, order: npt.NDArray[np.int64]) -> Bytes:
    """Fields (channels, taps) as words of one tap of four channels: (blocks * even number of taps, 4)."""
    taps = fields.shape[1]
    padded = np.zeros((len(order), taps + taps % 2), np.uint8)
    padded[:, :taps] = fields[order]
    return np.ascontiguousarray(padded.reshape(-1, 4, padded.shape[1]).transpose(0, 2, 1)).reshape(-1, 4)
