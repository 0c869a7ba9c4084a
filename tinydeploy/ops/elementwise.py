"""ADD and MUL of two tensors, with broadcasting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinydeploy import numerics
from tinydeploy.errors import DeployError
from tinydeploy.ir.channels import ChannelCoupler, ChannelIds, Kept
from tinydeploy.ir.op import Op, Shape, Site
from tinydeploy.ir.types import Array
from tinydeploy.ops.requantize import (
    INT8_REACH,
    Activation,
    Requantization,
    check_activations,
    require,
    require_activation,
    single,
)

ADD_LEFT_SHIFT = 20
"""Bits by which ADD widens its int8 inputs before it scales them to a common scale."""


@dataclass(frozen=True)
class _Binary(Op):
    activation: Activation = Activation.NONE

    arity = (2, 2)
    in_place = True

    def output_shape(self, site: Site) -> Shape:
        a, b = site.input(0), site.input(1)
        try:
            return tuple(np.broadcast_shapes(a.shape, b.shape))
        except ValueError:
            raise DeployError(f"the shapes {a.shape} and {b.shape} do not broadcast") from None

    def couple(self, site: Site, ids: Sequence[ChannelIds | None], coupler: ChannelCoupler) -> ChannelIds:
        """Both operands have the same channels; one that is broadcast along them has a single frozen one."""
        channels = site.output.shape[-1] if site.output.shape else 1
        full = [n for n in ids if n is not None and len(n) == channels]
        coupler.freeze(*(n for n in ids if n is not None and len(n) != channels))
        if not full:
            return coupler.frozen(channels)
        for other in full[1:]:
            coupler.tie(full[0], other)
        return full[0]

    def narrow(self, site: Site, kept: Sequence[Kept | None], output: Kept) -> tuple[Op, dict[int, Array]]:
        constants = {
            i: v.array[..., output]
            for i, v in enumerate(site.inputs)
            if v is not None and v.is_constant and v.shape[-1:] == site.output.shape[-1:]
        }
        return self, constants

    def _operands(self, site: Site, arrays: Sequence[Array | None]) -> tuple[Array, Array]:
        """Both inputs with the rank of the output behind the sample axis."""
        rank = len(site.output.shape)
        a, b = (_with_rank(array, rank) for array in arrays)
        return a, b

    def _result(self, site: Site, y: Array) -> Array:
        # Two constant operands leave one sample; the engine broadcasts it.
        return np.broadcast_to(y, (y.shape[0], *site.output.shape))


def _with_rank(array: Array | None, rank: int) -> Array:
    assert array is not None
    return array.reshape(array.shape[0], *(1,) * (rank + 1 - array.ndim), *array.shape[1:])


@dataclass(frozen=True)
class AddParameters:
    """ADD's two input multipliers (both below one) and the output's requantization."""

    zero_points: tuple[int, int]
    inputs: tuple[numerics.Multiplier, numerics.Multiplier]
    output: Requantization


@dataclass(frozen=True)
class Add(_Binary):
    """Sum of two tensors.

    Integer rule: `AddFunc` in tensorflow/lite/kernels/internal/reference/integer_ops/add.h with the
    parameters of tensorflow/lite/micro/kernels/add_common.cc.
    """

    kind = "ADD"

    def check(self, site: Site) -> None:
        def integer(at: Site) -> None:
            for value in (at.input(0), at.input(1), at.output):
                require_activation(value)
            self.parameters(at)

        check_activations(site, integer)

    def parameters(self, site: Site) -> AddParameters:
        """Raises DeployError where a multiplier is not below one, as the rule demands."""
        a, b, y = site.input(0).quant, site.input(1).quant, site.output.quant
        twice_max = 2.0 * max(a.scale, b.scale)
        inputs = [numerics.quantize_ratio(q.scale / twice_max) for q in (a, b)]
        # Each scaled input is at most half of its widened value.
        bound = INT8_REACH << ADD_LEFT_SHIFT
        ratio = twice_max / ((1 << ADD_LEFT_SHIFT) * y.scale)
        output = single(ratio, self.activation, site.output, bound)
        require(
            output.exponents[0] <= 0 and all(m.exponent <= 0 for m in inputs),
            "the output scale is over 500,000 times smaller than the input scales",
            "quantize the layer again",
        )
        return AddParameters((a.zero_point, b.zero_point), (inputs[0], inputs[1]), output)

    def run_integer(self, site: Site, arrays: Sequence[Array | None]) -> Array:
        p = self.parameters(site)
        scaled = [
            numerics.requantize((x.astype(np.int64) - z) << ADD_LEFT_SHIFT, m.mantissa, m.exponent)
            for x, z, m in zip(self._operands(site, arrays), p.zero_points, p.inputs, strict=True)
        ]
        return self._result(site, p.output.apply(scaled[0] + scaled[1], site.output.dtype))

    def run_float(self, site: Site, arrays: Sequence[Array | None]) -> Array:
        a, b = self._operands(site, arrays)
        return self._result(site, self.activation.apply(a + b))


@dataclass(frozen=True)
class Mul(_Binary):
    """Product of two tensors.

    Integer rule: `MulElementwise` in tensorflow/lite/kernels/internal/reference/integer_ops/mul.h.
    """

    kind = "MUL"

    def check(self, site: Site) -> None:
        def integer(at: Site) -> None:
            for value in (at.input(0), at.input(1), at.output):
                require_activation(value)
            self.requantization(at)

        check_activations(site, integer)

    def requantization(self, site: Site) -> Requantization:
        a, b, y = site.input(0).quant, site.input(1).quant, site.output.quant
        return single(a.scale * b.scale / y.scale, self.activation, site.output, INT8_REACH**2)

    def run_integer(self, site: Site, arrays: Sequence[Array | None]) -> Array:
        a, b = self._operands(site, arrays)
        product = (a.astype(np.int64) - site.input(0).quant.zero_point) * (
            b.astype(np.int64) - site.input(1).quant.zero_point
        )
        return self._result(site, self.requantization(site).apply(product, site.output.dtype))

    def run_float(self, site: Site, arrays: Sequence[Array | None]) -> Array:
        a, b = self._operands(site, arrays)
        return self._result(site, self.activation.apply(a * b))
