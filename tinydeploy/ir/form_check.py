"""Whether a value's elements are what its stored form can hold."""

from __future__ import annotations

from collections.abc import Iterator

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
        return next(_faults_of_planes(form, value), None)
    if isinstance(form, Codebook):
        return next(_faults_of_codebook(form, value), None)
    return next(_faults_of_limits(form, value), None)


# Each of these stops at its first fault, so a later check may rely on the earlier ones.


def _faults_of_limits(form: Packed | Signs, value: Value) -> Iterator[str]:
    if value.dtype is not DType.INT8:
        yield f"is {value.dtype.value} and has a form that stores int8"
    if isinstance(form, Signs) and value.is_constant:
        yield "is a constant stored as signs, which activations are"
    if isinstance(form, Packed) and not _FEWEST_BITS <= form.bits <= _MOST_BITS:
        yield f"is packed in {form.bits} bits; 2 to 8 are possible"
    low, high = form.limits
    if value.data is not None and not (low <= value.data.min() and value.data.max() <= high):
        yield f"holds {value.data.min()} to {value.data.max()}, and its form {low} to {high}"


def _faults_of_codebook(form: Codebook, value: Value) -> Iterator[str]:
    if value.data is None:
        yield "is an activation with a codebook, which constants have"
    if value.dtype is not DType.INT8:
        yield f"is {value.dtype.value} and has a codebook of int8"
    low, high = value.dtype.limits
    if not 1 <= form.bits <= _MOST_INDEX_BITS or not 1 <= len(form.table) <= 1 << form.bits:
        yield f"has a codebook of {len(form.table)} entries for indices of {form.bits} bits"
    ascending = all(a < b for a, b in zip(form.table, form.table[1:], strict=False))
    if not ascending or form.table[0] < low or form.table[-1] > high:
        yield "has a codebook that is not ascending int8"
    if not np.isin(value.array, form.table).all():
        yield "holds an element that is not in its codebook"


def _faults_of_planes(form: Planes, value: Value) -> Iterator[str]:
    if value.data is None or value.dtype is not DType.INT32:
        yield "has bit planes and is no constant of int32 sums"
    planes = len(form.signs)
    if not 1 <= planes <= _MOST_PLANES or form.signs.shape[1:] != value.shape:
        yield f"has bit planes of the shape {form.signs.shape} for weights {value.shape}"
    if not 0 <= form.axis < len(value.shape):
        yield f"has bit planes along axis {form.axis} of {len(value.shape)}"
    if form.signs.dtype != np.int8 or form.coefficients.dtype != np.int16:
        yield "has bit planes that are not int8, or coefficients that are not int16"
    outputs = value.shape[form.axis]
    if form.coefficients.shape != (planes, outputs):
        yield f"has {form.coefficients.shape} coefficients for {planes} planes of {outputs} outputs"
    if np.abs(form.signs).max() > 1 or np.abs(form.coefficients.astype(np.int32)).max() > COEFFICIENT_MAX:
        yield "has signs beyond -1 and +1, or a coefficient of -32768"
    if not np.array_equal(form.weights(), value.array):
        yield "holds other integers than its bit planes sum up to"
