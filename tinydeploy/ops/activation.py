"""RELU and RELU6 that stand alone, LOGISTIC and SOFTMAX."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from tinydeploy import numerics
from tinydeploy.ir.channels import ChannelCoupler, ChannelIds, required
from tinydeploy.ir.op import Op, Shape, Site
from tinydeploy.ir.types import Array, Value
from tinydeploy.ops.requantize import (
    INT8_REACH,
    Activation,
    Requantization,
    check_activations,
    multiplier,
    require,
    require_activation,
    single,
)

__all__ = ["Activation", "Logistic", "Relu", "Softmax", "SoftmaxTables"]


@dataclass(frozen=True)
class Relu(Op):
    """A clamp as an op of its own (RELU, RELU6, RELU_N1_TO_1), with a change of scale where there is one.

    Integer rule: `ReluQuantized` in tensorflow/lite/micro/kernels/activations_common.cc, which for
    equal scales is also `Relu6Quantized`. TensorFlow Lite Micro's RELU6 ignores a change of scale;
    here it is carried out, as TensorFlow Lite does.
    """

    activation: Activation = Activation.RELU

    kind = "RELU"
    in_place = True

    def output_shape(self, site: Site) -> Shape:
        return site.input(0).shape

    def check(self, site: Site) -> None:
        def integer(at: Site) -> None:
            require_activation(at.input(0))
            require_activation(at.output)
            self.requantization(at)

        check_activations(site, integer)

    def requantization(self, site: Site) -> Requantization:
        x, y = site.input(0), site.output
        return single(x.quant.scale / y.quant.scale, self.activation, y, INT8_REACH)

    def run_integer(self, site: Site, arrays: Sequence[Array | None]) -> Array:
        assert arrays[0] is not None
        x = arrays[0].astype(np.int64) - site.input(0).quant.zero_point
        return self.requantization(site).apply(x, site.output.dtype)

    def run_float(self, site: Site, arrays: Sequence[Array | None]) -> Array:
        assert arrays[0] is not None
        return self.activation.apply(arrays[0])


def _require_probability(output: Value) -> None:
    require_activation(output)
    quant = output.quant
    require(
        quant.scale == 1.0 / 256 and quant.zero_point == -128,
        f"the output {output.name!r} has scale {quant.scale!r} and zero point {quant.zero_point};"
        " the int8 rule is made for 1/256 and -128",
        "convert the model again; every converter writes these two",
    )


def _input_radius(integer_bits: int, left_shift: int) -> int:
    """Largest input difference that still fits after scaling (`CalculateInputRadius`, 31 signed bits)."""
    return math.floor(((1 << integer_bits) - 1) * (1 << (31 - integer_bits)) / (1 << left_shift))


@dataclass(frozen=True)
class Logistic(Op):
    """The sigmoid.

    Integer rule: tensorflow/lite/kernels/internal/reference/integer_ops/logistic.h; a function of one
    int8, so a table of 256 entries holds all of it.
    """

    kind = "LOGISTIC"
    in_place = True

    INTEGER_BITS = 4

    def output_shape(self, site: Site) -> Shape:
        return site.input(0).shape

    def check(self, site: Site) -> None:
        def integer(at: Site) -> None:
            require_activation(at.input(0))
            _require_probability(at.output)
            self._multiplier(at)

        check_activations(site, integer)

    def _multiplier(self, site: Site) -> numerics.Multiplier:
        m = multiplier(site.input(0).quant.scale * (1 << (31 - self.INTEGER_BITS)))
        require(m.exponent >= 0, f"the input scale {site.input(0).quant.scale!r} is below 2**-28")
        return m

    def table(self, site: Site) -> npt.NDArray[np.int8]:
        """int8 outputs for the inputs -128 .. 127, in this order."""
        m = self._multiplier(site)
        radius = _input_radius(self.INTEGER_BITS, m.exponent)
        zero_point = site.input(0).quant.zero_point
        outputs = []
        for q in range(-128, 128):
            x = q - zero_point
            if x <= -radius:
                outputs.append(-128)
            elif x >= radius:
                outputs.append(127)
            else:
                scaled = int(numerics.requantize(np.array(x), m.mantissa, m.exponent))
                raw = numerics.fixed_logistic(scaled, self.INTEGER_BITS)
                outputs.append(min(max(numerics.fixed_rescale(raw, -23) - 128, -128), 127))
        return np.array(outputs, np.int8)

    def run_integer(self, site: Site, arrays: Sequence[Array | None]) -> Array:
        assert arrays[0] is not None
        y: Array = self.table(site)[arrays[0].astype(np.int64) + 128]
        return y

    def run_float(self, site: Site, arrays: Sequence[Array | None]) -> Array:
        assert arrays[0] is not None
        real: Array = arrays[0].astype(np.float64)
        with np.errstate(over="ignore"):
            y: Array = 1.0 / (1.0 + np.exp(-real))
        return y.astype(np.float32)


@dataclass(frozen=True)
class SoftmaxTables:
    """exp(-d * beta * scale) for differences d = 0, 1, ... from the row's maximum, in Q0.31.

    Differences at or beyond the table's length contribute nothing and give the smallest output.
    """

    exponentials: npt.NDArray[np.int32]


@dataclass(frozen=True)
class Softmax(Op):
    """Softmax over the last axis.

    Integer rule: `Softmax` for int8 in tensorflow/lite/kernels/internal/reference/softmax.h with the
    parameters of tensorflow/lite/micro/kernels/softmax_common.cc.
    """

    beta: float = 1.0

    kind = "SOFTMAX"
    in_place = True

    INTEGER_BITS = 5
    ACCUMULATOR_INTEGER_BITS = 12

    def output_shape(self, site: Site) -> Shape:
        shape = site.input(0).shape
        require(len(shape) >= 1, "softmax of a scalar")
        return shape

    def check(self, site: Site) -> None:
        def integer(at: Site) -> None:
            require_activation(at.input(0))
            _require_probability(at.output)
            require(math.isfinite(self.beta) and self.beta > 0, f"beta is {self.beta!r}")
            # The sum of exponentials is held in Q12.19.
            require(at.input(0).shape[-1] < 4096, "softmax over 4096 or more classes")
            self.tables(at)

        check_activations(site, integer)

    def couple(self, site: Site, ids: Sequence[ChannelIds | None], coupler: ChannelCoupler) -> ChannelIds:
        """Every class takes part in every output, so none may go."""
        coupler.freeze(required(ids))
        return required(ids)

    def tables(self, site: Site) -> SoftmaxTables:
        return _softmax_tables(self.beta, site.input(0).quant.scale)

    def run_integer(self, site: Site, arrays: Sequence[Array | None]) -> Array:
        x = arrays[0]
        assert x is not None
        exponentials = self.tables(site).exponentials
        table = np.zeros(256, np.int64)
        table[: len(exponentials)] = exponentials
        difference = x.max(axis=-1, keepdims=True).astype(np.int64) - x
        raw = table[difference]
        terms = numerics.rounding_shift_right(raw, self.ACCUMULATOR_INTEGER_BITS)
        sums, index = np.unique(terms.sum(axis=-1), return_inverse=True)
        pairs = np.array([self._reciprocal(int(s)) for s in sums], np.int64)[index]
        pairs = pairs.reshape(*x.shape[:-1], 1, 2)
        product = numerics.rounding_high_multiply(raw, pairs[..., 0])
        q = numerics.rounding_shift_right(product, pairs[..., 1]) - 128
        beyond = difference >= len(exponentials)
        return np.where(beyond, -128, np.clip(q, -128, 127)).astype(np.int8)

    def _reciprocal(self, total: int) -> tuple[int, int]:
        """1 / total in Q0.31, and the right shift to 8 bits (`GetReciprocal`)."""
        headroom = 32 - total.bit_length()
        fraction = (total << headroom) - (1 << 31)
        bits_over_unit = self.ACCUMULATOR_INTEGER_BITS - headroom
        return numerics.fixed_reciprocal_one_plus(fraction), bits_over_unit + 31 - 8

    def run_float(self, site: Site, arrays: Sequence[Array | None]) -> Array:
        assert arrays[0] is not None
        x = arrays[0].astype(np.float64) * self.beta
        e: Array = np.exp(x - x.max(axis=-1, keepdims=True))
        y: Array = e / e.sum(axis=-1, keepdims=True)
        return y.astype(np.float32)


@lru_cache(maxsize=64)
def _softmax_tables(beta: float, scale: float) -> SoftmaxTables:
    """Cached, because a hostile graph may ask for the same table thousands of times."""
    integer_bits = Softmax.INTEGER_BITS
    ratio = min(beta * scale * (1 << (31 - integer_bits)), 2.0**31 - 1.0)
    require(ratio > 1.0, f"the input scale {scale!r} times beta is below 2**-26")
    fraction, exponent = math.frexp(ratio)
    mantissa = math.floor(fraction * 2.0**31 + 0.5)
    if mantissa == 2**31:
        mantissa, exponent = mantissa // 2, exponent + 1
    radius = min(_input_radius(integer_bits, exponent), 255)
    values = [
        numerics.fixed_exp_negative(numerics.fixed_multiply(-(d << exponent), mantissa), integer_bits)
        for d in range(radius + 1)
    ]
    exponentials = np.array(values, np.int32)
    exponentials.setflags(write=False)
    return SoftmaxTables(exponentials)
