"""Whether a value's elements are what its stored form can hold."""

from __future__ import annotations

import numpy as np

from tinydeploy.ir.forms import COEFFICIENT_MAX, Codebook, Packed, Planes, Signs
from tinydeploy.ir.types import DType, Value

_FEWEST_BITS, _MOST_BITS = 2, 8
_MOST_INDEX_BITS = 7
_MOST_PLANES = 8


def unfit(value: Value) -> str | None:
    """What is wrong with the form of a value; None where nothing is, or where it has none."""
    form = value.form
    if form is None:
        return None
    if isinstance(form, Planes):
        return _unfit_planes(form, value)
    if value.dtype is not DType.INT8:
        return f"is {value.dtype.value} and has a form that stores int8"
    if isinstance(form, Codebook):
        return _unfit_codebook(form, value)
    if isinstance(form, Signs) and value.is_constant:
        return "is a constant stored as signs, which activations are"
    if isinstance(form, Packed) and not _FEWEST_BITS <= form.bits <= _MOST_BITS:
        return f"is packed in {form.bits} bits; 2 to 8 are possible"
    low, high = form.limits
    if value.data is not None and not (low <= value.data.min() and value.data.max() <= high):
        return f"holds {value.data.min()} to {value.data.max()}, and its form {low} to {high}"
    return None


def _unfit_codebook(form: Codebook, value: Value) -> str | None:
    if value.data is None:
        return "is an activation with a codebook, which constants have"
    low, high = value.dtype.limits
    if not 1 <= form.bits <= _MOST_INDEX_BITS or not 1 <= len(form.table) <= 1 << form.bits:
        return f"has a codebook of {len(form.table)} entries for indices of {form.bits} bits"
    ascending = all(a < b for a, b in zip(form.table, form.table[1:], strict=False))
    if not ascending or form.table[0] < low or form.table[-1] > high:
        return "has a codebook that is not ascending int8"
    if not np.isin(value.data, form.table).all():
        return "holds an element that is not in its codebook"
    return None


def _unfit_planes(form: Planes, value: Value) -> str | None:
    if value.data is None or value.dtype is not DType.INT32:
        return "has bit planes and is no constant of int32 sums"
    planes = len(form.signs)
    if not 1 <= planes <= _MOST_PLANES or form.signs.shape[1:] != value.shape:
        return f"has bit planes of the shape {form.signs.shape} for weights {value.shape}"
    if not 0 <= form.axis < len(value.shape):
        return f"has bit planes along axis {form.axis} of {len(value.shape)}"
    if form.signs.dtype != np.int8 or form.coefficients.dtype != np.int16:
        return "has bit planes that are not int8, or coefficients that are not int16"
    if form.coefficients.shape != (planes, value.shape[form.axis]):
        return f"has {form.coefficients.shape} coefficients for {planes} planes of {value.shape[form.axis]} outputs"
    if np.abs(form.signs).max() > 1 or np.abs(form.coefficients.astype(np.int32)).max() > COEFFICIENT_MAX:
        return "has signs beyond -1 and +1, or a coefficient of -32768"
    if not np.array_equal(form.weights(), value.data):
        return "holds other integers than its bit planes sum up to"
    return None
