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
