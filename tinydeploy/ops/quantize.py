"""QUANTIZE and DEQUANTIZE: between real numbers and integers, and between two integer scales."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinydeploy.errors import DeployError
from tinydeploy.ir.op import Op, Shape, Site
from tinydeploy.ir.types import Array, DType, Quantization
from tinydeploy.ops.requantize import Requantization, require, require_activation, rescale


def quantize_array(x: Array, quantization: Quantization, dtype: DType) -> Array:
    """Real numbers to integers: `round(x / S) + Z` in float32, half away from zero, saturated.

    Source: `AffineQuantize` in tensorflow/lite/kernels/internal/reference/quantize.h.
    """
    low, high = dtype.limits
    with np.errstate(over="ignore"):
        scaled = x.astype(np.float32) / np.float32(quantization.scale)
    rounded = np.trunc(scaled + np.copysign(np.float32(0.5), scaled))
    # Clipping in double before the cast keeps infinities; NaN is refused by the callers.
    shifted: Array = np.clip(rounded.astype(np.float64) + quantization.zero_point, low, high)
    return shifted.astype(dtype.numpy)


def dequantize_array(q: Array, quantization: Quantization) -> Array:
    """Integers to real numbers, `S (q - Z)` in float32."""
    centred = q.astype(np.int64) - quantization.zero_point
    return (centred * np.float64(quantization.scale)).astype(np.float32)


@dataclass(frozen=True)
class Quantize(Op):
    """Real to int8 or uint8, or from one integer scale to another.

    Integer rule: tensorflow/lite/kernels/internal/reference/requantize.h.
    """

    kind = "QUANTIZE"
    in_place = True

    def output_shape(self, site: Site) -> Shape:
        return site.input(0).shape

    def check(self, site: Site) -> None:
        require_activation(site.output, DType.INT8, DType.UINT8)
        if not site.input(0).dtype.is_float:
            require_activation(site.input(0), DType.INT8, DType.UINT8)
            self.requantization(site)

    def requantization(self, site: Site) -> Requantization:
        return rescale(site.input(0), site.output)

    def run_integer(self, site: Site, arrays: Sequence[Array | None]) -> Array:
        x = arrays[0]
        assert x is not None
        if site.input(0).dtype.is_float:
            return quantize_array(x, site.output.quant, site.output.dtype)
        return self.requantization(site).apply(
            x.astype(np.int64) - site.input(0).quant.zero_point, site.output.dtype
        )

    run_float = run_integer


@dataclass(frozen=True)
class Dequantize(Op):
    """Integers to real numbers; supported at the border of a graph only."""

    kind = "DEQUANTIZE"

    def output_shape(self, site: Site) -> Shape:
        return site.input(0).shape

    def check(self, site: Site) -> None:
        require_activation(site.input(0), DType.INT8, DType.UINT8)
        require(site.output.dtype.is_float, f"the output {site.output.name!r} is not float")

    def run_integer(self, site: Site, arrays: Sequence[Array | None]) -> Array:
        raise DeployError(f"{site.output.name!r} is float inside an integer graph")

    def run_float(self, site: Site, arrays: Sequence[Array | None]) -> Array:
        assert arrays[0] is not None
        return dequantize_array(arrays[0], site.input(0).quant)
