"""MEAN over any axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinydeploy.ir.channels import ChannelCoupler, ChannelIds, required
from tinydeploy.ir.op import Op, Shape, Site
from tinydeploy.ir.types import Array
from tinydeploy.numerics import Multiplier
from tinydeploy.ops.requantize import (
    INT8_REACH,
    Activation,
    Requantization,
    check_activations,
    multiplier,
    requantization,
    require,
    require_activation,
)


@dataclass(frozen=True)
class Mean(Op):
    """Mean over `axes` (non-negative, ascending).

    Integer rule: `QuantizedMeanOrSum` in tensorflow/lite/kernels/internal/reference/reduce.h, which
    divides the multiplier, not the sum, by the number of elements.
    """

    axes: tuple[int, ...] = ()
    keep_dims: bool = False

    kind = "MEAN"

    def output_shape(self, site: Site) -> Shape:
        shape = site.input(0).shape
        require(
            all(0 <= a < len(shape) for a in self.axes) and list(self.axes) == sorted(set(self.axes)),
            f"the axes {self.axes} do not fit an input of shape {shape}",
        )
        if self.keep_dims:
            return tuple(1 if i in self.axes else n for i, n in enumerate(shape))
        return tuple(n for i, n in enumerate(shape) if i not in self.axes)

    def couple(self, site: Site, ids: Sequence[ChannelIds | None], coupler: ChannelCoupler) -> ChannelIds:
        """Channels pass, unless the mean is taken over them."""
        if len(site.input(0).shape) - 1 not in self.axes:
            return required(ids)
        coupler.freeze(required(ids))
        return coupler.frozen(site.output.shape[-1] if site.output.shape else 1)

    def count(self, site: Site) -> int:
        """Elements behind each mean."""
        return math.prod(site.input(0).shape[a] for a in self.axes)

    def check(self, site: Site) -> None:
        def integer(at: Site) -> None:
            require_activation(at.input(0))
            require_activation(at.output)
            require(self.count(at) > 0, "the mean of no element")
            self.requantization(at)

        check_activations(site, integer)

    def requantization(self, site: Site) -> Requantization:
        count = self.count(site)
        m = multiplier(site.input(0).quant.scale / site.output.quant.scale)
        shift = min(count.bit_length() - 1, 32, 31 + m.exponent)
        divided = Multiplier((m.mantissa << shift) // count, m.exponent - shift)
        return requantization([divided], Activation.NONE, site.output, INT8_REACH * count)

    @property
    def _axes(self) -> tuple[int, ...]:
        return tuple(a + 1 for a in self.axes)

    def run_integer(self, site: Site, arrays: Sequence[Array | None]) -> Array:
        x = arrays[0]
        assert x is not None
        total = x.astype(np.int64).sum(axis=self._axes) - site.input(0).quant.zero_point * self.count(site)
        return self.requantization(site).apply(total, site.output.dtype).reshape(-1, *site.output.shape)

    def run_float(self, site: Site, arrays: Sequence[Array | None]) -> Array:
        x = arrays[0]
        assert x is not None
        mean: Array = x.mean(axis=self._axes, dtype=np.float32)
        return mean.reshape(-1, *site.output.shape)
