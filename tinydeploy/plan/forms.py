"""Layers whose weights are stored in fewer than eight bits: how they are unpacked, and the working memory."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tinydeploy.ir.forms import Codebook, Form, Packed, Planes
from tinydeploy.ir.op import Op, Site
from tinydeploy.ops import Conv2D, DepthwiseConv2D, FullyConnected
from tinydeploy.plan.scratch import needs_gather

Linear = Conv2D | DepthwiseConv2D | FullyConnected

_OUTPUTS_AT_ONCE = {1: 4, 2: 2, 4: 1}
"""Outputs that the portable kernels unpack at a time, by the bytes of an unpacked weight."""


@dataclass(frozen=True)
class Fields:
    """What a field of stored weights stands for: `step * field + low`, or an entry of a table.

    Attributes:
        bits: of a field, 1 to 8.
        planes: how many of them add up to a weight; 0 where the fields are the weights.
        table: of a codebook, else empty.
    """

    bits: int
    step: int
    low: int
    planes: int = 0
    table: tuple[int, ...] = ()


def stored_form(op: Op, site: Site) -> Form | None:
    """The form in which the kernels of an integer layer read its weights; None for whole int8."""
    if not isinstance(op, Linear) or site.output.dtype.is_float:
        return None
    form = site.input(1).form
    return None if isinstance(form, Packed) and form.bits == 8 else form


def fields_of(form: Form) -> Fields:
    """How the weights of a form stand in flash."""
    if isinstance(form, Codebook):
        return Fields(form.bits, 1, 0, table=form.table)
    if isinstance(form, Planes):
        planes = len(form.signs)
        return Fields(2, 1, -1, planes) if form.ternary else Fields(1, 2, -1, planes)
    if isinstance(form, Packed):
        return Fields(form.bits, 1, form.limits[0])
    raise TypeError(f"{form} is no form of weights")


def int8_fields(form: Form) -> Fields | None:
    """The fields of a form whose weights are int8 by themselves, without coefficients to multiply by."""
    if isinstance(form, Planes):
        alone = len(form.signs) == 1 and bool((form.coefficients == 1).all())
        return replace(fields_of(form), planes=0) if alone else None
    return fields_of(form)


def unpacked_bytes(site: Site) -> int:
    """Bytes of an unpacked weight: as few as hold the largest one of the layer."""
    array = site.input(1).array
    low, high = int(array.min()), int(array.max())
    return next(n for n in (1, 2, 4) if -(1 << (8 * n - 1)) <= low <= high < 1 << (8 * n - 1))


def outputs_at_once(op: Linear, site: Site) -> int:
    """Outputs whose weights the portable kernel unpacks at a time."""
    if isinstance(op, DepthwiseConv2D):
        return 1
    groups = op.groups(site) if isinstance(op, Conv2D) else 1
    return min(_OUTPUTS_AT_ONCE[unpacked_bytes(site)], site.input(1).shape[0] // groups)


def formed_scratch(op: Linear, site: Site) -> int:
    """Bytes for the unpacked weights, and behind their last word for a gathered patch."""
    weights = site.input(1)
    if isinstance(op, DepthwiseConv2D):
        depth = weights.shape[1] * weights.shape[2]
    else:
        depth = weights.elements // weights.shape[0]
    unpacked = outputs_at_once(op, site) * depth * unpacked_bytes(site)
    patch = depth if isinstance(op, Conv2D) and needs_gather(op, site) else 0
    return 4 * -(-unpacked // 4) + patch if patch else unpacked
